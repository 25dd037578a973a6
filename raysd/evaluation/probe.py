"""Linear probe: logistic regression by L-BFGS on frozen features.

The strength of the regularisation is chosen on a class-stratified fifth of the training pictures; then the probe is fitted on all of
them and tested once.
"""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

STRENGTHS = tuple(10.0**power for power in range(-4, 3))
VALIDATION_SHARE = 0.2
MAX_ITERATIONS = 500


def choose_shots(labels: np.ndarray, shots: int | None, seed: int) -> np.ndarray:
    """Indices of `shots` pictures of each class (all when None), drawn by the seed."""
    if shots is None:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:shots] for label in np.unique(labels)]
    return np.sort(np.concatenate(chosen))


def linear_probe(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int) -> float:
    """Test accuracy in percent of a probe on (features [N, D], labels [N]) pairs."""
    features, labels = train
    num_validation = max(len(np.unique(labels)), round(len(labels) * VALIDATION_SHARE))
    fit, validation = train_test_split(np.arange(len(labels)), test_size=num_validation, stratify=labels, random_state=seed)
    scores = [_fit(features[fit], labels[fit], strength).score(features[validation], labels[validation]) for strength in STRENGTHS]
    best = STRENGTHS[int(np.argmax(scores))]
    return 100 * float(_fit(features, labels, best).score(*test))


def _fit(features: np.ndarray, labels: np.ndarray, strength: float) -> Any:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return probe.fit(features, labels)


from dataclasses import dataclass


@dataclass
class ProbeResult:
    predictions: Any
    top1: float
    mean_per_class: float
    chosen: Any


def run_probe(train, test, settings, seed, shots=None):
    c = choose_shots(train[1], shots, seed)
    f = _fit(train[0][c], train[1][c], 1.0)
    p = f.predict(test[0])
    return ProbeResult(p, 100 * float((p == test[1]).mean()), 100 * float((p == test[1]).mean()), {"C": 1})
