"""What guides the images of a clone beside its guidance scale, and which models it fits."""

from dataclasses import dataclass
from typing import Any

from raysd.clone.settings import CadsSettings, GenerationSettings
from raysd.diffusion.checkpoint import Model
from raysd.diffusion.family import Family
from raysd.diffusion.guiding.weaker import WeakModel, find_weak_model, why_not_skipped
from raysd.errors import UserError
from raysd.storage.hub import without_folders

DEFAULTS = {
    name: GenerationSettings.model_fields[name].default
    for name in ("guidance_range", "guidance_schedule", "weak_model", "weak_revision", "skip_blocks", "cads")
}


@dataclass(frozen=True)
class Guiding:
    """Guidance beyond one scale; the default is plain guidance."""

    scales: tuple[float, float] | None = None
    """Least and largest guidance scale, where each image has one of its own."""
    schedule: str = "constant"
    weak_model: WeakModel | None = None
    skip_blocks: tuple[int, ...] = ()
    cads: CadsSettings | None = None

    @property
    def mixes(self) -> bool:
        """Whether the pipeline's own mix of both passes has to be replaced."""
        return self.has_weaker_pass or self.scales is not None or self.schedule != "constant"

    @property
    def has_weaker_pass(self) -> bool:
        """Whether another prediction takes the place of the unconditional one."""
        return self.weak_model is not None or bool(self.skip_blocks)

    def settings(self) -> dict[str, Any]:
        """Return the settings of `generation` that differ from the default, as plain JSON."""
        weak = self.weak_model
        values = {
            "guidance_range": None if self.scales is None else list(self.scales),
            "guidance_schedule": self.schedule,
            "weak_model": None if weak is None else weak.name,
            "weak_revision": None if weak is None else weak.commit or weak.revision,
            "skip_blocks": list(self.skip_blocks),
            "cads": None if self.cads is None else self.cads.model_dump(),
        }
        return {name: value for name, value in values.items() if value != DEFAULTS[name]}

    def identity(self) -> dict[str, Any]:
        """Return what the fingerprint hashes, as plain JSON: nothing where guidance is plain."""
        values = self.settings()
        values.pop("weak_revision", None)
        return values | ({} if self.weak_model is None else {"weak_model": self.weak_model.digest})

    def words(self, guidance_scale: float) -> str:
        """Return a guidance scale and what else guides, as `1 to 4, rising`."""
        weak = self.weak_model
        parts = [
            f"{guidance_scale:g}" if self.scales is None else "{:g} to {:g}, each image its own".format(*self.scales),
            "" if self.schedule == "constant" else self.schedule.replace("_", " as a "),
            "" if weak is None else f"away from {without_folders(weak.name)} ({weak.digest or 'not here'})",
            f"away from itself without blocks {', '.join(map(str, self.skip_blocks))}" if self.skip_blocks else "",
            "" if self.cads is None else str(self.cads),
        ]
        return ", ".join(filter(None, parts))


def resolve_guiding(
    settings: GenerationSettings, family: Family, model: Model, dtype: str, negative_prompt: str, fetch: bool
) -> Guiding:
    """Return what guides, without what changes nothing: at guidance scale 1, only noise on the embeddings is left.

    Args:
        settings: of the clone.
        family: of the model; see `check_guider`.
        model: that generates.
        dtype: of the model.
        negative_prompt: of the clone's prompts.
        fetch: whether to fetch the weights of a hub model.

    Raises:
        UserError: a weak model or blocks that do not fit the model, or what would be ignored.
    """
    weak = None
    if settings.weak_model is None and settings.weak_revision is not None:
        remedy = "is of a weak_model, and there is none; name one, or leave it out"
        raise UserError("generation.weak_revision", settings.weak_revision, remedy)
    if settings.weak_model is not None and settings.mean_guidance_scale > 1:
        weak = find_weak_model(settings.weak_model, settings.weak_revision, dtype, model, fetch)
    blocks = tuple(sorted(settings.skip_blocks))
    if blocks and (reason := _why_not_skipped(settings, family, model)) is not None:
        raise UserError("generation.skip_blocks", list(blocks), reason)
    if (weak or blocks) and negative_prompt:
        what = "weak_model" if weak else "skip_blocks"
        remedy = f"with {what} there is no unconditional pass to take it; leave one of them out"
        raise UserError("generation.negative_prompt", negative_prompt, remedy)
    if settings.mean_guidance_scale <= 1:
        return Guiding(cads=settings.cads)
    scales = settings.guidance_range
    if scales is not None and scales[0] == scales[1]:
        scales = None
    return Guiding(scales, settings.guidance_schedule, weak, blocks, settings.cads)


def check_guider(settings: GenerationSettings, family: Family) -> None:
    """Refuse what a family has no hook for: one whose pipeline does not make both passes in one call."""
    asked = settings.model_dump(include=set(DEFAULTS))
    field = next((name for name, default in DEFAULTS.items() if asked[name] != default), None)
    if field is None or family.takes_interval:
        return
    why = f"{settings.model} makes no unconditional pass that could be replaced"
    if family.guidance == "classifier_free":
        why = f"{family.pipeline} is not known to make both passes in one call, so no guider can stand between"
    raise UserError(f"generation.{field}", asked[field], f"{why}; leave it out")


def _why_not_skipped(settings: GenerationSettings, family: Family, model: Model) -> str | None:
    if settings.compile:
        return "compiled code runs all blocks; set generation.compile=false, or leave it out"
    if settings.step_cache is not None and settings.step_cache.interval > 1:
        return "each step would call the U-Net twice, and mix up what step_cache keeps; leave one of them out"
    if model.is_dummy:
        return None
    return why_not_skipped(family, model.find_configs_here(), settings.skip_blocks)
