"""A lock for a file that several processes change, on a disk that they share.

It is an advisory lock of the operating system (`flock`), on a hidden file beside the changed one, and ends with its
process in any case. A disk may lack such locks, or be full or read-only; then nothing is held, and the last write wins.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raysd.storage.location import Location


@contextmanager
def held(folder: Location, name: str) -> Iterator[None]:
    """Hold the file `name` of a local folder; waits while another process or thread holds it."""
    path = f"{folder.path}/.{name}.lock"
    handle = None
    with suppress(OSError):  # the write that follows says what is wrong with the disk
        Path(folder.path).mkdir(parents=True, exist_ok=True)
        handle = _lock(path)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(FileNotFoundError):
                os.unlink(path)  # while it is held: a waiting process finds the file gone, and makes a new one
            os.close(handle)


def can_lock(folder: Location) -> bool:
    """Return whether the disk of a local folder offers locks."""
    Path(folder.path).mkdir(parents=True, exist_ok=True)
    path = f"{folder.path}/.{uuid.uuid4().hex}.lock"
    try:
        os.close(_lock(path))
    except OSError:
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return True


def _lock(path: str) -> int:
    """Return an open handle that holds the lock."""
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            raise
        if _is_still(handle, path):
            return handle
        os.close(handle)


def _is_still(handle: int, path: str) -> bool:
    """Return whether the path still names the open file."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    own = os.fstat(handle)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)
