"""Noise on the embeddings of prompts, which falls to nothing while an image takes shape.

At the time t, from 1 (noise alone) to 0, the embedding y of an image becomes

    y' = sqrt(gamma) y + s sqrt(1 - gamma) n,   y'' = mixing * rescaled(y') + (1 - mixing) * y'

where gamma rises from 0 at tau2 to 1 at tau1, n is normal noise, and rescaled(y') has the mean and the deviation of y.
The noise comes from a generator of the image's own, and mean and deviation are those of one image.

Source: Sadat et al., CADS: Unleashing the diversity of diffusion models through condition-annealed sampling (ICLR
    2024).
"""

from collections.abc import Sequence
from typing import Any

import torch

from raysd.diffusion.guiding.image_numbers import derived_seed

NAMES = ("encoder_hidden_states", "pooled_projections", "text_embeds")
"""Arguments of denoisers that hold embeddings of prompts; `text_embeds` is in `added_cond_kwargs`."""


class ConditionNoise:
    """Adds noise to the conditional embeddings of one batch.

    Args:
        seeds: of the images.
        scale: s.
        tau1: time from which on the embeddings are as they were.
        tau2: time until which they are noise alone.
        mixing: share of the rescaled embedding.
    """

    def __init__(self, seeds: Sequence[int], scale: float, tau1: float, tau2: float, mixing: float) -> None:
        self.generators = [torch.Generator("cpu").manual_seed(derived_seed(seed, "cads")) for seed in seeds]
        self.scale, self.tau1, self.tau2, self.mixing = scale, tau1, tau2, mixing

    def add(self, arguments: dict[str, Any], size: int, time: float) -> dict[str, Any]:
        """Return the denoiser's arguments with noise on the last rows, one for each image; empty where there are no
        embeddings among them.

        Args:
            arguments: by name.
            size: rows of the call.
            time: from 1 to 0.
        """
        inner = arguments.get("added_cond_kwargs") or {}
        noised = {**self._noised(arguments, size, time)}
        if not noised:
            return {}
        if more := self._noised(inner, size, time):
            noised["added_cond_kwargs"] = {**inner, **more}
        return {**arguments, **noised}

    def _noised(self, arguments: dict[str, Any], size: int, time: float) -> dict[str, Any]:
        kept, found = self._kept(time), {name: arguments[name] for name in NAMES if name in arguments}
        if kept == 1:
            return found
        return {name: self._with_noise(rows, size, kept) for name, rows in found.items()}

    def _with_noise(self, rows: torch.Tensor, size: int, kept: float) -> torch.Tensor:
        """Return rows with noise on the conditional ones, each by itself."""
        first = size - len(self.generators)
        pairs = zip(rows[first:], self.generators, strict=True)
        return torch.stack([*rows[:first], *(self._one(row, generator, kept) for row, generator in pairs)])

    def _one(self, row: torch.Tensor, generator: torch.Generator, kept: float) -> torch.Tensor:
        plain = row.float()
        noise = torch.randn(row.shape, generator=generator).to(row.device)
        noised = kept**0.5 * plain + self.scale * (1 - kept) ** 0.5 * noise
        rescaled = (noised - noised.mean()) / noised.std() * plain.std() + plain.mean()
        return (self.mixing * rescaled + (1 - self.mixing) * noised).to(row.dtype)

    def _kept(self, time: float) -> float:
        """Return gamma."""
        if time <= self.tau1:
            return 1.0
        return 0.0 if time >= self.tau2 else (self.tau2 - time) / (self.tau2 - self.tau1)
