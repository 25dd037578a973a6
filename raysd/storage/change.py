"""Changes of a file by several processes, none of which is lost.

On a disk a lock is held meanwhile (`raysd.storage.lock`). On an object store the write is refused if the object changed
since it was read, and then the change is repeated on its new content (`raysd.storage.conditional`). Hadoop's file
system has neither; the last write wins.
"""

import uuid
from collections.abc import Callable
from contextlib import nullcontext

from raysd.storage.conditional import conditional_store
from raysd.storage.location import Location
from raysd.storage.lock import can_lock, held


def change(
    folder: Location, name: str, update: Callable[[bytes | None], bytes | None], is_new: bool = False
) -> bytes | None:
    """Change the file `name` of a folder.

    Args:
        folder: the folder that holds the file.
        name: the file's name.
        update: returns the new bytes for the old ones, or for None when the file is missing; None leaves the file as it
            is. May be called several times.
        is_new: whether the file is most likely missing; saves a request on an object store.

    Returns:
        The bytes that were written, or None.

    Raises:
        UserError: the disk is full, or the store needs a package that is missing.
        OSError: the store does not answer.
    """
    if folder.is_store:
        return _change_object(folder, name, update, is_new)
    with held(folder, name) if folder.is_local else nullcontext():
        data = update(folder.read(name) if folder.is_file(name) else None)
        if data is not None:
            folder.write(name, data)
        return data


def _change_object(
    folder: Location, name: str, update: Callable[[bytes | None], bytes | None], is_new: bool
) -> bytes | None:
    store = conditional_store(folder.uri)
    bucket, _, key = folder.file(name).partition("/")
    there = None if is_new else store.read(bucket, key)
    while True:
        data = update(None if there is None else there[0])
        if data is None or store.write(bucket, key, data, None if there is None else there[1]):
            return data
        there = store.read(bucket, key)


def is_guarded(folder: Location) -> bool:
    """Return whether a folder's storage keeps processes from overwriting each other's changes.

    Raises:
        UserError: the store needs a package that is missing.
        OSError: the storage cannot be written to.
    """
    if folder.is_local:
        return can_lock(folder)
    if not folder.is_store:
        folder.check_writable()
        return False
    store, probe = conditional_store(folder.uri), f".probe-{uuid.uuid4().hex}"
    bucket, _, key = folder.file(probe).partition("/")
    try:
        return store.write(bucket, key, b"raysd", None) and not store.write(bucket, key, b"raysd", None)
    finally:
        folder.delete(probe)
