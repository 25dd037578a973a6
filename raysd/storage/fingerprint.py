"""Fingerprints: a short hash of everything that shapes a result."""

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_BYTES = 8
CHUNK_BYTES = 2**20


def fingerprint(value: Any) -> str:
    """Return 16 hex digits: blake2b of the canonical JSON of `value` (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def seed_of_32_bits(seed: int) -> int:
    """Return a seed for a library that takes 32 bits: itself where it fits, else a hash of it."""
    return seed if seed < 2**32 else int(fingerprint(seed)[:8], 16)


def folder_digest(folder: Path, patterns: tuple[str, ...]) -> str:
    """Return 16 hex digits over names and contents of the files in `folder` that match one of the patterns."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for path in sorted({path for pattern in patterns for path in folder.rglob(pattern)}):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def tensor_digests(file: Path) -> dict[str, bytes]:
    """Return a sha256 of each tensor in a safetensors file, over type, shape and bytes, by name.

    Raises:
        ValueError: a file that is cut off, or another one.
    """
    digests = {}
    with file.open("rb") as stream:
        start, size = 8 + int.from_bytes(stream.read(8), "little"), file.stat().st_size
        header = json.loads(stream.read(start - 8)) if start < size else {}
        header.pop("__metadata__", None)
        if start + max((tensor["data_offsets"][1] for tensor in header.values()), default=size) > size:
            raise ValueError(f"{file.name} is cut off, or no safetensors file")
        for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            digest = hashlib.sha256(json.dumps([tensor["dtype"], tensor["shape"]]).encode())
            first, end = tensor["data_offsets"]
            stream.seek(start + first)
            for position in range(first, end, CHUNK_BYTES):
                digest.update(stream.read(min(CHUNK_BYTES, end - position)))
            digests[name] = digest.digest()
    return digests


def file_digest(path: Path) -> str:
    """Return 16 hex digits over the content of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[: 2 * DIGEST_BYTES]
