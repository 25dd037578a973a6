"""The name of a user's file or folder, which may end with options: `/data/birds.parquet?image=img&label=species`."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from raysd.data.readers import USUAL, Columns
from raysd.errors import UserError, meant
from raysd.storage.address import local_path

OnBroken = Literal["error", "skip"]
WHAT = ("a real data set", ", or hf://datasets/owner/name")
HUB_PAGE = re.compile(r"https?://huggingface\.co/datasets/([\w.-]+/[\w.-]+?)/?(?:/tree/.*)?", re.ASCII)
OPTIONS = ("image", "label", "on_broken")


@dataclass(frozen=True)
class OwnName:
    """A path, and how it is read."""

    path: Path
    columns: Columns = USUAL
    on_broken: OnBroken = "error"
    """What happens to an image that cannot be decoded."""


def parse_own_name(field: str, name: str) -> OwnName:
    """Return the path and the options of a name. A path that is there as it stands has none.

    Raises:
        UserError: no such user, an unknown option, or a wrong value.
    """
    if not name.strip():
        raise UserError(field, name, "names no set; give a path, or leave it out")
    if page := HUB_PAGE.fullmatch(name):
        raise UserError(field, name, f"is a page of the hub; give hf://datasets/{page[1]}")
    if "?" not in name or local_path(field, name, *WHAT).exists():
        return OwnName(local_path(field, name, *WHAT))
    path, _, query = name.rpartition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options or (wrong := [option for option in options if option not in OPTIONS]):
        shown = wrong[0] if options else query
        remedy = f"is not there and has no option {shown!r}{meant(shown, OPTIONS)}; options are {', '.join(OPTIONS)}"
        raise UserError(field, name, remedy)
    on_broken = checked_on_broken(field, name, options.pop("on_broken", "error"))
    return OwnName(local_path(field, path), Columns(**options), on_broken)


def checked_on_broken(field: str, name: str, value: str) -> OnBroken:
    """Return the value of the option `on_broken`.

    Raises:
        UserError: it is another one.
    """
    if value == "error" or value == "skip":
        return "error" if value == "error" else "skip"
    raise UserError(field, name, f"has on_broken={value}; give error or skip")
