"""The upload of a repository's files, in commits of bounded size.

What the hub already has with the same hash is not sent again. So the same push after a kill sends the rest: whole
commits are there, and of the last one the large files that had arrived.
"""

import importlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysd.errors import UserError
from raysd.progress import Progress
from raysd.sharing.repository import CARD, MARK, Contents, HubFile, local_copies

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

COMMIT_FILES = 50
COMMIT_BYTES = 2 * 10**9
"""The most bytes of a commit; files in an object store need that much of the local disk while they are sent."""
ID = re.compile(r"[A-Za-z0-9](?:(?!--|\.\.)[\w.-])*/[A-Za-z0-9](?:(?!--|\.\.)[\w.-])*(?<![.-])", re.ASCII)
LONGEST_ID = 96
OF_A_NEW_REPOSITORY = {".gitattributes", CARD}


@dataclass(frozen=True)
class Target:
    """A repository, and how it is reached."""

    repository: str
    """Its id, `owner/name`."""
    private: bool = False
    revision: str | None = None
    """A branch, made when it is missing; the main one when None."""
    token: str | None = None
    """Of the hub; when None, that of the login, or `HF_TOKEN`."""

    def __repr__(self) -> str:
        return f"Target({self.repository!r}, revision={self.revision!r})"  # a token is never shown


@dataclass(frozen=True)
class Sent:
    """What a push did."""

    url: str
    num_sent: int
    """Files that were sent."""
    num_bytes: int
    """Their bytes."""
    num_there: int
    """Files that the hub already had."""


def check_target(target: Target) -> None:
    """Check a repository's id.

    Raises:
        UserError: it is none.
    """
    if not ID.fullmatch(target.repository) or len(target.repository) > LONGEST_ID:
        raise UserError("to", target.repository, "is no id of a repository on the hub; write owner/name")


def push(contents: Contents, target: Target) -> Sent:
    """Make a repository hold some files; it is made when it is missing.

    Raises:
        UserError: the hub refuses, does not answer, or the repository holds something else.
    """
    from huggingface_hub import HfApi

    check_target(target)
    api = HfApi(token=target.token)
    with _as_user_errors(target):
        url = api.create_repo(target.repository, private=target.private, repo_type=contents.kind, exist_ok=True)
        there = _checked_files(api, contents, target)
        missing = _missing(contents.all_files, there)
        _send(api, contents, target, missing, _stale(contents, there))
    num_bytes = sum(file.size for file in missing)
    return Sent(str(url), len(missing), num_bytes, len(contents.all_files) - len(missing))


def _checked_files(api: "HfApi", contents: Contents, target: Target) -> "dict[str, RepoFile]":
    """Return the files of the branch; a missing one is made of the main one, unless that holds something else."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        there = _files_there(api, contents, target)
    except RevisionNotFoundError:
        if target.revision is None:
            raise
        _checked_files(api, contents, replace(target, revision=None))
        api.create_branch(target.repository, branch=target.revision, repo_type=contents.kind, exist_ok=True)
        there = _files_there(api, contents, target)
    _check_mark(api, contents, target, there)
    return there


def _files_there(api: "HfApi", contents: Contents, target: Target) -> "dict[str, RepoFile]":
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(
        target.repository, recursive=True, revision=target.revision, repo_type=contents.kind, token=target.token
    )
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def _check_mark(api: "HfApi", contents: Contents, target: Target, there: "dict[str, RepoFile]") -> None:
    """Refuse a repository that holds something else."""
    remedy = "choose another repository"
    if MARK not in there:
        if others := sorted(set(there) - OF_A_NEW_REPOSITORY):
            raise UserError("to", target.repository, f"holds {others[0]}, which raysd did not push; {remedy}")
        return
    path = api.hf_hub_download(
        target.repository, MARK, repo_type=contents.kind, revision=target.revision, token=target.token
    )
    try:
        found = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):
        found = None
    if found == contents.mark:
        return
    is_mark = isinstance(found, dict) and found.keys() == contents.mark.keys()
    what = f"{found['holds']} {found['fingerprint']}" if is_mark else f"a {MARK} that raysd did not write"
    raise UserError("to", target.repository, f"holds {' '.join(what.split())}; {remedy}")


def _missing(files: Sequence[HubFile], there: "dict[str, RepoFile]") -> list[HubFile]:
    """Return the files that the hub lacks, or has with other content."""
    missing = []
    with Progress("compared with the hub", len(files), "files") as progress:
        for file in files:
            other = there.get(file.path)
            if other is None or not file.is_equal(
                other.size, other.blob_id, None if other.lfs is None else other.lfs.sha256
            ):
                missing.append(file)
            progress.advance(1)
    return missing


def _stale(contents: Contents, there: "dict[str, RepoFile]") -> list[str]:
    """Return shards on the hub that the clone no longer has; a viewer would show them as well."""
    wanted = {file.path for file in contents.all_files}
    return [path for path in there if path.startswith("data/") and path not in wanted]


def _send(api: "HfApi", contents: Contents, target: Target, files: Sequence[HubFile], stale: list[str]) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.utils.tqdm import disable_progress_bars  # raysd shows its own

    def commit(part: Sequence[HubFile], deleted: Sequence[str], message: str) -> None:
        with local_copies(part) as copies:
            added = [CommitOperationAdd(file.path, copy) for file, copy in zip(part, copies, strict=True)]
            removed = [CommitOperationDelete(path) for path in deleted]
            api.create_commit(
                target.repository,
                [*added, *removed],
                commit_message=message,
                repo_type=contents.kind,
                revision=target.revision,
            )

    what = f"{contents.mark['holds']} {contents.fingerprint}"
    with disable_progress_bars(), Progress("sent", sum(map(_kilobytes, files)), "kB") as progress:
        for part in _parts(files):
            commit(part, (), f"Add {what}")
            progress.advance(sum(map(_kilobytes, part)))
    if stale:
        commit((), stale, f"Remove files that {what} no longer has")


def _kilobytes(file: HubFile) -> int:
    return max(1, round(file.size / 1000))


def _parts(files: Sequence[HubFile]) -> Iterator[Sequence[HubFile]]:
    """Cut the files into commits."""
    cuts, num_bytes = [0], 0
    for place, file in enumerate(files):
        if place > cuts[-1] and (place - cuts[-1] >= COMMIT_FILES or num_bytes + file.size > COMMIT_BYTES):
            cuts.append(place)
            num_bytes = 0
        num_bytes += file.size
    yield from (files[first:last] for first, last in pairwise([*cuts, len(files)]) if first < last)


@contextmanager
def _as_user_errors(target: Target) -> Iterator[None]:
    """Say in one line what the hub's client raises; the line names no headers, so no token either."""
    name = "httpx2" if find_spec("httpx2") else "httpx"  # which the hub's client uses, by its version
    http_error: Any = importlib.import_module(name).HTTPError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    owner = target.repository.partition("/")[0]
    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError("to", target.repository, "cannot be reached, since HF_HUB_OFFLINE is set; unset it") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        remedy = f"the hub answers {code}; push again, what has arrived is not sent twice"
        if code in (401, 403, 404):
            remedy = f"the hub refuses ({code}); set HF_TOKEN to a token that may write to {owner}, or hf auth login"
        raise UserError("to", target.repository, remedy) from None
    except (http_error, ConnectionError, LocalEntryNotFoundError, RuntimeError) as error:
        cause = error.__cause__ or error
        remedy = f"the upload broke off ({type(cause).__name__}); push again, what has arrived is not sent twice"
        raise UserError("to", target.repository, remedy) from None
