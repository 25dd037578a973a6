"""Models of the Hugging Face hub: what a repository holds, its copy in this machine's cache, and the download."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from raysd.errors import UserError

# All that a classifier or an image-text model may need; `raysd.diffusion.pipeline_files` says what a pipeline does.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
HUB_SECONDS = 10.0  # to wait for the hub's answer
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A commit of a repository on the hub."""

    name: str
    commit: str
    sizes: dict[str, int] = field(hash=False)
    """Bytes of each file."""
    sha256: dict[str, str] = field(hash=False)
    """Hash of each large file's content, where the hub just told it."""
    is_asked: bool = True
    """Whether the hub answered just now; else this is from the cache."""
    is_listed: bool = True
    """Whether all files are known, also those that are not in the cache."""

    @property
    def folder(self) -> Path | None:
        """The commit's folder in this machine's cache, which may lack files; None where there is none."""
        return _snapshot(self.name, self.commit)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of some files that the cache lacks."""
        folder = self.folder
        return [name for name in names if folder is None or not (folder / name).is_file()]

    def num_bytes(self, names: Iterable[str]) -> int:
        """Return the bytes of some files."""
        return sum(self.sizes.get(name, 0) for name in names)

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Return the files whose path matches one of the patterns."""
        return [name for name in sorted(self.sizes) if any(fnmatch(name, pattern) for pattern in patterns)]


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form `owner/name` and is no folder here."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and not Path(name).is_dir()


def without_folders(name: str) -> str:
    """Return the last part of the path of a model on this machine; other names as they are."""
    return name if "/" not in name or is_hub_id(name) else name.rstrip("/").rpartition("/")[2]


def find_repository(setting: str, name: str, revision: str | None) -> Repository:
    """Return a revision of a repository. The hub is asked once, unless the revision is a commit that the cache knows.

    Where the hub does not answer, or no longer has the repository, the cache's last commit of the revision is taken.

    Raises:
        UserError: for `setting`, when the hub does not answer for it and nothing of it is in the cache.
    """
    known = cached_repository(name, revision) if COMMIT.fullmatch(revision or "") else None
    if known is not None and known.is_listed:
        return known
    try:
        return _ask(name, revision)
    except Exception as error:  # the hub's client raises many kinds
        from huggingface_hub.errors import RevisionNotFoundError

        here = known or cached_repository(name, revision)
        if here is None or isinstance(error, RevisionNotFoundError):
            raise _as_user_error(setting, name, revision, error) from None
        return here


def _ask(name: str, revision: str | None) -> Repository:
    """Return what the hub says, and note the revision's commit in the cache, for times without network."""
    from huggingface_hub import HfApi

    api = HfApi()
    info = api.model_info(name, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
    files, commit = info.siblings or [], str(info.sha)
    cached = _snapshot(name, revision)
    if not COMMIT.fullmatch(revision or "") and (cached is None or cached.name != commit):
        api.resolve_revision(name, revision=revision)
    sizes = {file.rfilename: file.size or 0 for file in files}
    return Repository(name, commit, sizes, {file.rfilename: file.lfs.sha256 for file in files if file.lfs is not None})


def cached_repository(name: str, revision: str | None) -> Repository | None:
    """Return the last known commit of a revision, from this machine's cache alone; None where nothing of it is there.

    The cache lists the repository's files, also those that were not fetched, if the hub's client of today fetched it.
    """
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    folder = _snapshot(name, revision)
    if folder is None:
        return None
    try:
        files = get_cached_repo_tree(name, revision=folder.name)
    except CachedRepoTreeNotFoundError:
        paths = [path for path in folder.rglob("*") if path.is_file()]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        return Repository(name, folder.name, sizes, {}, is_asked=False, is_listed=False)
    return Repository(name, folder.name, {file.path: file.size for file in files}, {}, is_asked=False)


def _snapshot(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[], local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def fetch_files(setting: str, repository: Repository, names: list[str]) -> Path:
    """Return the folder of a repository in this machine's cache, with these files in it; only missing ones are fetched.

    Raises:
        UserError: for `setting`, when a file is missing and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    missing, folder = repository.missing(names), repository.folder
    if folder is not None and not missing:
        return folder
    name, commit = repository.name, repository.commit
    try:
        if not repository.is_asked:
            _ask(name, commit)  # one short try; a download without network tries for half a minute
        return Path(snapshot_download(name, revision=commit, allow_patterns=missing))
    except Exception as error:  # as above
        raise _as_user_error(setting, name, commit, error) from None


def fetch_model(setting: str, name: str, revision: str | None) -> Path:
    """Return the folder of a classifier or an image-text model of the hub in this machine's cache.

    Raises:
        UserError: for `setting`, when it cannot be fetched.
    """
    repository = find_repository(setting, name, revision)
    return fetch_files(setting, repository, repository.matching(FILES))


def asked_repository(name: str, revision: str | None) -> Repository | None:
    """Return what the hub says of a revision; None where it cannot be reached from here, or does not have it."""
    try:
        return _ask(name, revision)
    except Exception:  # as above
        return None


def _as_user_error(setting: str, name: str, revision: str | None, error: Exception) -> UserError:
    """Return a line that says why the hub gave no files, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page, kinds = f"https://huggingface.co/{name}", list(_causes(error))
    codes = [kind.response.status_code for kind in kinds if isinstance(kind, HfHubHTTPError)]

    def is_any(kind: type[BaseException]) -> bool:
        return any(isinstance(found, kind) for found in kinds)

    if is_any(RevisionNotFoundError):
        remedy = f"is no branch, tag or commit of {name}; see {page}/tree/main"
        return UserError(f"{setting.rpartition('.')[0]}.revision", revision, remedy)
    if is_any(GatedRepoError) or 403 in codes:
        remedy = f"is gated; accept its license on {page}, and set HF_TOKEN to a token of that account"
    elif is_any(RepositoryNotFoundError) or 401 in codes:
        remedy = f"is not on the hub, or private; check the id on {page}, or set HF_TOKEN to a token that may read it"
    elif is_any(HFValidationError):
        remedy = "is no id of the hub; write owner/name, or the path of a folder"
    elif is_any(OfflineModeIsEnabled):
        remedy = "is not whole in this machine's cache, and HF_HUB_OFFLINE is set; unset it, or give a local folder"
    elif isinstance(error, OSError) and error.strerror:
        remedy = f"cannot be fetched ({error.strerror}); the hub's cache is where HF_HOME says"
    else:
        why = f"the hub does not answer ({', '.join([type(kinds[-1]).__name__, *map(str, codes[:1])])})"
        remedy = f"is not whole in this machine's cache, and {why}; check the network, or give a local folder"
    return UserError(setting, name, remedy)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
