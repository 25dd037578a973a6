"""What verdicts are worth, by simulation: python benchmarks/verdicts.py

Sweeps of 2, 8 and 24 settings with three seeds, whose scores have a seed noise of 1 point. Equal settings: how often is
some setting called worse than the best, how much too high is the best score, and how often does its 95 % interval hold
the truth? One setting 2 points above the others: how many of them are called worse? The same by the rules for one
setting alone, which know nothing of the choice. Writes benchmarks/results/verdicts.json; takes about two minutes.
"""

import argparse

import numpy as np
from record import metric, write

from raysd.statistics.many import interval_of_best, margin_to_best, shrunk_best
from raysd.statistics.seeds import margin_of_mean, noise_margin

COUNTS, SEEDS, GAP = (2, 8, 24), 3, 2.0
COMMAND = "python benchmarks/verdicts.py"


def simulate(truth, runs, rng):
    """Shares of sweeps, by the rules for many settings and by those for one alone."""
    found = {name: [] for name in ("worse", "worse_alone", "held", "held_alone", "luck", "shrunk", "power")}
    for scores in truth[:, None] + rng.normal(0, 1, (runs, len(truth), SEEDS)):
        means = scores.mean(axis=1)
        best = int(means.argmax())
        below = means - means[best]
        worse, alone = (
            below + margin < 0 for margin in (margin_to_best(scores, len(truth)), noise_margin(scores, 0.975))
        )
        equal = truth == truth[best]
        low, high = interval_of_best(scores)
        half = margin_of_mean(scores)
        found["worse"].append(worse[equal].any())
        found["worse_alone"].append(alone[equal].any())
        found["held"].append(low <= truth[best] <= high)
        found["held_alone"].append(abs(means[best] - truth[best]) <= half)
        found["luck"].append(means[best] - truth[best])
        found["shrunk"].append(shrunk_best(scores) - truth[best])
        found["power"].append(worse[~equal].mean() if (~equal).any() else 0.0)
    return {name: float(np.mean(values)) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    equal = [simulate(np.full(count, 60.0), options.runs, rng) for count in COUNTS]
    apart = [simulate(np.r_[60.0, np.full(count - 1, 60.0 - GAP)], options.runs, rng) for count in COUNTS]
    what = f"{', '.join(map(str, COUNTS))} settings, {SEEDS} seeds, seed noise of 1 point, {options.runs:,} sweeps each"

    def largest(name, key, unit, better, found, baseline="", pick=max):
        runs = [one[key] for one in found]
        return metric(name, pick(runs), unit, better, COMMAND, baseline or what, runs)

    write(
        "verdicts",
        [
            largest("false_worse_share", "worse", "share of sweeps", "lower", equal),
            largest("false_worse_share_alone", "worse_alone", "share of sweeps", "lower", equal),
            largest("winner_coverage", "held", "share of sweeps", "higher", equal, pick=min),
            largest("winner_coverage_alone", "held_alone", "share of sweeps", "higher", equal, pick=min),
            largest("winner_luck", "luck", "points", "lower", equal),
            largest("winner_luck_shrunk", "shrunk", "points", "lower", equal),
            largest("worse_power_2_points", "power", "share of settings", "higher", apart, pick=min),
        ],
    )


if __name__ == "__main__":
    main()
