"""Write docs/settings.md from the descriptions in the settings classes: `python tools/make_settings_page.py`."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from raysd.config import Experiment
from raysd.explain.setting import NAME, SAME, Setting, all_settings, anchor, settings_of

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
TOP = """# Settings

Every key of [the experiment file](experiment.md). `raysd explain generation.guidance_scale` prints the same at a
terminal, `raysd schema` a JSON schema.

On the command line, the keys of a section are joined by dots: `generation.guidance_scale=4`. The column *fingerprint*
says which is the first to change with the setting: that of the clone, and so of all that is made from it; of the
captions, the scores, the classifiers, the rounds of an adaptive clone, the result rows or the sweep alone; or none.
What has the same fingerprint is computed once.

The file `tools/make_settings_page.py` writes this page. Change the text in the `settings.py` that holds the setting.
"""
HEAD = "| setting | meaning | type | default | fingerprint |\n|---|---|---|---|---|\n"


def page() -> str:
    """Return the page as Markdown."""
    return "\n".join([TOP, *_sections()])


def _sections() -> Iterator[str]:
    shown: dict[type[BaseModel], str] = {Experiment: "The whole file"}
    yield _section("The whole file", Experiment, ())
    headings = set()
    for setting in all_settings():
        for path in dict.fromkeys(each.path[:-1] for each in all_settings() if _is_in(each, setting)):
            heading = ".".join(part for part in path if part != NAME)
            section = settings_of(path)[0].owner
            if heading in headings:
                continue
            headings.add(heading)
            if section in shown:
                yield f"## {heading}\n\nAs [{shown[section]}](#{anchor((shown[section].replace('.', ''),))}).\n"
            else:
                shown[section] = heading
                yield _section(heading, section, path)


def _is_in(inner: Setting, setting: Setting) -> bool:
    """Return whether a setting stands in one of the sections that another one holds."""
    path = inner.path[:-1]
    rest = path[len(setting.path) :]
    return bool(setting.sections) and path[: len(setting.path)] == setting.path and set(rest) <= {NAME}


def _section(heading: str, section: type[BaseModel], path: tuple[str, ...]) -> str:
    about = " ".join((section.__doc__ or "").split())
    return f"## {heading}\n\n{about}\n\n{HEAD}" + "".join(map(_row, settings_of(path)))


def _row(setting: Setting) -> str:
    limits = ", ".join(filter(None, [setting.range, setting.unit]))
    kind = f"{setting.type} ({limits})" if limits else setting.type
    default = f"`{setting.default}`" if setting.default not in ("", "required") else setting.default
    meaning = setting.description
    if same := SAME.get(setting.key):
        meaning += f" Keys: [{same}](#{same})."
    elif setting.sections:
        meaning += f" Keys: [below](#{anchor(setting.path)})."
    enters = setting.enters.removeprefix("in ").removeprefix("of the ")
    cells = [f"`{setting.path[-1]}`", meaning, kind, default, enters]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
