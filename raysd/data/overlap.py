"""Which images two sets share, by a hash of each image's bytes."""

import hashlib

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysd.data.images import ImageSet
from raysd.storage.location import Location

HASHES = "hashes"
"""Folder beside a set's files with the hashes of its images, so that they are not read again."""
HASH_BYTES = 8
BATCH_ROWS = 256


def image_hash(data: bytes) -> bytes:
    """Return the hash of an encoded image, 8 bytes."""
    return hashlib.blake2b(data, digest_size=HASH_BYTES).digest()


def count_shared(chosen: ImageSet, reported: ImageSet) -> int:
    """Return how many of the images of `reported` that count are among those of `chosen`."""
    return int(np.isin(_counting_hashes(reported), _counting_hashes(chosen)).sum())


def count_among(hashes: np.ndarray, reported: ImageSet) -> int:
    """Return how many of some hashes, uint64 [N], are of images of `reported` that count."""
    return int(np.isin(hashes, _counting_hashes(reported)).sum())


def count_images(images: ImageSet) -> int:
    """Return how many images of a set count."""
    return sum(int(images.kept_rows(file).sum()) for file in images.files())


def _counting_hashes(images: ImageSet) -> np.ndarray:
    kept = np.concatenate([images.kept_rows(file) for file in images.files()])
    return _hashes(images, len(kept))[kept]


def _hashes(images: ImageSet, count: int) -> np.ndarray:
    """Return the hash of each image in the order of the files, uint64 [count]."""
    folder, name = images.folder.child(HASHES), _file_name(images.fingerprint)
    if folder.is_file(name) and len(found := folder.read(name)) == count * HASH_BYTES:
        return np.frombuffer(found, dtype="<u8")
    hashes = bytearray()
    for file in images.files():
        with images.folder.filesystem.open_input_file(images.folder.file(file)) as source:
            for batch in pq.ParquetFile(source).iter_batches(BATCH_ROWS, columns=["image"]):
                for data in pc.struct_field(batch["image"], "bytes").to_pylist():
                    hashes += image_hash(data)
    write_hashes(images.folder, images.fingerprint, hashes)
    return np.frombuffer(bytes(hashes), dtype="<u8")


def write_hashes(folder: Location, fingerprint: str, hashes: bytes | bytearray) -> None:
    """Write the hashes of a set's images, in the order of its files, beside the files.

    Args:
        folder: the set's folder.
        fingerprint: the set's.
        hashes: of all images, one after the other.
    """
    folder.child(HASHES).write(_file_name(fingerprint), bytes(hashes))


def _file_name(fingerprint: str) -> str:
    return f"{fingerprint}.bin"
