"""A folder on a local disk or in an object store, through pyarrow.fs.

A file gets its name only when it is whole. On a local disk:

1. the bytes go to `.<name>.<random>.tmp` in the same folder and are synced to disk;
2. the file is renamed to its name, which is atomic, and the folder is synced.

On an object store a single upload does the same: the object is there when the upload has ended, or not at all.
"""

import os
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pyarrow import fs

from raysd.errors import UserError

STALE_SECONDS = 3600.0


@dataclass(frozen=True)
class Location:
    """A folder named by a local path or by a URI (`s3://bucket/folder`, `gs://bucket/folder`).

    Raises:
        UserError: when the URI cannot be read.
    """

    uri: str

    @cached_property
    def _resolved(self) -> tuple[fs.FileSystem, str]:
        if "://" not in self.uri:
            return fs.LocalFileSystem(), str(Path(self.uri).expanduser().resolve())
        try:
            return fs.FileSystem.from_uri(self.uri)
        except (OSError, ValueError) as error:
            raise UserError("storage", self.uri, f"use a local path, s3:// or gs:// ({error})") from None

    @property
    def filesystem(self) -> fs.FileSystem:
        """The pyarrow file system that holds this folder."""
        return self._resolved[0]

    @property
    def path(self) -> str:
        """The folder's path inside its file system."""
        return self._resolved[1]

    @property
    def is_local(self) -> bool:
        """True on a local disk."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, *names: str) -> "Location":
        """The folder `names[0]/names[1]/...` below this one."""
        if "://" not in self.uri:
            return Location("/".join([self.path, *names]))
        base, question, query = self.uri.partition("?")
        return Location("/".join([base.rstrip("/"), *names]) + question + query)

    def file(self, name: str) -> str:
        """The path of the file `name` inside the file system."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        """True when the file or folder `name` is there."""
        return self.filesystem.get_file_info(self.file(name)).type != fs.FileType.NotFound

    def list_files(self, suffix: str = "") -> list[str]:
        """Names of the whole files directly in this folder, sorted; one listing, and nothing when the folder is missing."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        found = (info for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File)
        return sorted(info.base_name for info in found if info.base_name.endswith(suffix) and not info.base_name.startswith("."))

    def read(self, name: str) -> bytes:
        """All bytes of the file `name`."""
        with self.filesystem.open_input_stream(self.file(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Write the file `name` in one atomic step, over an older one if there is one."""
        if not self.is_local:
            with self.filesystem.open_output_stream(self.file(name)) as stream:
                stream.write(data)
            return
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, folder / name)
        finally:
            partial.unlink(missing_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove_stale_partials(self) -> None:
        """Delete partial files that a killed writer left here more than an hour ago."""
        if self.is_local and Path(self.path).is_dir():
            for partial in Path(self.path).glob(".*.tmp"):
                if time.time() - partial.stat().st_mtime > STALE_SECONDS:
                    partial.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Write and delete a small file.

        Raises:
            UserError: when that fails.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self.write(probe, b"raysd")
            self.filesystem.delete_file(self.file(probe))
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError("storage", self.uri, f"cannot be written to ({reason}); choose a folder that you may write to") from None
