"""Storage roots as a user writes them."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from raysd.errors import UserError
from raysd.storage.address import AZURE_FORM, HADOOP, local_path

BUCKET = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
VARIABLE = re.compile(r"(?:^|/)(?:\$\{?([A-Za-z_]\w*)\}?|%([A-Za-z_]\w*)%)(?=/|$)", re.ASCII)
"""A whole part of a path that is a variable, as shells and Windows write it."""


def _folder(path: Path) -> Path:
    """Return a path that is a folder, or can become one.

    Raises:
        UserError: it is a file, or below one.
    """
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise UserError("storage", str(path), f"{there} is a file; give a folder")
    return path


def full_path(storage: str) -> str:
    """Return a storage root on a disk as a full path.

    Raises:
        ValueError: it is an address that lacks a slash, is written for another system, or names a variable that nobody
            fills in: a folder of that name would be made in silence.
    """
    path = Path(storage)
    if (variable := VARIABLE.search(storage)) and not path.exists():
        name = variable[1] or variable[2]
        raise ValueError(f"{variable[0]} is not filled in here; write ${{oc.env:{name}}}")
    if (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(?=[/\\])", storage)) and not path.exists():
        remedy = f"write {scheme[0].lower()}//bucket/folder" if len(scheme[0]) > 2 else "give a folder of this system"
        raise ValueError(f"begins with {scheme[0]}, which is no folder here; {remedy}")
    try:
        return str(_folder(local_path("storage", storage).resolve()))
    except UserError as error:
        raise ValueError(error.remedy) from None
    except (OSError, RuntimeError) as error:
        reason = "the folder that the command runs in is gone" if isinstance(error, FileNotFoundError) else str(error)
        raise ValueError(f"is no folder that can be found ({reason}); name another one") from None


def checked_address(storage: str) -> str:
    """Return an address in an object store or in Hadoop's file system, whose name node may be left out.

    Raises:
        ValueError: it names no bucket: all that follows would be taken for another place.
    """
    parts = urlsplit(storage)
    if parts.scheme in ("file", *HADOOP) or ("@" in parts.netloc or BUCKET.fullmatch(parts.netloc)):
        return storage
    raise ValueError(f"names no bucket; write it as s3://bucket/folder, gs://bucket/folder or {AZURE_FORM}")
