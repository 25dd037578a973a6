"""The effect of each searched field on the score, adjusted for the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysd.statistics.seeds import setting_margin
from raysd.statistics.verdict import verdict_of
from raysd.storage.row_types.sweep import Effect, EffectValue, RungResult
from raysd.sweep.analysis.ranking import independent_scores, scored, widest_rung

MOST_VALUES = 8
"""A factor with more different numbers than this is cut into quartiles."""
TOLERANCE = 1e-9
"""Smallest singular value of a design, as a share of its largest, that is not rounding."""


@dataclass(frozen=True)
class _Fit:
    """A least-squares fit with a column of ones and one column for each value of each factor; the pseudoinverse
    takes care of the surplus."""

    means: np.ndarray
    """Scores of the settings in percent [N]."""
    design: np.ndarray
    """[N, P]."""
    solver: np.ndarray
    """Its pseudoinverse [P, N]."""
    margin: float | None
    """Half the 95 % interval of one setting's mean in points; None when nothing is known of its noise."""


def marginal_effects(results: list[RungResult], factors: Mapping[str, Sequence[Any]]) -> list[Effect]:
    """Return the effect of each factor on the score, adjusted for the other factors.

    The mean scores of the settings, on the highest rung that all of them reached, are fitted by least squares with the
    sum of one number per factor and value (main effects only). `mean` is what these settings would have on average if
    all of them had this value (adjusted mean; Searle, Speed and Milliken 1980, with the settings' own shares as
    weights); in a balanced design it is the plain mean. `difference` is to the unweighted mean over the factor's
    values.

    The intervals are Student's t over the noise of a setting's mean (`raysd.statistics.seeds.setting_margin`). In
    simulation about 95 % of them hold the truth; in a 2 x 2 grid with strong interactions, which one degree of freedom
    seldom shows, 86 %.

    Args:
        results: of one sweep; failed ones are left out.
        factors: the values of each searched field that were tried, in the order in which they are shown.

    Returns:
        One row per factor, in order; none for a factor with one value. All numbers are in percent or points. Where the
        design cannot tell a factor from others, the differences are None and the means plain means.
    """
    tried = widest_rung(scored(results))
    levels = {name: _levels(values, [result["setting"][name] for result in tried]) for name, values in factors.items()}
    levels = {name: (values, chosen) for name, (values, chosen) in levels.items() if len(values) > 1}
    if not levels:
        return []
    scores = np.array([independent_scores(result) for result in tried], dtype=np.float64)
    fit = _fit([np.eye(len(values))[chosen] for values, chosen in levels.values()], scores)
    effects: list[Effect] = []
    start = 1
    for name, (values, _) in levels.items():
        columns = slice(start, start + len(values))
        spread, rows = _effect(values, columns, fit)
        effects.append(
            {"factor": name, "images_per_class": tried[0]["images_per_class"], "spread": spread, "values": rows}
        )
        start = columns.stop
    return effects


def _levels(order: Sequence[Any], tried: list[Any]) -> tuple[list[Any], np.ndarray]:
    """Return a factor's values as they are shown, many numbers as four ranges, and the index of each setting's [N]."""
    distinct: list[Any] = []
    for value in (*order, *tried):
        if value in tried and value not in distinct:
            distinct.append(value)
    if len(distinct) <= MOST_VALUES or not all(isinstance(value, int | float) for value in distinct):
        return distinct, np.array([distinct.index(value) for value in tried], dtype=np.int64)
    quarters = np.array_split(np.sort(distinct), 4)
    return [f"{quarter[0]:.4g} to {quarter[-1]:.4g}" for quarter in quarters], np.searchsorted(
        [quarter[-1] for quarter in quarters], tried
    )


def _fit(dummies: list[np.ndarray], scores: np.ndarray) -> _Fit:
    """Fit the mean scores of [N settings, K seeds]; the dummies [N, V] of each factor mark the value of each
    setting."""
    means = scores.mean(axis=1)
    design = np.hstack([np.ones((len(means), 1)), *dummies])
    solver = np.linalg.pinv(design, rcond=TOLERANCE)
    residuals = means - design @ (solver @ means)
    freedom = len(means) - int(np.linalg.matrix_rank(design, tol=TOLERANCE * np.linalg.norm(design, 2)))
    return _Fit(means, design, solver, setting_margin(residuals, freedom, scores))


def _effect(values: list[Any], columns: slice, fit: _Fit) -> tuple[float, list[EffectValue]]:
    """Return the spread and the values of the factor that has these columns of the design."""
    num_values, counts = len(values), fit.design[:, columns].sum(axis=0)
    contrasts = np.zeros((num_values, fit.design.shape[1]))
    contrasts[:, columns] = np.eye(num_values) - 1 / num_values
    weights = contrasts @ fit.solver  # of the settings' means in the differences [V, N]
    if not np.allclose(weights @ fit.design, contrasts, atol=1e-6):  # the design does not determine them
        adjusted = fit.design[:, columns].T @ fit.means / counts
        ends: list[tuple[float | None, float | None, float | None]] = [(None, None, None)] * num_values
    else:
        differences = weights @ fit.means
        adjusted = fit.means.mean() + differences - counts @ differences / len(fit.means)
        ends = [
            _ends(float(difference), fit.margin, float(np.linalg.norm(own)))
            for difference, own in zip(differences, weights, strict=True)
        ]
    rows: list[EffectValue] = [
        {
            "value": value,
            "mean": float(mean),
            "difference": difference,
            "low": low,
            "high": high,
            "verdict": None if low is None or high is None else verdict_of(low, high),
            "num_settings": int(count),
        }
        for value, mean, (difference, low, high), count in zip(values, adjusted, ends, counts, strict=True)
    ]
    return float(np.ptp(adjusted)), rows


def _ends(difference: float, margin: float | None, error: float) -> tuple[float | None, float | None, float | None]:
    """Return the difference and the ends of its interval; `error` is in units of the noise of one setting's mean."""
    return (
        (difference, None, None)
        if margin is None
        else (difference, difference - margin * error, difference + margin * error)
    )
