"""Files of a store that are read from a disk."""

from pathlib import Path

from raysd.errors import UserError
from raysd.storage.address import check_address, local_path, scheme_of, temporary_folder
from raysd.storage.location import Location
from raysd.storage.once import once_per_process


def local_file(field: str, name: str) -> Path:
    """Return the path of a file on this machine; one of a store is copied first.

    Raises:
        UserError: no such user or address, or a file that the store does not have.
    """
    if scheme_of(name) in (None, "file"):
        return local_path(field, name)
    check_address(field, name)
    return _copied(field, name)


@once_per_process
def _copied(field: str, uri: str) -> Path:
    base, question, query = uri.partition("?")
    folder, _, file = base.rpartition("/")
    try:
        data = Location(folder + question + query).read(file)
    except UserError as error:
        raise UserError(field, uri, error.remedy) from None
    except OSError as error:
        raise UserError(field, uri, f"cannot be read ({(error.strerror or str(error)).splitlines()[0]})") from None
    path = temporary_folder() / file
    path.write_bytes(data)
    return path
