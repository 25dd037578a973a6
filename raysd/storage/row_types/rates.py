"""What rows of measured generation rates hold."""

from typing_extensions import TypedDict


class RateKey(TypedDict):
    """What a rate depends on; its row is named by it."""

    device: str
    pipeline_key: str
    image_size: int
    num_inference_steps: int
    guided_steps: float
    scheduler: str | None
    batch_size: int
    cpus_per_actor: float
    gpus_per_actor: float
    num_actors: int


class RateRow(RateKey):
    """How fast a device generates."""

    fingerprint: str
    model: str
    model_digest: str | None
    guidance_scale: float
    dtype: str
    num_images: int
    images_per_second: float
    device_seconds_per_image: float
    start_seconds: float
    versions: dict[str, str]
    date: str
