"""Probes: how well frozen features tell the classes of another set.

A setting is chosen on a class-stratified fifth of the training pictures. Then the probe is fitted on all of them, and tested once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler, normalize

from raysd.errors import UserError
from raysd.evaluation.logistic import LinearModel, fit_path
from raysd.evaluation.metrics import mean_per_class
from raysd.evaluation.neighbours import predict_by_neighbours
from raysd.evaluation.settings import ProbeSettings, Scale
from raysd.evaluation.sgd import SgdSetting, fit_sgd

STRENGTHS = (1e-5, 1e6)
LEARNING_RATES, WEIGHT_DECAYS = (1e-1, 1e2), (1e-12, 1e-4)
ONE_SHOT_STRENGTH = 1.0  # where no picture can be spared to choose on
VALIDATION_SHARE = 0.2
ROUND = 5  # settings of SGD that are asked of TPE and fitted together
FIELD = "transfer set"

Data = tuple[np.ndarray, np.ndarray]
"""Features float32 [N, D] and labels int64 [N]."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe says of the test pictures."""

    predictions: np.ndarray
    """int64 [M]."""
    top1: float
    """In percent."""
    mean_per_class: float
    """In percent."""
    chosen: dict[str, Any]
    """The setting, its top-1 on the validation split in percent, and how many were tried."""


def choose_shots(labels: np.ndarray, shots: int | None, seed: int) -> np.ndarray:
    """Indices of `shots` pictures of each class (all when None), drawn by the seed.

    Raises:
        UserError: a class that has fewer.
    """
    if shots is None:
        return np.arange(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min(initial=shots) < shots:
        rarest = int(np.argmin(counts))
        raise UserError("evaluation.transfer_sets.shots", shots, f"class {classes[rarest]} has only {counts[rarest]} training pictures; ask for fewer")
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in classes]
    return np.sort(np.concatenate(chosen))


def run_probe(train: Data, test: Data, settings: ProbeSettings, seed: int, shots: int | None = None) -> ProbeResult:
    """Learn from some features, and be tested on others.

    Args:
        train: what is learnt from; of it `shots` pictures of each class.
        test: what is told; its classes are among those of `train`.
        settings: the kind of probe, and how its setting is searched.
        seed: of shots, split, search and SGD.
        shots: pictures of each class; all when None. With one there is nothing to choose on, and L-BFGS uses C = 1.

    Raises:
        UserError: no pictures, features that are no numbers, fewer than two classes, a class that is tested but not learnt, or too few pictures
            of a class.
    """
    _check(train, test, settings, shots)
    chosen = choose_shots(train[1], shots, seed)
    classes, labels = np.unique(train[1][chosen], return_inverse=True)
    features, asked = _scaled(settings.used_scale, train[0][chosen], test[0])
    predict, about = _choose(settings, (features, labels.astype(np.int64)), len(classes), seed, shots)
    predictions = classes[predict(asked)]
    correct = predictions == test[1]
    return ProbeResult(predictions, 100 * float(correct.mean()), mean_per_class(test[1], correct, int(test[1].max()) + 1), about)


def _check(train: Data, test: Data, settings: ProbeSettings, shots: int | None) -> None:
    for part, (features, labels) in (("training", train), ("test", test)):
        if len(labels) == 0:
            raise UserError(FIELD, part, "has no pictures; check its split")
        if not np.isfinite(features).all():
            raise UserError(FIELD, part, "has features that are no numbers; the classifier's training went astray")
    classes, counts = np.unique(train[1], return_counts=True)
    if len(classes) < 2:
        raise UserError(FIELD, f"class {classes[0]}", "is the only class; a probe needs two")
    if unknown := sorted(set(test[1].tolist()) - set(classes.tolist())):
        shown = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise UserError(FIELD, f"classes {shown}", "have test pictures and no training pictures; leave them out, or use another split")
    needs_split = settings.kind != "knn" and shots != 1
    if needs_split and counts.min() < 2:
        rarest = classes[int(np.argmin(counts))]
        raise UserError(FIELD, f"class {rarest}", "has one training picture, and two are needed to choose a setting; use knn, shots: 1, or leave it out")
    if settings.kind == "sgd" and shots == 1:
        raise UserError("evaluation.transfer_sets.shots", 1, "leaves nothing to choose the learning rate on; use lbfgs or knn")


def _scaled(scale: Scale, features: np.ndarray, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if scale == "l2":
        return normalize(features), normalize(asked)
    if scale == "standard":
        scaler = StandardScaler().fit(features)
        return scaler.transform(features), scaler.transform(asked)
    return features, asked


Predict = Callable[[np.ndarray], np.ndarray]


def _choose(settings: ProbeSettings, data: Data, num_classes: int, seed: int, shots: int | None) -> tuple[Predict, dict[str, Any]]:
    """The probe that was fitted on all of the data, and what a row says of it."""
    if settings.kind == "knn":
        return lambda asked: predict_by_neighbours(data, asked, settings.neighbours), {"neighbours": min(settings.neighbours, len(data[1]))}
    if shots == 1:
        model = fit_path(*data, num_classes, [ONE_SHOT_STRENGTH], settings.max_iterations).models[0]
        return model.predict, {"C": ONE_SHOT_STRENGTH, "trials": 0}
    num_validation = max(num_classes, round(len(data[1]) * VALIDATION_SHARE))
    fit, check = train_test_split(np.arange(len(data[1])), test_size=num_validation, stratify=data[1], random_state=seed)
    learnt, checked = ((data[0][rows], data[1][rows]) for rows in (fit, check))
    if settings.kind == "sgd":
        return _choose_sgd(settings, data, learnt, checked, num_classes, seed)
    search = _search_path if settings.search == "path" else _search_tpe
    return _refit(settings, data, num_classes, search(settings, learnt, checked, num_classes, seed))


def _score(model: LinearModel | None, checked: Data) -> float:
    """Top-1 in percent; 0 for a setting that failed."""
    return 0.0 if model is None else 100 * float((model.predict(checked[0]) == checked[1]).mean())


def _search_path(settings: ProbeSettings, learnt: Data, checked: Data, num_classes: int, seed: int) -> dict[float, tuple[float, LinearModel]]:
    """Score and model of each strength, all fitted together."""
    strengths = np.geomspace(*STRENGTHS, settings.trials).tolist()
    models = fit_path(*learnt, num_classes, strengths, settings.max_iterations).models
    return {strength: (_score(model, checked), model) for strength, model in zip(strengths, models, strict=True)}


def _search_tpe(settings: ProbeSettings, learnt: Data, checked: Data, num_classes: int, seed: int) -> dict[float, tuple[float, LinearModel]]:
    """Score and model of each strength that TPE asks for."""
    found: dict[float, tuple[float, LinearModel]] = {}
    study = _study(seed)
    for _ in range(settings.trials):
        trial = study.ask()
        strength = trial.suggest_float("C", *STRENGTHS, log=True)
        model = fit_path(*learnt, num_classes, [strength], settings.max_iterations).models[0]
        found[strength] = _score(model, checked), model
        study.tell(trial, found[strength][0])
    return found


def _refit(settings: ProbeSettings, data: Data, num_classes: int, found: dict[float, tuple[float, LinearModel]]) -> tuple[Predict, dict[str, Any]]:
    """The best strength, on a tie the smallest, fitted on all of the data from its own weights on."""
    best = max(found, key=lambda strength: (found[strength][0], -strength))
    score, start = found[best]
    model = fit_path(*data, num_classes, [best], settings.max_iterations, start=start).models[0]
    at_edge = best in (min(found), max(found))
    return model.predict, {"C": best, "validation_top1": score, "trials": len(found), "at_edge": at_edge}


def _choose_sgd(settings: ProbeSettings, data: Data, learnt: Data, checked: Data, num_classes: int, seed: int) -> tuple[Predict, dict[str, Any]]:
    """The best learning rate and weight decay of those that TPE asks for, in rounds that are fitted together."""

    def fit(part: Data, chosen: Sequence[SgdSetting]) -> list[LinearModel | None]:
        return fit_sgd(*part, num_classes, chosen, settings.epochs, settings.batch_size, seed)

    found: list[tuple[float, SgdSetting]] = []
    study = _study(seed)
    while len(found) < settings.trials:
        trials = [study.ask() for _ in range(min(ROUND, settings.trials - len(found)))]
        asked = [
            SgdSetting(trial.suggest_float("learning_rate", *LEARNING_RATES, log=True), trial.suggest_float("weight_decay", *WEIGHT_DECAYS, log=True))
            for trial in trials
        ]
        scores = [_score(model, checked) for model in fit(learnt, asked)]
        for trial, score in zip(trials, scores, strict=True):
            study.tell(trial, score)
        found += zip(scores, asked, strict=True)
    score, best = max(found, key=lambda pair: pair[0])
    (model,) = fit(data, [best])
    if model is None:
        raise UserError(FIELD, "sgd", f"diverged with all pictures at a learning rate of {best.learning_rate:.3g}; use lbfgs")
    return model.predict, {**vars(best), "validation_top1": score, "trials": len(found)}


def _study(seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
