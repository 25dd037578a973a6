"""The digest of a model as version 0.1.0 computed it, by which a clone may have been begun.

It was over the content of all files of a folder or a repository that `FILES` names, also of those that are not loaded.
"""

from dataclasses import replace
from functools import cache
from hashlib import blake2b, file_digest
from pathlib import Path, PurePosixPath

from raysd.diffusion.checkpoint import FIELD, SHIPPED, Model, find_checkpoint
from raysd.errors import UserError
from raysd.storage.fingerprint import DIGEST_BYTES, folder_digest
from raysd.storage.hub import FILES, fetch_files, find_repository


@cache
def earlier_model(model: Model) -> Model | None:
    """Return a model under the digest that version 0.1.0 gave it, with the plain weights, which that version loaded;
    None where the digest is the same, or is not known."""
    if model.name in SHIPPED or not model.is_pipeline:
        return None
    repository = None if model.commit is None else find_repository(FIELD, model.name, model.commit)
    if repository is None:
        return replace(model, digest=folder_digest(model.folder, FILES), variant=None)
    names = sorted(repository.matching(FILES), key=PurePosixPath)
    try:
        folder = fetch_files(FIELD, repository, [name for name in names if name not in repository.sha256])
        missing = find_checkpoint(model.name, repository.commit).missing_bytes(None)
    except UserError:
        return None
    digest = blake2b(digest_size=DIGEST_BYTES)
    for name in names:
        digest.update(name.encode() + b"\0" + bytes.fromhex(repository.sha256.get(name) or _sha256(folder / name)))
    return replace(model, digest=digest.hexdigest(), variant=None, missing_bytes=missing)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
