"""The device on which a process computes, and the memory that it keeps."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt, see malloc.h
KEPT_BYTES, LARGEST_BYTES = 2**30 - 1, 2**25  # the largest that glibc takes
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


def keep_freed_memory() -> None:
    """Keep the memory of freed CPU tensors for the next ones, in this process.

    By default glibc hands blocks back to the system when they are freed, and each step of a training touches thousands
    of new pages. Does nothing with another C library.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(MMAP_THRESHOLD, LARGEST_BYTES)


def find_device(takes_mps: bool = False) -> torch.device:
    """Return the GPU that this process may use, or the CPU: a Ray worker only uses a GPU that Ray gave to it.

    Ray hides the other GPUs from a worker that was given one, unless `RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES` is
    set. A worker that was given none sees them all.

    Args:
        takes_mps: whether the work can be done by the GPU of a Mac, of which Ray knows nothing. It has no float64, and
            its tensors cannot be sent between workers.
    """
    if not torch.cuda.is_available():
        return torch.device("mps" if takes_mps and torch.backends.mps.is_available() else "cpu")
    given = _given_gpus()
    if given is None:
        return torch.device("cuda")
    return torch.device("cuda", _place(given[0])) if given else torch.device("cpu")


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware; emulated, it is far slower than float32."""
    if device.type != "cuda":
        return cpu_has_bfloat16()
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bfloat16() -> bool:
    """Return whether this machine's CPU multiplies bfloat16 in hardware."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text(encoding="utf-8", errors="replace") for flag in BFLOAT16_FLAGS)


def _given_gpus() -> list[str] | None:
    """Return ray's ids of the GPUs that it gave to this worker; None in a process that is no worker."""
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    return [str(gpu) for gpu in ray.get_gpu_ids()]


def _place(gpu: str) -> int:
    """Return the place of a GPU among those that CUDA sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible.split(",").index(gpu) if visible else int(gpu)
