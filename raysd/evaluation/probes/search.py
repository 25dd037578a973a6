"""The search for a probe's settings, on images that are held out from those it learns from."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.errors import UserError
from raysd.evaluation.probes.logistic import LinearModel, LogisticProblem
from raysd.evaluation.probes.sgd import SgdFit, fit_sgd
from raysd.evaluation.settings import ProbeSettings
from raysd.storage.fingerprint import seed_of_32_bits

STRENGTHS = (1e-5, 1e6)
LEARNING_RATES = (1e-1, 1e2)
WEIGHT_DECAYS = (1e-12, 1e-4)
ROUND = 5
"""Settings that SGD fits together."""
EDGE_SHARE = 0.02
"""Of a range, in logarithms, at either end."""

Examples = tuple[np.ndarray, np.ndarray]
"""Scaled features float32 [N, D] and labels int64 [N], 0 to K - 1."""


@dataclass(frozen=True)
class Found:
    """The best settings, what is said of them, and the model that they gave."""

    values: dict[str, float]
    validation_top1: float
    trials: int
    at_edge: bool
    iterations: list[int]
    model: LinearModel


def search_strength(fit: Examples, validation: Examples, num_classes: int, settings: ProbeSettings, seed: int) -> Found:
    """Find the strength C of logistic regression, 1e-5 to 1e6, with the best validation accuracy; the smallest one
    where several are equal."""
    problem = LogisticProblem(*fit, num_classes)
    if settings.search == "path":
        strengths = evenly_spaced(settings.trials)
        path = problem.fit_path(strengths, settings.max_iterations)
        models, iterations = path.models, path.iterations
        scores = [_top1(model, validation) for model in models]
    else:
        strengths, models, iterations, scores = [], [], [], []
        study = _study(seed)
        for _ in range(settings.trials):
            trial = study.ask()
            strength = trial.suggest_float("C", *STRENGTHS, log=True)
            weaker = [known for known in strengths if known <= strength]
            start = models[strengths.index(max(weaker))] if weaker else None
            one = problem.fit_path([strength], settings.max_iterations, start=start)
            strengths.append(strength)
            models += one.models
            iterations += one.iterations
            scores.append(_top1(one.models[0], validation))
            study.tell(trial, scores[-1])
    best = min(range(len(scores)), key=lambda i: (-scores[i], strengths[i]))
    return Found(
        {"C": strengths[best]},
        scores[best],
        len(scores),
        _at_edge(strengths[best], STRENGTHS),
        iterations,
        models[best],
    )


def search_sgd(fit: Examples, validation: Examples, num_classes: int, settings: ProbeSettings, seed: int) -> Found:
    """Find the learning rate, 0.1 to 100, and weight decay, 1e-12 to 1e-4, of SGD with the best validation accuracy.

    TPE is asked for rounds of 5 settings, which are fitted together, and told their results after each round; settings
    that diverge count as failed. Where several are equal, the smallest learning rate wins.

    Raises:
        UserError: all settings diverged.
    """
    import optuna

    study = _study(seed)
    tried: list[tuple[float, float, float, LinearModel]] = []
    for first in range(0, settings.trials, ROUND):
        trials = [study.ask() for _ in range(min(ROUND, settings.trials - first))]
        rates = [trial.suggest_float("learning_rate", *LEARNING_RATES, log=True) for trial in trials]
        decays = [trial.suggest_float("weight_decay", *WEIGHT_DECAYS, log=True) for trial in trials]
        result = fit_sgd_probe(fit, num_classes, rates, decays, settings, seed)
        for trial, rate, decay, model, diverged in zip(
            trials, rates, decays, result.models, result.diverged, strict=True
        ):
            if diverged:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            tried.append((_top1(model, validation), rate, decay, model))
            study.tell(trial, tried[-1][0])
    if not tried:
        raise UserError(
            "evaluation.transfer_sets.probe.scale",
            settings.used_scale,
            "SGD diverges on these features; use l2 or standard",
        )
    score, rate, decay, model = min(tried, key=lambda item: (-item[0], item[1]))
    values = {"learning_rate": rate, "weight_decay": decay}
    return Found(values, score, settings.trials, _at_edge(rate, LEARNING_RATES), [], model)


def fit_sgd_probe(
    fit: Examples, num_classes: int, rates: list[float], decays: list[float], settings: ProbeSettings, seed: int
) -> SgdFit:
    """Run `fit_sgd` with the batch size and epochs of the settings."""
    return fit_sgd(*fit, num_classes, rates, decays, settings.batch_size, settings.epochs, seed)


def evenly_spaced(trials: int) -> list[float]:
    """Return strengths over the whole range, evenly spaced in logarithms; a single one is in the middle."""
    low, high = (math.log10(strength) for strength in STRENGTHS)
    return [
        float(strength) for strength in (np.logspace(low, high, trials) if trials > 1 else [10 ** ((low + high) / 2)])
    ]


def _at_edge(value: float, limits: tuple[float, float]) -> bool:
    share = math.log(value / limits[0]) / math.log(limits[1] / limits[0])
    return not EDGE_SHARE < share < 1 - EDGE_SHARE


def _top1(model: LinearModel, examples: Examples) -> float:
    features, labels = examples
    return 100 * float((model.predict(features) == labels).mean())


def _study(seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed_of_32_bits(seed)))
