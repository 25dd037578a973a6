"""The digest of a model as version 0.1.0 computed it, by which a clone may have been begun.

It was over the content of all files of a folder or a repository that `FILES` names, also of those that are not loaded.
"""

import re
from dataclasses import replace
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path, PurePosixPath

from raysd.diffusion.checkpoint import FIELD, SHIPPED, Model, find_on_hub
from raysd.errors import UserError
from raysd.storage.fingerprint import DIGEST_BYTES, folder_digest
from raysd.storage.hub import FILES, Repository, asked_repository, fetch_files

LARGE = re.compile("[0-9a-f]{64}")


@cache
def earlier_model(model: Model) -> Model | None:
    """Return a model under the digest that version 0.1.0 gave it, with the plain weights, which that version loaded;
    None where the digest is the same, or is not known."""
    if model.name in SHIPPED or not model.is_pipeline:
        return None
    if model.commit is None:
        return replace(model, digest=folder_digest(model.folder, FILES), variant=None)
    checkpoint = find_on_hub(model.name, model.commit)
    digest = None if checkpoint.repository is None else _repository_digest(checkpoint.repository)
    if digest is None:
        return None
    try:
        files, missing = tuple(checkpoint.files(None)), checkpoint.missing_bytes(None)
    except UserError:  # it has no plain weights
        return None
    return replace(model, digest=digest, variant=None, files=files, missing_bytes=missing)


def _repository_digest(repository: Repository) -> str | None:
    """Return the digest of a repository; None where it is not known. Large files are not fetched: the hub tells the
    hashes of their content."""
    asked = repository if repository.sha256 else asked_repository(repository.name, repository.commit)
    told = {} if asked is None else asked.sha256
    names = sorted(repository.matching(FILES), key=PurePosixPath)
    unknown = [name for name in names if name not in told]
    if any(name.endswith(".safetensors") for name in repository.missing(unknown)):
        return None
    try:
        folder = fetch_files(FIELD, repository, unknown)
    except UserError:
        return None
    digest = blake2b(digest_size=DIGEST_BYTES)
    for name in names:
        digest.update(name.encode() + b"\0" + bytes.fromhex(told.get(name) or _sha256(folder / name)))
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    """Return the hash of a file in the hub's cache, where a large file has its hash as its name."""
    if LARGE.fullmatch(name := path.resolve().name):
        return name
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
