"""What a clone will cost, before it is drawn: an estimate from measured rates."""

from dataclasses import dataclass

from raysd.clone.plan import Plan

# Seconds per denoising step and picture with guidance: the embedded model on one CPU core (benchmarks/results/generation.json), and Stable
# Diffusion 1.x at 512 px on an A100 (0.8 s for 50 steps).
EMBEDDED_CORE_SECONDS = 0.0028
A100_SECONDS = 0.016
A100_SIZE = 512
UNGUIDED_SHARE = 0.58  # without the unconditional pass
PNG_BYTES_PER_PIXEL = 0.85
JPEG_BYTES_PER_PIXEL = 0.4
CHANNELS = {"grey": 1, "rgb": 3}


@dataclass(frozen=True)
class CostEstimate:
    """What drawing a whole plan takes."""

    device: str
    device_seconds: float
    num_bytes: float


def estimate_cost(plan: Plan) -> CostEstimate:
    """Device time and storage of a clone; an estimate, off by a factor of two on other hardware."""
    spec = plan.spec
    steps = spec.num_inference_steps * (1.0 if spec.guidance_scale > 1 and spec.family.guidance == "classifier_free" else UNGUIDED_SHARE)
    pixels, stored_pixels = spec.image_size**2, spec.stored_size**2
    per_pixel = PNG_BYTES_PER_PIXEL * CHANNELS[spec.color] if spec.codec == "png" else JPEG_BYTES_PER_PIXEL
    num_bytes = len(plan) * stored_pixels * per_pixel
    if spec.model.is_embedded:
        return CostEstimate("CPU core", len(plan) * steps * EMBEDDED_CORE_SECONDS, num_bytes)
    return CostEstimate("A100", len(plan) * steps * A100_SECONDS * pixels / A100_SIZE**2, num_bytes)
