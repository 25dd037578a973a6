"""How long the phases of a loop take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from raysd.storage.row_types.adaptive import LoopSeconds


@dataclass
class Clock:
    """Seconds of the phases of a loop, by the clock."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("generate", "train", "measure"), 0.0))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens within as a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began

    def since(self, before: dict[str, float], began: float | None = None) -> LoopSeconds:
        """Return the seconds after an earlier look; in all those since `began`, or the sum."""
        spent = {name: value - before[name] for name, value in self.seconds.items()}
        total = sum(spent.values()) if began is None else time.monotonic() - began
        return {"generate": spent["generate"], "train": spent["train"], "measure": spent["measure"], "total": total}


def added(parts: list[LoopSeconds]) -> LoopSeconds:
    """Return the sum of the seconds of some rounds."""
    return {
        "generate": sum(part["generate"] for part in parts),
        "train": sum(part["train"] for part in parts),
        "measure": sum(part["measure"] for part in parts),
        "total": sum(part["total"] for part in parts),
    }
