"""What `raysd explain` prints."""

import textwrap
from shutil import get_terminal_size

from raysd.config import Experiment
from raysd.explain.setting import NAME, PAGE, Setting, find_setting, settings_of

WIDEST = 110


def explain(key: str = "") -> str:
    """Return what a setting or a section means, in lines that fit the terminal; all sections where no key is given.

    Raises:
        UserError: an unknown key; the error names the nearest one.
    """
    width = min(WIDEST, get_terminal_size().columns)
    if not key:
        about = " ".join((Experiment.__doc__ or "").split())
        return "\n".join([about, "", *_keys((), width), "", _row("docs", PAGE, width)])
    setting = find_setting(key)
    lines = [setting.key, textwrap.fill(setting.description, width, initial_indent="  ", subsequent_indent="  "), ""]
    lines += [_row(name, value, width) for name, value in _facts(setting).items() if value]
    if setting.sections:
        lines += ["", "its keys:", *_keys(setting.path, width)]
    return "\n".join(lines)


def _facts(setting: Setting) -> dict[str, str]:
    facts = {"type": setting.type, "default": setting.default, "range": setting.range, "unit": setting.unit}
    return {**facts, "fingerprint": setting.enters, "docs": setting.link}


def _keys(path: tuple[str, ...], width: int) -> list[str]:
    """Return a line or two for each key of a section: its name, what it means, its default."""
    settings = settings_of(path)
    indent = max(len(_name(setting, path)) for setting in settings) + 4
    return [
        textwrap.fill(
            setting.description + (f" (default: {setting.default})" if setting.default else ""),
            width,
            initial_indent=f"  {_name(setting, path)}".ljust(indent),
            subsequent_indent=" " * indent,
        )
        for setting in settings
    ]


def _name(setting: Setting, path: tuple[str, ...]) -> str:
    return ".".join(part for part in setting.path[len(path) :] if part != NAME)


def _row(name: str, value: str, width: int) -> str:
    return textwrap.fill(
        value,
        width,
        initial_indent=f"  {name:<12}",
        subsequent_indent=" " * 14,
        break_on_hyphens=False,
        break_long_words=False,
    )
