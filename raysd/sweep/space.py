"""The settings that a sweep compares: points of its space, and the experiment at each of them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import ValidationError

from raysd.clone.settings import GenerationSettings
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.evaluation.evaluate import Evaluation
from raysd.resolve import clone_spec_of, needs_scoring, replicates, resolve_scoring, source_generations
from raysd.storage.fingerprint import fingerprint
from raysd.sweep.settings import RangeSettings, RungSettings
from raysd.training.settings import TrainingSettings

SAMPLES_PER_SETTING = 100  # of a random search, before the space counts as used up
VARIANT, GUIDANCE = "generation.variant", "generation.guidance_scale"


@dataclass(frozen=True, eq=False)
class Setting:
    """A point of the space: a value for each factor, by dotted name."""

    values: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The setting in a few words, as `name, guidance 2`."""
        values = dict(self.values)
        parts = [str(values.pop(VARIANT))] if VARIANT in values else []
        if GUIDANCE in values:
            parts.append(f"guidance {values.pop(GUIDANCE):g}")
        parts += [
            f"{name.rpartition('.')[2]} {value:g}" if is_number(value) else f"{name.rpartition('.')[2]} {value}"
            for name, value in values.items()
        ]
        return ", ".join(parts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the values."""
        return fingerprint(dict(self.values))

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and self.fingerprint == other.fingerprint


def is_number(value: Any) -> bool:
    """Return whether a value is a number; truth values are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def experiment_at(experiment: Experiment, setting: Setting, rung: RungSettings) -> Experiment:
    """Return the experiment with a setting's values, a rung's images per class, and its seeds; no real data set
    replaces the clone.

    Raises:
        UserError: a setting that the experiment does not have, or a wrong value.
    """
    generation, training = experiment.generation.model_dump(), experiment.training.model_dump()
    sections = {"generation": generation, "training": training}
    for name, value in setting.values.items():
        section, _, key = name.partition(".")
        if section == "training" and "." in key:
            key, _, option = key.partition(".")
            if not isinstance(training.get(key), dict):
                raise UserError(f"sweep.space.{section}", key, "has no options of its own; give a list of values")
            training[key] = {**training[key], option: value}
        else:
            sections[section][key] = value
    generation["images_per_class"] = rung.images_per_class
    training |= {"real": None, "seeds": training["seeds"][: rung.num_seeds]}
    try:
        return experiment.model_copy(
            update={"generation": GenerationSettings(**generation), "training": TrainingSettings(**training)}
        )
    except ValidationError as error:
        section = "generation" if error.title == GenerationSettings.__name__ else "training"
        model = GenerationSettings if section == "generation" else TrainingSettings
        raise UserError.from_validation(error, f"sweep.space.{section}", sections[section], model) from None


def rungs_of(experiment: Experiment) -> list[RungSettings]:
    """Return the sweep's budgets, each with its number of seeds.

    Raises:
        UserError: more seeds than the training has.
    """
    seeds = len(experiment.training.seeds)
    rungs = experiment.sweep.rungs or [RungSettings(images_per_class=experiment.generation.images_per_class)]
    for place, rung in enumerate(rungs):
        if rung.num_seeds is not None and rung.num_seeds > seeds:
            raise UserError(
                f"sweep.rungs.{place}.num_seeds",
                rung.num_seeds,
                f"training.seeds names {seeds}; name more, or use fewer",
            )
    return [RungSettings(images_per_class=rung.images_per_class, num_seeds=rung.num_seeds or seeds) for rung in rungs]


def list_settings(experiment: Experiment) -> list[Setting]:
    """Return the settings of a grid, variants outermost, or those of a random search in the order in which they are
    tried; nothing for TPE.

    Raises:
        UserError: a random search for more settings than the space has.
    """
    sweep = experiment.sweep
    factors = sweep.space.factors()
    if sweep.search == "tpe":
        return []
    if sweep.search == "grid":
        names = sorted(factors, key=lambda name: name != VARIANT)
        return [
            _in_order(factors, dict(zip(names, values, strict=True)))
            for values in itertools.product(*(list(factors[name]) for name in names))
        ]
    generator, found = np.random.default_rng(sweep.seed), dict[Setting, None]()
    for _ in range(SAMPLES_PER_SETTING * (sweep.num_settings or 1)):
        found[Setting({name: _sampled(choices, generator) for name, choices in factors.items()})] = None
        if len(found) == sweep.num_settings:
            return list(found)
    raise UserError(
        "sweep.num_settings",
        sweep.num_settings,
        f"the space has hardly more than {len(found)} settings; ask for fewer, or set search=grid",
    )


def _in_order(factors: Mapping[str, Any], values: Mapping[str, Any]) -> Setting:
    return Setting({name: values[name] for name in factors})


def _sampled(choices: list[Any] | RangeSettings, generator: np.random.Generator) -> Any:
    if isinstance(choices, list):
        return choices[int(generator.integers(len(choices)))]
    low, high = np.log([choices.low, choices.high]) if choices.log else (choices.low, choices.high)
    value = float(generator.uniform(low, high))
    return rounded(float(np.exp(value)) if choices.log else value, choices)


def rounded(value: float, choices: RangeSettings) -> float | int:
    """Round a number to the steps of its range."""
    if choices.step is None:
        return float(value)
    steps = round((value - choices.low) / choices.step)
    stepped = min(choices.high, choices.low + steps * choices.step)
    is_whole = float(choices.low).is_integer() and float(choices.step).is_integer()
    return int(stepped) if is_whole else max(choices.low, round(float(stepped), 12))


def settings_to_check(experiment: Experiment) -> list[Setting]:
    """Return all settings where they are known beforehand; else each value of each factor once, with both ends of a
    range."""
    if settings := list_settings(experiment):
        return settings
    base, found = dict(first_setting(experiment).values), dict[Setting, None]()
    for name, choices in experiment.sweep.space.factors().items():
        values = (
            choices if isinstance(choices, list) else [rounded(choices.low, choices), rounded(choices.high, choices)]
        )
        found |= {Setting({**base, name: value}): None for value in values}
    return list(found)


def distinct_settings(experiment: Experiment, settings: list[Setting]) -> tuple[list[Setting], list[Setting]]:
    """Return the settings that differ once they are resolved, and those that repeat an earlier one, as guidance
    intervals without guidance do.

    Raises:
        UserError: an invalid setting.
    """
    found: dict[str, Setting] = {}
    repeated = []
    for setting in settings:
        if found.setdefault(identity_at(experiment, setting), setting) is not setting:
            repeated.append(setting)
    return list(found.values()), repeated


def identity_at(experiment: Experiment, setting: Setting) -> str:
    """Return the hash of everything that shapes a setting's images and classifiers, except for its budget.

    Raises:
        UserError: an invalid setting.
    """
    at = replicates(experiment_at(experiment, setting, rungs_of(experiment)[-1]))[0]
    sources = [clone_spec_of(at, other).fingerprint for _, other in source_generations(at)]
    scoring = resolve_scoring(at)[0].fingerprint if needs_scoring(at.training) else None
    return fingerprint(
        {"clone": clone_spec_of(at).fingerprint, "sources": sources, "scoring": scoring, "training": _shaping(at)}
    )


def _shaping(experiment: Experiment) -> dict[str, Any]:
    """Return the values that shape classifiers, without how their training is logged and spread over a cluster."""
    spread = {"logger", "checkpoint_steps", "validate_epochs", "seeds", "min_workers"}
    return {
        **experiment.training.model_dump(exclude=spread),
        "recipe": experiment.training.resolve_recipe().model_dump(),
    }


def sweep_fingerprint(experiment: Experiment, evaluation: Evaluation) -> str:
    """Return the hash of everything that shapes a sweep's answer: every resolved setting, the budgets and seeds, the
    sets, and how it is searched and decided."""
    settings = [identity_at(experiment, setting) for setting in settings_to_check(experiment)]
    unset = {"confirm"} if experiment.sweep.confirm is None else set[str]()
    sweep = experiment.sweep.model_dump(mode="json", exclude={"max_concurrent_trials", "extra_trials", *unset})
    sets = [measured.identity() for measured in evaluation.sets]
    generation = {name: getattr(experiment.generation, name) for name in ("images_per_class", "class_counts")}
    proxies = (
        {**experiment.analysis.model_dump(by_alias=True), **experiment.scoring.model_dump(exclude={"teachers"})}
        if experiment.sweep.proxies
        else None
    )
    seeds, clone_seeds = experiment.training.seeds, experiment.generation.seeds
    parts = {"settings": settings, "sweep": sweep, "sets": sets, "counts": generation, "seeds": seeds}
    return fingerprint({**parts, "proxies": proxies, **({"clone_seeds": clone_seeds} if clone_seeds else {})})


def without_confirmation(experiment: Experiment) -> Experiment:
    """Return the experiment whose sweep measures no setting again. Its fingerprint names the rung results, so that a
    sweep to which a confirmation is added searches nothing twice."""
    return experiment.model_copy(update={"sweep": experiment.sweep.model_copy(update={"confirm": None})})


def first_setting(experiment: Experiment) -> Setting:
    """Return a setting of the space: the first value of each factor, the lower end of a range."""
    factors = experiment.sweep.space.factors()
    return Setting(
        {
            name: choices[0] if isinstance(choices, list) else rounded(choices.low, choices)
            for name, choices in factors.items()
        }
    )
