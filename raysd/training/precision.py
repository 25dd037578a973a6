"""The number format in which a training computes."""

from pathlib import Path

BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


def resolve_precision(precision: str) -> str:
    """Return `float32`, `bfloat16` or `float16`; `auto` depends on this machine's GPU, or on its CPU without one."""
    if precision != "auto":
        return precision
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if cpu_has_bfloat16() else "float32"


def cpu_has_bfloat16() -> bool:
    """Return whether this machine's CPU multiplies bfloat16 in hardware; emulated, it is far slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.exists() and any(flag in info.read_text(encoding="utf-8", errors="replace") for flag in BFLOAT16_FLAGS)
