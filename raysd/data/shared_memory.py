"""Memory that the processes of a node share, and that is gone with the last of them.

It is a file without a name, which lives in memory: one process makes it, and others open it through that process's
folder in /proc. The system frees it when no process has it open any more, however they ended; so nothing is left behind
by a kill, and two jobs on a node cannot meet. Only Linux has such files.
"""

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class SharedMemory:
    """A stretch of shared memory."""

    file: int
    """Its file descriptor in this process, which stays open as long as others may open it."""
    bytes: np.ndarray
    """Its content, uint8 [N]; read-only in processes that did not make it."""

    @property
    def address(self) -> tuple[int, int]:
        """What another process of the node needs to open it."""
        return os.getpid(), self.file


def create(num_bytes: int) -> SharedMemory:
    """Return new memory; pages are taken as they are written.

    Raises:
        OSError: so much is not free, or this system has no such memory.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError("this system cannot share memory between processes that way")
    if num_bytes > (free := free_bytes()):
        raise OSError(f"{num_bytes / 1e9:.2g} GB are asked for, and {free / 1e9:.2g} GB of memory are free")
    file = os.memfd_create("raysd")
    try:
        os.ftruncate(file, num_bytes)
        return SharedMemory(file, np.frombuffer(mmap.mmap(file, num_bytes), np.uint8))
    except BaseException:
        os.close(file)
        raise


def free_bytes() -> int:
    """Return the memory that new work can have, by the system's own estimate."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def attach(address: tuple[int, int], num_bytes: int) -> SharedMemory:
    """Return the memory that another process of this node made.

    Raises:
        OSError: that process is gone, or belongs to somebody else.
    """
    file = os.open("/proc/{}/fd/{}".format(*address), os.O_RDONLY)
    try:
        return SharedMemory(file, np.frombuffer(mmap.mmap(file, num_bytes, prot=mmap.PROT_READ), np.uint8))
    except ValueError as error:  # it is smaller
        os.close(file)
        raise OSError(str(error)) from None
