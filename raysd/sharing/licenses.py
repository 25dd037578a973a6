"""The license of a clone or a classifier: what the generators' own model cards state, or what the user gives.

Nothing is guessed: where a card states no license, whoever pushes has to say it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysd.diffusion.checkpoint import SHIPPED, Model
from raysd.errors import UserError
from raysd.storage.hub import is_hub_id, without_folders

FIELD = "license"
OTHER = "other"
REMEDY = "say it with --license, as cc-by-4.0, or other; see https://huggingface.co/docs/hub/repositories-licenses"


@dataclass(frozen=True)
class License:
    """A license as the front matter of a card has it."""

    id: str
    """As `apache-2.0`; `other` with a name and a link."""
    name: str | None = None
    link: str | None = None
    why: str = ""
    """Who says so."""

    @property
    def front(self) -> dict[str, str]:
        """Entries of the front matter."""
        named = {"license_name": self.name, "license_link": self.link}
        return {"license": self.id, **{key: value for key, value in named.items() if value}}

    @property
    def text(self) -> str:
        """The license in words."""
        return self.name if self.id == OTHER and self.name else self.id


@dataclass(frozen=True)
class Stated:
    """A part that has a license of its own: a generator, a LoRA file, or real images."""

    part: str
    license: License | None
    """None where nobody states one."""

    def __str__(self) -> str:
        return f"{self.part}: {'not stated' if self.license is None else self.license.text}"


def generator_license(name: str, commit: str | None, folder: Path | None) -> Stated:
    """Return what the card of a generator states.

    Args:
        name: a shipped model, a folder, or an id on the hub.
        commit: of the hub, as the clone has it.
        folder: the model's folder on this machine, if it is known.
    """
    shipped = SHIPPED.get(name)
    part = f"generator {without_folders(name)}"
    if shipped is not None or not is_hub_id(name):
        return Stated(part, _of_card(shipped or folder or Path(name).expanduser(), f"the card of the {part}"))
    found = _of_card(folder, f"the card of the {part}") if folder is not None else None
    return Stated(part, found or _of_hub(name, commit, f"the card of the {part}"))


def model_licenses(model: Model, loras: Iterable[Path]) -> list[Stated]:
    """Return what is stated for a clone's generator and for each LoRA file."""
    generator = generator_license(model.name, model.commit or model.revision, model.folder)
    return [
        generator,
        *(Stated(f"LoRA {file.name}", _of_card(file.parent, f"the card of LoRA {file.name}")) for file in loras),
    ]


def agreed_license(stated: Iterable[Stated], given: str | None) -> License:
    """Return the license of a whole: the given one, else the one that all parts state.

    Raises:
        UserError: a part states none, or they state several, and none is given.
    """
    parts = list(stated)
    if given is not None:
        if not given.strip() or len(given.split()) > 1:
            raise UserError(FIELD, given, "is no license of the hub; write its short name, as cc-by-4.0, or other")
        return License(given.strip().lower(), why="whoever pushed it")
    if lacking := [part.part for part in parts if part.license is None]:
        raise UserError(FIELD, None, f"{lacking[0]} states no license in a card; {REMEDY}")
    licenses = {part.license.front["license"]: part.license for part in parts if part.license is not None}
    if len(licenses) != 1:
        raise UserError(FIELD, None, f"its parts have several ({'; '.join(map(str, parts))}); {REMEDY}")
    return next(iter(licenses.values()))


def _of_hub(name: str, commit: str | None, why: str) -> License | None:
    from huggingface_hub import hf_hub_download

    try:
        return _of_card(Path(hf_hub_download(name, "README.md", revision=commit)).parent, why)
    except Exception:  # the hub's client raises many kinds; a card that cannot be had states nothing
        return None


def _of_card(folder: Path, why: str) -> License | None:
    from huggingface_hub import RepoCard

    path = folder / "README.md"
    if not path.is_file():
        return None
    try:
        front: dict[str, Any] = RepoCard.load(path, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, UnicodeDecodeError):
        return None
    found = front.get("license")
    if not isinstance(found, str) or found == "unknown":
        return None
    name, link = front.get("license_name"), front.get("license_link")
    return License(found, name and str(name), link and str(link), why)
