"""The files of a repository: small ones in memory, large ones where the storage root has them."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from raysd.storage.hub import without_folders
from raysd.storage.location import Location

Kind = Literal["dataset", "model"]
MARK = "raysd.json"
"""Says what a repository holds, so that nothing else is pushed into it."""
CARD = "README.md"
ID = "OWNER/NAME"
"""Stands in a card for the repository's id until it is known."""
CHUNK = 2**20
REAL_SET = "dataset"
"""The key of a real data set's name, which is a path unless raysd knows the set."""


@dataclass(frozen=True)
class HubFile:
    """One file that is to be in a repository."""

    path: str
    """In the repository."""
    size: int
    data: bytes | None = None
    """The content of a small file."""
    folder: Location | None = None
    """The folder of a file that is read from the storage root."""

    @staticmethod
    def of(path: str, data: bytes | str) -> "HubFile":
        """Return a file with some content."""
        content = data.encode() if isinstance(data, str) else data
        return HubFile(path, len(content), content)

    @property
    def name(self) -> str:
        """Its name in its folder."""
        return self.path.rpartition("/")[2]

    def chunks(self) -> Iterator[bytes]:
        """Return the content in parts."""
        if self.folder is None:
            yield self.data or b""
            return
        with self.folder.filesystem.open_input_stream(self.folder.file(self.name)) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk

    def is_equal(self, size: int, blob: str, sha256: str | None) -> bool:
        """Return whether the hub's file of this path is the same: by its SHA-256, or by its hash in Git.

        A file of another size is not read.
        """
        if size != self.size:
            return False
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if sha256 is None else hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest() == (sha256 or blob)


@contextmanager
def local_copies(files: Sequence[HubFile]) -> Iterator[list[bytes | str]]:
    """Give the content or a local path of each file; one in an object store is copied to a temporary file."""
    with tempfile.TemporaryDirectory(prefix="raysd-push-") as place:
        contents: list[bytes | str] = []
        for number, file in enumerate(files):
            if file.folder is None:
                contents.append(file.data or b"")
            elif file.folder.is_local:
                contents.append(file.folder.file(file.name))
            else:
                path = Path(place, str(number))
                with path.open("wb") as copy:
                    copy.writelines(file.chunks())
                contents.append(str(path))
        yield contents


@dataclass(frozen=True)
class Contents:
    """All that a repository is to hold."""

    kind: Kind
    fingerprint: str
    """Of the clone or the classifier."""
    files: tuple[HubFile, ...]
    """Those before the card; the card comes last, once what it tells of is there."""
    card: str
    notes: tuple[str, ...] = ()
    """What whoever pushes should know, a line each."""

    def named(self, repository: str) -> "Contents":
        """Return the same with the repository's id in the code of the card."""
        return replace(self, card=self.card.replace(ID, repository))

    @property
    def mark(self) -> dict[str, str]:
        """What `raysd.json` holds."""
        return {"holds": "clone" if self.kind == "dataset" else "classifier", "fingerprint": self.fingerprint}

    @property
    def first(self) -> HubFile:
        """The file that comes first."""
        return HubFile.of(MARK, json.dumps(self.mark, indent=2) + "\n")

    @property
    def all_files(self) -> list[HubFile]:
        """All files, in the order in which they are sent."""
        return [self.first, *self.files, HubFile.of(CARD, self.card)]


def without_paths(value: Any, key: str = "") -> Any:
    """Return JSON values in which each local path and each URI is cut to its last part: they say nothing elsewhere, and
    tell of the machine.

    Args:
        value: the values.
        key: the key at which they stand; it tells a relative path from a text with a slash.
    """
    if isinstance(value, dict):
        cut = {each: without_paths(value[each], _kind_of(each, value)) for each in value}
        if "parts" in value and "name" in value:
            cut["name"] = " + ".join(part["name"] for part in cut["parts"])  # as the mixture is called
        return cut
    if isinstance(value, list | tuple):
        return [without_paths(each, key) for each in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~/", "./", "../")) or "://" in value or key == REAL_SET:
        return value.partition("?")[0].rstrip("/").rpartition("/")[2]
    return without_folders(value) if key in ("model", "weak_model", "weak_model_name") else value


def _kind_of(key: str, values: dict[str, Any]) -> str:
    return REAL_SET if key == "name" and values.get("kind") == "real" else key
