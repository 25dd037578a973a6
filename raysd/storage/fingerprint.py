"""Fingerprints: a short hash of everything that shapes a result."""

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_BYTES = 8


def fingerprint(value: Any) -> str:
    """Return 16 hex digits: blake2b of the canonical JSON of `value` (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """Return 16 hex digits over names and contents of the files in `folder` that match one of the patterns."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for path in sorted({path for pattern in patterns for path in folder.rglob(pattern)}):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return 16 hex digits over the content of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[: 2 * DIGEST_BYTES]
