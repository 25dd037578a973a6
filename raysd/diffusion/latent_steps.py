"""Guidance of the latents by a gradient after some denoising steps.

After every k-th step, each image's latents move along the gradient of an objective of what the denoiser says the image
will be: by a share of their own norm, whatever the gradient's. So an image does not depend on its neighbors.

With x the latents that the denoiser saw at a step and eps what it answered to the prompt, the image will be
x0 = (x - sqrt(1 - a) eps) / sqrt(a), where a is the share of the image in the noise schedule. Through the denoiser, eps
is computed once more with its gradient; else it counts as constant, which costs no pass of the denoiser. A step of flow
matching has x0 = x - s v with s from 1 (noise) to 0.

Where the guidance is not plain (a schedule, a scale for each image, a weaker model), eps is the guided answer, except
through the denoiser, which is asked about the prompt alone.

Source: Askari Hemmat et al., Feedback-guided data synthesis for imbalanced classification (TMLR 2024), where the
    latents of a batch of one move by 0.03 of their norm at every fifth step.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_SAMPLE = {True: "sample", False: "hidden_states"}
"""The denoiser's argument for the latents: of a U-Net, and of a transformer."""
Objective = Callable[[torch.Tensor, slice], torch.Tensor]
"""What images move towards: float [b], larger is better, of images [b, 3, H, W] in -1..1, which are those rows of the
batch. A row must not depend on the others."""


class LatentSteps:
    """Callback of a pipeline, and a stand-in for its denoiser's `forward` which notes what it sees and answers.

    Args:
        pipeline: of diffusers, one of `STEPPED` in `raysd.diffusion.conventions`.
        denoiser: the pipeline's.
        objective: says how good images are, and which rows of the batch it is asked about.
        weight: share of the norm of an image's latents by which they move.
        every: steps from one guided step to the next.
        num_images: of the batch.
        through_denoiser: whether the gradient passes through the denoiser.
        decoded_at_once: images whose decoding is in memory at once.
    """

    def __init__(
        self,
        pipeline: Any,
        denoiser: Any,
        objective: Objective,
        weight: float,
        every: int,
        num_images: int,
        through_denoiser: bool,
        decoded_at_once: int,
    ) -> None:
        self.pipeline, self.denoiser, self.objective = pipeline, denoiser, objective
        self.weight, self.every, self.num_images = weight, every, num_images
        self.through_denoiser, self.decoded_at_once = through_denoiser, decoded_at_once
        self.is_unet = denoiser is getattr(pipeline, "unet", None)
        self.seen: dict[str, Any] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what the denoiser sees and answers."""
        inner = self.denoiser.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            output = inner(*args, **kwargs)
            self.seen = {"args": args, "kwargs": kwargs, "answer": output[0]}
            return output

        self.denoiser.forward = forward
        try:
            yield
        finally:
            self.denoiser.forward = inner
            self.seen = {}

    def __call__(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """Move the latents, float [B, C, h, w] in `values`, after every k-th step but the last."""
        is_last = step + 1 >= len(self.pipeline.scheduler.timesteps)
        if (step + 1) % self.every == 0 and not is_last and self.weight > 0:
            latents = values["latents"]
            values = {**values, "latents": latents + self._move(latents, float(timestep))}
        return values

    def _move(self, latents: torch.Tensor, timestep: float) -> torch.Tensor:
        """Return what is added to the latents."""
        with _in_float32(self.pipeline.vae):
            gradient = torch.cat([self._gradient(rows, timestep) for rows in self._parts()])
        norms = latents.float().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return (self.weight * norms * torch.nan_to_num(_unit(gradient))).to(latents.dtype)

    def _parts(self) -> Iterator[slice]:
        """Yield the rows of the images that are decoded at once, counted from the end: there the prompts' half of a
        doubled batch is. Only the size of images decides how many there are, since that shapes their bytes."""
        for first in range(0, self.num_images, self.decoded_at_once):
            stop = min(first + self.decoded_at_once, self.num_images)
            yield slice(first - self.num_images, stop - self.num_images or None)

    def _gradient(self, rows: slice, timestep: float) -> torch.Tensor:
        """Return the gradient of the objective by what the denoiser saw, float32 [b, C, h, w]."""
        args, kwargs, answer = (_rows(self.seen[name], rows, self.num_images) for name in ("args", "kwargs", "answer"))
        sample = (args[0] if args else kwargs[_SAMPLE[self.is_unet]]).float().requires_grad_()
        with torch.enable_grad():
            if self.through_denoiser:
                answer = self._answer(sample, args, kwargs)
            images = self._decode(self._image_latents(sample, answer.float(), timestep))
            seen = images.detach().float().requires_grad_()
            (at_images,) = torch.autograd.grad(self.objective(seen, rows).sum(), seen)
            # Only its direction counts, and float16 would lose a small one on its way through the decoder.
            (gradient,) = torch.autograd.grad(images, sample, _unit(at_images).to(images.dtype))
        return gradient

    def _answer(self, sample: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Return the denoiser's answer with its gradient."""
        seen = sample.to(self.denoiser.dtype)
        args, kwargs = ((seen, *args[1:]), kwargs) if args else (args, {**kwargs, _SAMPLE[self.is_unet]: seen})
        answer: torch.Tensor = type(self.denoiser).forward(self.denoiser, *args, **kwargs)[0]
        return answer

    def _image_latents(self, sample: torch.Tensor, answer: torch.Tensor, timestep: float) -> torch.Tensor:
        """Return the latents of the images that the denoiser expects."""
        scheduler, answer = self.pipeline.scheduler, answer[:, : sample.shape[1]]  # some also answer a variance
        kind = scheduler.config.get("prediction_type", "epsilon")
        if kind == "flow_prediction" or not hasattr(scheduler, "alphas_cumprod"):
            return sample - timestep / scheduler.config.num_train_timesteps * answer
        share = scheduler.alphas_cumprod[round(timestep)].to(sample.device).float()
        if kind == "sample":
            return answer
        if kind == "v_prediction":
            return share.sqrt() * sample - (1 - share).sqrt() * answer
        return (sample - (1 - share).sqrt() * answer) / share.sqrt()

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images float [b, 3, H, W], about -1..1, of latents of the denoiser."""
        vae = self.pipeline.vae
        scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        if mean is not None and std is not None:  # of some checkpoints of Stable Diffusion XL
            mean, std = (torch.tensor(each, device=latents.device).view(1, -1, 1, 1) for each in (mean, std))
            latents, shift = latents * std, mean
        images: torch.Tensor = vae.decode((latents / scale + shift).to(vae.dtype), return_dict=False)[0]
        return images


def _unit(gradients: torch.Tensor) -> torch.Tensor:
    """Return float32 [B, C, h, w] with the norm of each image's part made 1; 0 stays."""
    norms = gradients.float().flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return gradients.float() / norms.clamp_min(torch.finfo(torch.float32).tiny)


@contextmanager
def _in_float32(vae: Any) -> Iterator[None]:
    """Compute in float32 with a decoder that float16 is too narrow for."""
    is_narrow = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    if is_narrow:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if is_narrow:
            vae.to(torch.float16)


def _rows(value: Any, rows: slice, num_images: int) -> Any:
    """Return the rows of some images, counted from the end; other values stay."""
    if isinstance(value, torch.Tensor):
        return value[rows].clone() if value.ndim > 0 and len(value) in (num_images, 2 * num_images) else value
    if isinstance(value, dict):
        return {name: _rows(inner, rows, num_images) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rows(inner, rows, num_images) for inner in value)
    return value
