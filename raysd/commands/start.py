"""The command that writes an experiment file to begin with."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from raysd.errors import UserError
from raysd.prompts.table import built_in_tables, load_class_table
from raysd.prompts.table_file import FILES

SHIPPED = Path(__file__).parent.parent / "assets" / "experiments"
"""The experiments that ship with raysd; in its repository a link to `configs`."""
TEMPLATE, FILE = "own_classes", "experiment.yaml"


@dataclass(frozen=True)
class StartedExperiment:
    """An experiment file that was written."""

    path: str
    num_classes: int | None = None
    """None for a shipped experiment, which has classes of its own."""


def shipped_experiments() -> dict[str, str]:
    """Return the names of the experiments that ship with raysd, and what each is: its first line."""
    files = sorted(SHIPPED.glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}


def init(
    classes: list[str] | None = None, out: str | None = None, shipped: str | None = None, real: str | None = None
) -> StartedExperiment:
    """Write a commented experiment file, for some classes or as one of those that ship with raysd.

    Args:
        classes: names of classes; or one word, a built-in class table or a file that holds a table.
        out: the file to write; when None, `experiment.yaml`, or the shipped experiment's own name.
        shipped: the name of an experiment that ships with raysd, in the place of classes.
        real: real images to measure on: a folder with one folder per class.

    Raises:
        UserError: no classes, or both classes and a shipped experiment; no such table, folder or experiment; or a file
            that is there.
    """
    if shipped is not None:
        if classes or real is not None:
            raise UserError("from", shipped, "is a whole experiment; leave out --from, or the classes and --real")
        return StartedExperiment(_write(out or f"{shipped}.yaml", _read(shipped)))
    if not classes:
        remedy = f'name your classes, as raysd init "crane bird" "construction crane", or give a {FILES} file'
        raise UserError("classes", "", f"{remedy}; raysd init --list shows experiments to begin with")
    named: str | list[str] = classes[0] if len(classes) == 1 and _is_table(classes[0]) else classes
    table, file = load_class_table(named), out or FILE
    if real is not None and not Path(real).is_dir():
        raise UserError("real", real, "no such folder; give one that holds a folder of images for each class")
    values = {"name": _slug(Path(file).stem), "classes": named, **({} if real is None else {"test_set": real})}
    text = _read(TEMPLATE)
    for key, value in values.items():
        text = _replaced(text, key, value)
    head = f"# {len(table)} classes with Stable Diffusion 1.5, on GPUs. The model is fetched from the hub once.\n"
    return StartedExperiment(_write(file, head + text.partition("\n")[2]), len(table))


def _is_table(word: str) -> bool:
    return word in built_in_tables() or f".{word.rpartition('.')[2].lower()}" in FILES.replace(" or ", ", ").split(", ")


def _read(name: str) -> str:
    """Return the text of a shipped experiment.

    Raises:
        UserError: there is none of this name.
    """
    if name not in shipped_experiments():
        raise UserError("from", name, f"no such experiment; use one of {', '.join(shipped_experiments())}")
    return (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _slug(stem: str) -> str:
    """Return the name of an experiment, made from that of its file."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip("._-")[:64] or TEMPLATE


def _replaced(text: str, key: str, value: Any) -> str:
    """Return a file's text with another value of a key that has a line of its own; the remark behind it goes."""
    shown = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**9)
    line = shown.removesuffix("\n").removesuffix("\n...").replace("${", r"\${")
    return re.sub(rf"^( *{key}):.*$", lambda found: f"{found[1]}: {line}", text, count=1, flags=re.MULTILINE)


def _write(file: str, text: str) -> str:
    """Write a new file; return its path.

    Raises:
        UserError: it is there, or cannot be written.
    """
    try:
        with Path(file).open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise UserError("out", file, "is there, and is never overwritten; name another file with --out") from None
    except OSError as error:
        raise UserError("out", file, f"cannot be written ({error.strerror}); name another file with --out") from None
    return file
