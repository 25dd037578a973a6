"""Where a training, a model or a probe computes."""

import torch


def find_device() -> torch.device:
    """The GPU, if there is one that this process may use: a Ray worker only uses one that Ray gave to it."""
    if not torch.cuda.is_available() or _is_worker_without_gpu():
        return torch.device("cpu")
    return torch.device("cuda")


def _is_worker_without_gpu() -> bool:
    import ray

    if not ray.is_initialized():
        return False
    in_worker = ray.get_runtime_context().worker.mode == ray.WORKER_MODE
    return in_worker and not ray.get_gpu_ids()
