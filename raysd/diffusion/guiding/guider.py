"""The guider: a stand-in for a denoiser's `forward` that decides what guides each image.

A pipeline with `one_call` in `raysd.diffusion.conventions` calls its denoiser once a step, with the unconditional half
of the batch before the conditional half, and mixes what comes back to u + G (c - u), with a constant G. A guider that
returns the same for both halves has the last word, whatever G is: x + G (x - x) = x, without a rounding error. So it
returns

- the conditional prediction c, outside the guided interval, at half the cost;
- c + w (c - v), where it decides: v is the unconditional prediction, that of a weaker model, or that of the model with
  blocks skipped, and w has a value of its own for each step and each image;
- both halves as they are, where guidance is plain, and the pipeline mixes.

A pipeline that makes a call for each pass would lose the prompts of half of its images, so each call is checked.

All that differs from image to image follows from the image's own seed, and nothing is computed over the batch, so an
image does not depend on its neighbors.

Sources: Ho and Salimans, Classifier-free diffusion guidance (2022); Kynkäänniemi et al., Applying guidance in a limited
    interval improves sample and distribution quality (NeurIPS 2024); Karras et al., Guiding a diffusion model with a
    bad version of itself (NeurIPS 2024); Wang et al., Analysis of classifier-free guidance weight schedulers (TMLR
    2024).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from raysd.diffusion.guiding.condition_noise import ConditionNoise
from raysd.errors import UserError

Forward = Callable[..., Any]
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "rising": lambda share: 2 * share,
    "falling": lambda share: 2 * (1 - share),
    "rising_cosine": lambda share: 1 - math.cos(math.pi * share),
    "falling_cosine": lambda share: 1 + math.cos(math.pi * share),
}
"""Factor on w by the share of the sampling that is done; each has the mean 1."""


class Guider:
    """Stand-in for a denoiser's `forward` while one batch is generated.

    Args:
        forward: the denoiser's own `forward`.
        num_images: images of the batch.
        num_calls: returns how often the pipeline will call the denoiser.
        asked: the setting that needs this guider, and its value, for errors.
        is_guided: whether each call has an unconditional row for each image, before the conditional ones.
        interval: first and last share of the calls that are guided, 0 to 1.
        weights: w of each image; None where the pipeline mixes.
        schedule: of w over the calls, a name in `SCHEDULES`.
        weaker: a forward that gives v from conditional rows; None for the unconditional prediction.
        noise: on the prompts' embeddings.
    """

    def __init__(
        self,
        forward: Forward,
        num_images: int,
        num_calls: Callable[[], int],
        asked: tuple[str, object],
        is_guided: bool = True,
        interval: tuple[float, float] = (0.0, 1.0),
        weights: Sequence[float] | None = None,
        schedule: str = "constant",
        weaker: Forward | None = None,
        noise: ConditionNoise | None = None,
    ) -> None:
        self.forward, self.num_images, self.num_calls, self.asked = forward, num_images, num_calls, asked
        self.is_guided, self.interval = is_guided, interval
        self.weights, self.schedule, self.weaker, self.noise = weights, SCHEDULES[schedule], weaker, noise
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the passes that the step needs.

        Raises:
            UserError: the pipeline does not make one call a step for both halves.
        """
        call, num_calls, size = self.calls, self.num_calls(), _batch_size(args, kwargs)
        if size != self.num_images * (1 + self.is_guided) or call >= num_calls:
            self._refuse("does not call the model's denoiser once a step for both passes")
        self.calls += 1
        if self.noise is not None:
            noised = self.noise.add(kwargs, size, time=1 - call / num_calls)
            kwargs = noised or self._refuse("does not hand the prompts' embeddings to the model's denoiser by name")
        if not self.is_guided:
            return self.forward(*args, **kwargs)
        if not self.interval[0] <= call / num_calls < self.interval[1]:
            return _twice(self.forward(*_rows(args, size), **_rows(kwargs, size)))
        if self.weights is None:
            return self.forward(*args, **kwargs)
        factor = self.schedule((call + 0.5) / num_calls)
        return _twice(self._guided(args, kwargs, size, [weight * factor for weight in self.weights]))

    def _guided(self, args: tuple[Any, ...], kwargs: dict[str, Any], size: int, weights: list[float]) -> Any:
        """Return c + w (c - v)."""
        if self.weaker is None:
            output = self.forward(*args, **kwargs)
            return _mixed(_rows(output, size), _rows(output, size, first=True), weights)
        args, kwargs = _rows(args, size), _rows(kwargs, size)
        return _mixed(self.forward(*args, **kwargs), self.weaker(*args, **kwargs), weights)

    def _refuse(self, what: str) -> Any:
        field, value = self.asked
        raise UserError(field, value, f"this version of diffusers {what}; leave it out, or use another version")


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    sample = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
    assert isinstance(sample, torch.Tensor)
    return len(sample)


def _rows(value: Any, size: int, first: bool = False) -> Any:
    """Return the conditional rows, or the first half, of all tensors that have both halves."""
    if isinstance(value, torch.Tensor):
        half = slice(size // 2) if first else slice(size // 2, None)
        return value[half] if value.ndim > 0 and len(value) == size else value
    return _each(lambda inner: _rows(inner, size, first), value)


def _twice(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return torch.cat([output, output])
    return _each(_twice, output)


def _mixed(strong: Any, weak: Any, weights: list[float]) -> Any:
    """Return c + w (c - v), computed in single precision: w may be large, and the difference small."""
    if not isinstance(strong, torch.Tensor):
        return _each(lambda c, v: _mixed(c, v, weights), strong, weak)
    by_image = torch.tensor(weights, device=strong.device).reshape(-1, *[1] * (strong.ndim - 1))
    return (strong.float() + by_image * (strong.float() - weak.float())).to(strong.dtype)


def _each(function: Callable[..., Any], first: Any, *others: Any) -> Any:
    """Return what a function makes of each part of an input or output of a model, or of several ones alike."""
    if isinstance(first, list | tuple):
        return type(first)(function(*parts) for parts in zip(first, *others, strict=True))
    if isinstance(first, dict):
        made = {name: function(first[name], *(other[name] for other in others)) for name in first}
        return made if type(first) is dict else type(first)(**made)
    return first
