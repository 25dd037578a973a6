"""The entry of each Ray Train worker. It imports next to nothing, because Ray Train's controller loads it too, which else takes seconds."""

from typing import Any


def train_worker(config: dict[str, Any]) -> None:
    """Train all classifiers of a run; `config["loop"]` is a reference to its `LoopConfig`."""
    import ray

    from raysd.training.loop import train_seeds

    train_seeds(ray.get(config["loop"]))
