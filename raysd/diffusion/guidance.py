"""Guidance in a part of the denoising steps.

A pipeline with `one_call` in `raysd.diffusion.conventions` calls its denoiser once a step, with the unconditional half
of the batch before the conditional half. In steps outside the interval the wrapper runs the conditional half alone and
returns it for both: then eps_uncond + g (eps_cond - eps_uncond) = eps_cond for any g, at half the cost. A pipeline that
makes a call for each pass would lose the prompts of half of its images, so each call is checked.

Source: Kynkäänniemi et al., Applying guidance in a limited interval improves sample and distribution quality (NeurIPS
    2024).
"""

from collections.abc import Callable
from typing import Any

import torch

from raysd.errors import UserError


class GuidanceInterval:
    """Stand-in for a denoiser's `forward` while one batch is generated.

    Args:
        forward: the denoiser's own `forward`.
        interval: first and last share of the calls that are guided, 0 to 1.
        num_images: images of the batch; each call has twice as many rows.
        num_calls: returns how often the pipeline will call the denoiser.
    """

    def __init__(
        self, forward: Callable[..., Any], interval: tuple[float, float], num_images: int, num_calls: Callable[[], int]
    ) -> None:
        self.forward, self.interval, self.num_images, self.num_calls = forward, interval, num_images, num_calls
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run both halves inside the interval, the conditional one outside.

        Raises:
            UserError: the pipeline does not make one call a step for both halves.
        """
        size, num_calls = _batch_size(args, kwargs), self.num_calls()
        if size != 2 * self.num_images or self.calls >= num_calls:
            why = "this version of diffusers does not call the model's denoiser once a step for both passes"
            remedy = f"{why}; leave it at [0, 1], or use another version"
            raise UserError("generation.guidance_interval", list(self.interval), remedy)
        share = self.calls / num_calls
        self.calls += 1
        if self.interval[0] <= share < self.interval[1]:
            return self.forward(*args, **kwargs)
        output = self.forward(*_second_half(args, size), **_second_half(kwargs, size))
        return _twice(output)


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    sample = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
    assert isinstance(sample, torch.Tensor)
    return len(sample)


def _second_half(value: Any, size: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[size // 2 :] if value.ndim > 0 and len(value) == size else value
    if isinstance(value, dict):
        return {name: _second_half(inner, size) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_second_half(inner, size) for inner in value)
    return value


def _twice(output: Any) -> Any:
    if isinstance(output, tuple):
        return tuple(_twice(part) for part in output)
    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    return type(output)(**{name: _twice(part) for name, part in output.items()})
