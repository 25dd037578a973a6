"""raysd: synthetic clones of image-classification data sets, generated, trained on and measured with Ray.

    import raysd

    clone = raysd.generate("my.yaml", generation={"guidance_scale": 2})
    clone.load()[0]["image"]

Each command is a function that returns an object; see `raysd.commands`. They are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from raysd.storage import home as home  # places caches, before a library that has some is imported

if TYPE_CHECKING:
    from raysd.commands import (
        adapt,
        analyse,
        analyze,
        benchmark,
        caption,
        compare,
        doctor,
        evaluate,
        export,
        generate,
        grow,
        list_storage,
        plan,
        push,
        report,
        score,
        sweep,
        train,
        verify,
    )
    from raysd.config import Experiment, load_experiment
    from raysd.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "Experiment",
    "UserError",
    "adapt",
    "analyse",
    "analyze",
    "benchmark",
    "caption",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "generate",
    "grow",
    "list_storage",
    "load_experiment",
    "plan",
    "push",
    "report",
    "score",
    "sweep",
    "train",
    "verify",
]
PACKAGES = ("report", "sweep")  # also packages, which may be called like the functions
MODULES = {"Experiment": "raysd.config", "load_experiment": "raysd.config", "UserError": "raysd.errors"}


def __getattr__(name: str) -> Any:
    """Load what is asked for."""
    if name in PACKAGES:
        return importlib.import_module(f"raysd.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'raysd' has no attribute {name!r}")
    value = getattr(importlib.import_module(MODULES.get(name, "raysd.commands")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
