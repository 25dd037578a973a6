"""How the C library keeps memory that was freed."""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt, see malloc.h
KEPT_BYTES, LARGEST_BYTES = 2**30 - 1, 2**25  # the largest that glibc takes


def keep_freed_memory() -> None:
    """Keep what tensors on the CPU leave behind for the next ones, in this process.

    By default glibc hands blocks back to the system when they are freed, and each step of a training touches thousands of new pages.
    Does nothing where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(MMAP_THRESHOLD, LARGEST_BYTES)
