"""Models and LoRA weights that were distilled to a few denoising steps, most of them to need no guidance, and are to
be used in another way.

Those with a scheduler that is made for it get few steps by themselves (`Family.is_few_step`). Others look like the
model that they come from, and are known by signs. Since a sign is no proof, these are warned of and nothing is changed
for them.
"""

from collections.abc import Iterable
from pathlib import Path

from raysd.clone.spec import CloneSpec
from raysd.diffusion.family import FEW_STEPS, few_step_word
from raysd.diffusion.schedulers import FAST_SCHEDULER
from raysd.prompts.lint import Finding

MOST_STEPS = 8  # that such a checkpoint is made for


def few_step_findings(specs: Iterable[CloneSpec]) -> list[Finding]:
    """Find models that seem to be made for few steps, but are used with many, with guidance, or with another scheduler.
    Return one finding for each model and sign of it."""
    found: dict[tuple[str, str], list[CloneSpec]] = {}
    for spec in specs:
        sign = few_step_sign(spec)
        if sign is not None and (spec.num_inference_steps > MOST_STEPS or _is_guided(spec) or _is_rescheduled(spec)):
            found.setdefault((spec.model.digest, sign), []).append(spec)
    return [_finding(sign, group) for (_, sign), group in found.items()]


def few_step_sign(spec: CloneSpec) -> str | None:
    """Return the sign that a clone's model or LoRA weights are made for few steps, as a clause; None without one."""
    if word := few_step_word(Path(spec.model.name).name):
        return f"its name says {word!r}"
    if spec.family.few_step_sign is not None:
        return spec.family.few_step_sign
    words = (
        (lora.file.name, few_step_word(lora.file.stem) or few_step_word(lora.file.parent.name)) for lora in spec.loras
    )
    return next((f"its LoRA {name!r} says {word!r}" for name, word in words if word), None)


def _is_guided(spec: CloneSpec) -> bool:
    return spec.guidance_scale > 1 and spec.family.guidance == "classifier_free"


def _is_rescheduled(spec: CloneSpec) -> bool:
    """Return whether the sampler `fast` has replaced the checkpoint's own solver."""
    return spec.scheduler == FAST_SCHEDULER


def _finding(sign: str, specs: list[CloneSpec]) -> Finding:
    given = dict.fromkeys(
        (
            f"{spec.num_inference_steps} steps, guidance scale {spec.guidance_scale:g}, "
            f"{spec.scheduler or 'its own scheduler'}"
        )
        for spec in specs
    )
    fix = f"generation.num_inference_steps={FEW_STEPS}"
    fix += " generation.guidance_scale=1" if any(map(_is_guided, specs)) else ""
    fix += " generation.sampler=paper" if any(map(_is_rescheduled, specs)) else ""
    text = (
        f"{sign}, and such models are made for 1 to {MOST_STEPS} steps with a scheduler that fits, most without "
        "guidance"
    )
    return Finding("few-steps", text, (), tuple(given), f"{fix}, or what its card says")
