"""Numbers of an image beside its noise, each from the image's own seed."""

from hashlib import blake2b


def derived_seed(seed: int, purpose: str) -> int:
    """Return another seed, 0 to 2^63 - 1, for one purpose of an image: blake2b of its seed and the purpose."""
    return int.from_bytes(blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()) >> 1


def image_guidance_scale(guidance_range: tuple[float, float], seed: int) -> float:
    """Return the guidance scale of an image, uniform between two ends."""
    low, high = guidance_range
    return low + (high - low) * derived_seed(seed, "guidance_range") / 2**63
