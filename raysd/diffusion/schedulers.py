"""The scheduler of a clone: a class of diffusers that fits the checkpoint, or the checkpoint's own.

What is usual is known to work, and is resolved without torch. Anything else is tried on numbers before a job starts
(`raysd.diffusion.trial`): a class or options that the settings name, an unusual number of steps, or `sampler: fast`
with a noise schedule that is not known.
"""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from raysd.diffusion.checkpoint import Model
from raysd.diffusion.family import IN_PIXELS, Family
from raysd.errors import UserError, meant

FAST_SCHEDULER = "DPMSolverMultistepScheduler"
Option = str | int | float | bool
FEWEST_STEPS, MOST_STEPS = 4, 100  # that are usual for a checkpoint's own scheduler; fewer are for those made for it
FEWER_STEPS, MORE_STEPS = (500, 200, 100, 50, 20), (2, 3, 4, 8)  # that may be recommended
# Values of a checkpoint's config with which FAST_SCHEDULER is known to work; the first is the default.
USUAL: dict[str, tuple[Any, ...]] = {
    "prediction_type": ("epsilon", "v_prediction"),
    "beta_schedule": ("linear", "scaled_linear"),
    "beta_start": (0.0001, 0.00085),
    "beta_end": (0.02, 0.012),
    "num_train_timesteps": (1000,),
    "timestep_spacing": (None, "linspace", "leading", "trailing"),
    "steps_offset": (0, 1),
    "trained_betas": (None,),
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "use_lu_lambdas": (False, None),
    "rescale_betas_zero_snr": (False, None),
}
# Schedulers that follow the noise schedule of their config, whatever else they do.
PLAIN = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
# Options with which many a scheduler works that does not without: latents are not to be clipped, and flows need this.
ADVISED: tuple[dict[str, Option], ...] = (
    {"clip_sample": False},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction"},
)
UNREPEATABLE = "DPMSolverSDEScheduler"  # seeds its noise itself, once for a whole batch


@dataclass(frozen=True)
class _Asked:
    """What the settings ask for; `name` is None for the checkpoint's own scheduler."""

    folder: Path
    pipeline: str
    own: str
    name: str | None
    options: tuple[tuple[str, Option], ...]
    num_steps: int

    @property
    def class_name(self) -> str:
        """The class that generates."""
        return self.name or self.own

    def problem(self, **changes: Any) -> str | None:
        """Return why it does not work, with changes; None when it works."""
        from raysd.diffusion.trial import find_problem

        at = replace(self, **changes)
        return find_problem(at.folder, at.pipeline, at.class_name, at.options, at.num_steps)


def resolve_scheduler(
    model: Model,
    family: Family,
    scheduler: str | None,
    options: Mapping[str, Option],
    is_fast: bool,
    num_steps: int,
) -> str | None:
    """Return the scheduler class of a clone; None for the checkpoint's own.

    Args:
        model: on this machine.
        family: of the model.
        scheduler: `generation.scheduler`.
        options: `generation.scheduler_options`.
        is_fast: whether `generation.sampler` is `fast`.
        num_steps: of denoising.

    Raises:
        UserError: there is no such scheduler or option, or it does not fit the checkpoint.
    """
    name = scheduler or (FAST_SCHEDULER if is_fast and family.has_exchangeable_scheduler else None)
    own = _read_json(model.folder / "model_index.json").get("scheduler") or [None, None]
    asked = _Asked(model.folder, family.pipeline, str(own[1]), name, tuple(sorted(options.items())), num_steps)
    if scheduler is None and not options and _is_usual(asked, family):
        return name
    if name is not None or options:
        _check_class(asked, options)
    if family.pipeline in IN_PIXELS:  # these clip pixels, which the numbers that a scheduler is tried on are not
        return name
    if own[1] is not None and (problem := asked.problem()) is not None:
        _refuse(asked, problem, scheduler is not None)
    return name


def _is_usual(asked: _Asked, family: Family) -> bool:
    """Return whether the sampler's own choice is known to work."""
    takes_few = asked.name is not None or family.is_few_step or asked.own.startswith("FlowMatch")
    if not (1 if takes_few else FEWEST_STEPS) <= asked.num_steps <= MOST_STEPS:
        return False
    config = _read_json(asked.folder / "scheduler" / "scheduler_config.json")
    if asked.name is None:
        return True
    return asked.own in PLAIN and all(config.get(key, values[0]) in values for key, values in USUAL.items())


def _check_class(asked: _Asked, options: Mapping[str, Option]) -> None:
    """Check that diffusers has the class, that its packages are here, and that it takes the options."""
    import diffusers

    name = asked.class_name
    if not (name.endswith("Scheduler") and hasattr(diffusers, name)):
        if asked.name is None:
            remedy = f"{asked.pipeline} has no scheduler of diffusers that takes options; leave them out"
            raise UserError("generation.scheduler_options", dict(options), remedy)
        raise UserError(
            "generation.scheduler", name, "diffusers has no such scheduler; use a class name as UniPCMultistepScheduler"
        )
    kind = getattr(diffusers, name)
    if name == UNREPEATABLE:
        why = "needs the package torchsde, and images would not repeat, since its noise does not come from their seeds"
        better = f"use {FAST_SCHEDULER} with scheduler_options={{algorithm_type: sde-dpmsolver++}}"
        raise UserError("generation.scheduler", name, f"{why}; {better}")
    if missing := [package for package in getattr(kind, "_backends", []) if find_spec(package) is None]:
        remedy = f"needs the package {missing[0]}; pip install {missing[0]} on all nodes, or use another scheduler"
        raise UserError("generation.scheduler", name, remedy)
    parameters = {key: each for key, each in inspect.signature(kind.__init__).parameters.items() if key != "self"}
    for key, value in options.items():
        if key not in parameters:
            known = ", ".join(sorted(parameters))
            remedy = f"{name} has no such option{meant(key, parameters)}; it has {known}"
            raise UserError("generation.scheduler_options", key, remedy)
        if (wanted := _wanted(parameters[key], value)) is not None:
            raise UserError(f"generation.scheduler_options.{key}", value, f"{name} takes {wanted}")


def _wanted(parameter: inspect.Parameter, value: Option) -> str | None:
    """Return what an option takes if this is not the value's kind; None where it may be right."""
    kinds = [parameter.annotation, *get_args(parameter.annotation)]
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and value not in choices:
        return " or ".join(map(str, choices))
    default = parameter.default
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int | float):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    return None


def _refuse(asked: _Asked, problem: str, is_named: bool) -> None:
    """Raise the UserError that names what is at fault: the number of steps, an option, the scheduler, the sampler."""
    name, num_steps, options = asked.class_name, asked.num_steps, dict(asked.options)
    if (better := _better_steps(asked)) is not None:
        remedy = f"{name} cannot take so many steps: {problem}; use {better} or fewer"
        if better > num_steps:
            remedy = f"is too few for {name}: {problem}; use {better} or more"
        raise UserError("generation.num_inference_steps", num_steps, remedy)
    if options:
        without = {key: tuple((each, value) for each, value in asked.options if each != key) for key in options}
        wrong = [key for key, left in without.items() if asked.problem(options=left) is None]
        if wrong:
            remedy = f"with {name} {problem}; leave out {' or '.join(wrong)}, or set another value"
            raise UserError("generation.scheduler_options", options, remedy)
    if is_named:
        raise UserError("generation.scheduler", name, f"{problem}; {_remedy(asked)}")
    if asked.name is not None and not options:
        raise UserError("generation.sampler", "fast", f"{name} does not fit: {problem}; set it to paper")
    if options:
        raise UserError("generation.scheduler_options", options, f"with {name} {problem}; leave them out")
    # The checkpoint's own scheduler, as it is: whoever published it has tried it.


def _better_steps(asked: _Asked) -> int | None:
    """Return the number of steps nearest to the one asked for that works; None where steps are not at fault."""
    tried = [steps for steps in FEWER_STEPS if steps < asked.num_steps] if asked.num_steps > MOST_STEPS else []
    tried += [steps for steps in MORE_STEPS if steps > asked.num_steps]
    return next((steps for steps in tried if asked.problem(num_steps=steps) is None), None)


def _remedy(asked: _Asked) -> str:
    """Return options with which a scheduler works, or what else to do."""
    options = dict(asked.options)
    for more in ADVISED:
        changed = tuple(sorted({**options, **more}.items()))
        if not options.keys() & more.keys() and asked.problem(options=changed) is None:
            shown = ", ".join(f"{key}: {str(value).lower()}" for key, value in more.items())
            return f"set generation.scheduler_options={{{shown}}}"
    return "use another, or leave it out"


def _read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return value
