"""A folder on a local disk or in an object store, through pyarrow.fs.

A file gets its name only when it is whole. On a local disk:

1. the bytes go to `.<name>.<random>.tmp` in the same folder and are synced to disk;
2. the file is renamed to its name, which is atomic, and the folder is synced.

On an object store a single upload does the same: the object is there when the upload has ended, or not at all. Azure
gets it through its own client, since pyarrow begins with an empty blob of that name. On Hadoop's file system a hidden
file is uploaded and renamed; an older one of that name is deleted before. Requests that fail for a reason that may pass
(a server error, a dropped connection) are repeated with growing pauses.

Credentials of an object store come from the environment (`AWS_ACCESS_KEY_ID`, an instance's role,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_KEY`), never from the URI.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import tenacity
from pyarrow import fs

from raysd.errors import UserError
from raysd.storage.address import (
    AZURE,
    GOOGLE,
    HADOOP,
    NEEDS_HADOOP,
    STORES,
    azure_place,
    check_address,
    check_reachable,
    local_path,
)
from raysd.storage.conditional import AZURE_KEY, azure_store, conditional_store, google_store
from raysd.storage.once import once_per_process

T = TypeVar("T")
STALE_SECONDS = 3600.0
ATTEMPTS = 6
LAST_PAUSE_SECONDS = 8.0
LOCAL = fs.LocalFileSystem()
LASTING_ERRORS = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "NO_SUCH_KEY",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "HTTP status 40",
    "401 Unauthorized",  # of Azure, as the next ones
    "403 Forbidden",
    "AuthorizationFailure",
    "AuthenticationFailed",
)


class Version(NamedTuple):
    """What a listing says of a file's content."""

    size: int
    changed: int
    """Time of the last change in nanoseconds; 0 where the store does not say it."""


@dataclass(frozen=True)
class Location:
    """A folder named by a local path or by a URI: `s3://bucket/folder`, `gs://bucket/folder`, `hdfs://host/folder`,
    `abfss://container@account.dfs.core.windows.net/folder`.

    Raises:
        UserError: when the URI cannot be read, or holds credentials.
    """

    uri: str

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    @property
    def _parts(self) -> SplitResult | None:
        """The parts of a URI; None for a path on this machine."""
        parts = urlsplit(self.uri) if "://" in self.uri else None
        return None if parts is None or parts.scheme == "file" else parts

    @property
    def filesystem(self) -> fs.FileSystem:
        """The pyarrow file system of this folder; a process has one per bucket, with connections and credentials."""
        return LOCAL if self._parts is None else self._opened(self._parts)[0]

    @cached_property
    def path(self) -> str:
        """The folder's path inside its file system."""
        if "://" not in self.uri:
            return str(local_path("storage", self.uri).resolve())
        path = unquote(urlsplit(self.uri).path).rstrip("/")
        return path if self._parts is None else self._opened(self._parts)[1] + path

    def _opened(self, parts: SplitResult) -> tuple[fs.FileSystem, str]:
        check_address("storage", self.uri)
        try:
            return _open(urlunsplit(parts._replace(path="", fragment="")))
        except UserError as error:
            raise UserError("storage", self.uri, error.remedy) from None
        except (OSError, ValueError) as error:
            if parts.scheme in HADOOP:
                raise UserError("storage", self.uri, f"{NEEDS_HADOOP} ({str(error).splitlines()[0]})") from None
            raise UserError("storage", self.uri, f"use a local path, s3://, gs:// or abfss:// ({error})") from None

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def is_store(self) -> bool:
        """Whether the folder is in an object store, which takes conditional writes."""
        return self._parts is not None and self._parts.scheme in STORES

    def child(self, *names: str) -> "Location":
        """Return the folder `names[0]/names[1]/...` below this one."""
        if "://" not in self.uri:
            return Location("/".join([self.path, *names]))
        base, question, query = self.uri.partition("?")
        return Location("/".join([base.rstrip("/"), *names]) + question + query)

    def file(self, name: str) -> str:
        """Return the path of the file `name` inside the file system."""
        return f"{self.path}/{name}"

    def exists(self, name: str) -> bool:
        """Return whether the file or folder `name` is there."""
        return self.attempt(lambda: self.filesystem.get_file_info(self.file(name))).type != fs.FileType.NotFound

    def is_file(self, name: str) -> bool:
        """Return whether the file `name` is there."""
        return self.attempt(lambda: self.filesystem.get_file_info(self.file(name))).type == fs.FileType.File

    def is_file_itself(self) -> bool:
        """Return whether there is a file in the place of this folder."""
        return self.attempt(lambda: self.filesystem.get_file_info(self.path)).type == fs.FileType.File

    def list_files(self, suffix: str = "") -> list[str]:
        """Return the sorted names of the whole files directly in this folder, by one listing."""
        return sorted(self.list_sizes(suffix))

    def list_sizes(self, suffix: str = "") -> dict[str, int]:
        """Return the bytes of each whole file directly in this folder, by name, by one listing."""
        return {name: version.size for name, version in self.list_versions(suffix).items()}

    def list_versions(self, suffix: str = "") -> dict[str, Version]:
        """Return size and time of change of each whole file directly in this folder, by name, by one listing."""
        return {info.base_name: Version(info.size, info.mtime_ns or 0) for info in self.list_infos(suffix)}

    def list_infos(self, suffix: str = "") -> list[fs.FileInfo]:
        """Return name, size and time of the whole files directly in this folder, by one listing."""
        return [
            info
            for info in self._entries()
            if info.type == fs.FileType.File and info.base_name.endswith(suffix) and not info.base_name.startswith(".")
        ]

    def list_folders(self) -> list[str]:
        """Return the sorted names of the folders directly in this one, by one listing."""
        if self._parts is not None and self._parts.scheme in GOOGLE:
            bucket, _, key = self.path.partition("/")
            return google_store(self.uri).list_folders(bucket, key)
        return sorted(info.base_name for info in self._entries() if info.type == fs.FileType.Directory)

    def has_entries(self) -> bool:
        """Return whether the folder holds a file or folder."""
        return bool(self._entries() or self.list_folders())

    def _entries(self) -> list[fs.FileInfo]:
        return self.attempt(lambda: self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True)))

    def read(self, name: str) -> bytes:
        """Return all bytes of the file `name`."""

        def read_all() -> bytes:
            with self.filesystem.open_input_stream(self.file(name)) as stream:
                return stream.read()

        return self.attempt(read_all)

    def attempt(self, request: Callable[[], T]) -> T:
        """Return the answer of a request; on an object store a request is repeated if its failure may pass."""
        if self.is_local:
            return request()
        pauses = tenacity.wait_exponential_jitter(initial=0.2, max=LAST_PAUSE_SECONDS)
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=pauses,
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )(request)

    def _upload(self, name: str, data: bytes) -> None:
        if self.is_store:
            self._send(name, data)
            return
        partial = f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            self._send(partial, data)
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(self.file(name))
            self.filesystem.move(self.file(partial), self.file(name))
        except BaseException:
            with suppress(OSError):
                self.filesystem.delete_file(self.file(partial))
            raise

    def _send(self, name: str, data: bytes) -> None:
        if self._parts is not None and self._parts.scheme in AZURE:
            container, _, key = self.file(name).partition("/")
            azure_store(self.uri).put(container, key, data)
            return
        with self.filesystem.open_output_stream(self.file(name)) as stream:
            stream.write(data)

    def delete(self, name: str) -> None:
        """Delete the file `name`."""
        self.attempt(lambda: self.filesystem.delete_file(self.file(name)))

    def write(self, name: str, data: bytes, sync: bool = True) -> None:
        """Write the file `name` in one atomic step, over an older one if there is one.

        Without `sync` a local file may be lost or empty when the machine stops before all is on its disk; call
        `sync_disks` after many small files.
        """
        if not self.is_local:
            self.attempt(lambda: self._upload(name, data))
            return
        folder = Path(self.path)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{name}.{uuid.uuid4().hex}.tmp"
        try:
            with partial.open("wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(partial, folder / name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    "storage", self.uri, "the disk is full; free some space and run the same command again"
                ) from None
            if isinstance(error, IsADirectoryError):
                raise UserError("storage", self.file(name), "is a folder, and no file; move it away") from None
            raise
        finally:
            partial.unlink(missing_ok=True)
        if not sync:
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync_disks(self) -> None:
        """Wait until this machine's disks have all that was written; do nothing in an object store."""
        if self.is_local:
            os.sync()

    def delete_folder(self) -> None:
        """Delete this folder and all that is in it; nothing when it is missing."""
        if self.attempt(lambda: self.filesystem.get_file_info(self.path)).type == fs.FileType.Directory:
            with suppress(FileNotFoundError):  # Google's has no folder beside the files in it
                self.attempt(lambda: self.filesystem.delete_dir(self.path))

    def free_bytes(self) -> int | None:
        """Return the free space of the disk that holds or will hold this folder; None in an object store."""
        if not self.is_local:
            return None
        folder = Path(self.path)
        return shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free

    def remove_stale_partials(self) -> None:
        """Delete partial files that a killed writer left here more than an hour ago."""
        if self.is_local and Path(self.path).is_dir():
            for partial in Path(self.path).glob(".*.tmp"):
                if time.time() - partial.stat().st_mtime > STALE_SECONDS:
                    partial.unlink(missing_ok=True)

    def check_writable(self) -> None:
        """Write and delete a small file.

        Raises:
            UserError: when that fails, or the store needs a package that is missing.
        """
        probe = f".probe-{uuid.uuid4().hex}"
        if self.is_store:
            conditional_store(self.uri)
        try:
            self.write(probe, b"raysd")
            self.delete(probe)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                "storage", self.uri, f"cannot be written to ({reason}); choose a folder that you may write to"
            ) from None


@once_per_process
def _open(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a URI without a path, and the path of its root."""
    check_reachable(uri, urlsplit(uri))
    if urlsplit(uri).scheme in AZURE:
        return _open_azure(urlsplit(uri))
    filesystem, path = fs.FileSystem.from_uri(_without_login(_single_upload(uri)))
    return filesystem, path.rstrip("/")


def _open_azure(parts: SplitResult) -> tuple[fs.FileSystem, str]:
    place, key = azure_place(parts), os.environ.get(AZURE_KEY)
    if not hasattr(fs, "AzureFileSystem"):
        raise UserError("storage", parts.geturl(), "needs pyarrow 21 or later")
    server = (
        {}
        if place.host.startswith(".blob.core.windows.net")
        else {
            "blob_storage_authority": place.host,
            "dfs_storage_authority": place.host.replace(".blob.", ".dfs.", 1),
        }
    )
    schemes = {"blob_storage_scheme": place.scheme, "dfs_storage_scheme": place.scheme}
    # No token of a shared access signature: pyarrow 26 writes it into the messages of its errors.
    secret = {} if key is None else {"account_key": key}
    return fs.AzureFileSystem(place.account, **server, **schemes, **secret), place.container


def _single_upload(uri: str) -> str:
    """Have small files on S3 sent in one request: a killed multipart upload leaves hidden parts that cost money."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def _without_login(uri: str) -> str:
    """Have a server in the place of Google's asked without a login, for which pyarrow would look for minutes."""
    parts = urlsplit(uri)
    if parts.scheme not in GOOGLE or "endpoint_override" not in parts.query:
        return uri
    return urlunsplit(parts._replace(netloc=f"anonymous@{parts.netloc}"))


def _may_pass(error: BaseException) -> bool:
    lasting = isinstance(error, (FileNotFoundError, PermissionError)) or any(
        word in str(error) for word in LASTING_ERRORS
    )
    return isinstance(error, OSError) and not lasting
