"""The home folder, where libraries keep caches, settings and tokens, and what stands in where nothing can be kept."""

import os
import pwd
import tempfile
from contextlib import suppress
from pathlib import Path


def can_write(folder: Path) -> bool:
    """Return whether a folder can be written to, or made."""
    place = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def place_caches() -> str | None:
    """Send to a temporary folder what libraries would write below the home folder, if nothing can be written there.

    Later processes of this one inherit it. What lies in a home folder that can be read stays in use: the hub's cache,
    and credentials.

    Returns:
        A line for the user; None where the home folder can be written to, or no temporary folder either.
    """
    home = _home()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if home.is_dir() and can_write(home) and can_write(caches):
        return None
    try:
        other = _temporary_home()
    except OSError:
        return None
    if not home.is_dir():
        os.environ["HOME"] = str(other)
    _keep_hub_cache(home, caches / "huggingface")
    os.environ["XDG_CACHE_HOME"] = str(other / ".cache")
    os.environ.setdefault("XDG_CONFIG_HOME", str(other / ".config"))
    os.environ.setdefault("TRITON_HOME", str(other))
    return f"HOME = {str(home)!r}: cannot be written to; caches of libraries go to {other}"


def _home() -> Path:
    """Return the home folder: that of the environment, else that of the user's entry."""
    if named := os.environ.get("HOME"):
        return Path(named)
    with suppress(KeyError):
        entry = pwd.getpwuid(os.getuid()).pw_dir
        os.environ["HOME"] = entry
        return Path(entry)
    return Path("/nonexistent")


def _keep_hub_cache(home: Path, folder: Path) -> None:
    """Keep what the hub's cache holds, and the hub's token; both can be read where nothing can be written."""
    if "HF_HOME" in os.environ:
        return
    with suppress(OSError):
        if (folder / "hub").is_dir():
            os.environ.setdefault("HF_HUB_CACHE", str(folder / "hub"))
        if (folder / "token").is_file():
            os.environ.setdefault("HF_TOKEN_PATH", str(folder / "token"))


def _temporary_home() -> Path:
    """Return a folder of this user's own, the same one in each process.

    Raises:
        OSError: there is no temporary folder that can be written to.
    """
    folder = Path(tempfile.gettempdir(), f"raysd-home-{os.getuid()}")
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid() and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="raysd-home-"))


NOTICE = place_caches()
"""What the command line says of it, once."""
