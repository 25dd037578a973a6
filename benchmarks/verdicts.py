"""What verdicts are worth, by simulation: python benchmarks/verdicts.py

Sweeps of 2, 8 and 24 settings with three seeds, whose scores have a seed noise of 1 point. Equal settings: how often is
some setting called worse than the best, how much too high is the best score, and how often does its 95 % interval hold
the truth? One setting 2 points above the others: how many of them are called worse? The same by the rules for one
setting alone, which know nothing of the choice. Writes benchmarks/results/verdicts.json; takes about two minutes.

With --storage <folder> another part, without simulation: eight clones of one setting that differ in their seed alone,
three classifiers on each. How often does `raysd compare` call one setting better or worse than itself?

- One clone seed on each side: all 28 pairs of clones, the three classifiers of one against those of the other.
- Three clone seeds on each side (`generation.seeds`): all 280 pairs of three clones and three others, a classifier seed
  on each clone, the clones in random order.

It takes about a quarter of an hour on two cores; what is in the folder is not made again.
"""

import argparse
import itertools

import numpy as np
from record import metric, write

from raysd.config import load_experiment
from raysd.evaluation.compare import compare_classifiers
from raysd.evaluation.evaluate import Evaluation
from raysd.generation.generate import generate_clones
from raysd.resolve import clone_of, training_pools, training_run
from raysd.statistics.many import interval_of_best, margin_to_best, shrunk_best
from raysd.statistics.seeds import margin_of_mean, noise_margin
from raysd.training.train import train_here

COUNTS, SEEDS, GAP = (2, 8, 24), 3, 2.0
COMMAND = "python benchmarks/verdicts.py"
SETTINGS = {
    "classes": "fashion_mnist",
    "generation": {"num_inference_steps": 10, "guidance_scale": 2, "images_per_shard": 150, "batch_size": 50},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
        "stem_stride": 2,
        "batch_size": 100,
        "num_workers": 1,
        "seeds": list(range(SEEDS)),
        "logger": "none",
    },
    "evaluation": {"test_set": "fashion_mnist", "validation_set": None},
}


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


def measure_clones(storage, num_clones, images_per_class, num_epochs):
    """The evaluation, and the accuracy rows [num_clones][SEEDS] of the classifiers of each clone."""
    experiments = [
        load_experiment(
            SETTINGS,
            storage=storage,
            generation={"seed": seed, "images_per_class": images_per_class},
            training={"num_epochs": num_epochs},
        )
        for seed in range(num_clones)
    ]
    generate_clones([clone_of(each) for each in experiments], experiments[0].generation)
    one = experiments[0]
    evaluation = Evaluation(one.root, one.evaluation, one.table, COMMAND)
    rows = []
    for each in experiments:
        names = train_here(training_run(each, training_pools(each)))
        rows.append([evaluation.measure(name, here=True)[0] for name in names])
        print(f"clone seed {each.generation.seed}: {[row['value'] for row in rows[-1]]}", flush=True)
    return evaluation, rows


def share_different(evaluation, pairs):
    """The share of pairs of one setting that are called better or worse."""
    found = [row for ours, theirs in pairs for row in compare_classifiers(evaluation, ours, theirs, COMMAND)]
    return float(np.mean([row["verdict"] != "within noise" for row in found]))


def pairs_of_several(rows, rng):
    """The sides of comparisons of SEEDS clone seeds with SEEDS others: classifier seed k on clone number k."""
    places = set(range(len(rows)))
    for ours in itertools.combinations(sorted(places), SEEDS):
        for theirs in itertools.combinations(sorted(places - set(ours)), SEEDS):
            if ours < theirs:
                sides = [rng.permutation(side) for side in (ours, theirs)]
                yield [[rows[clone][seed] for seed, clone in enumerate(side)] for side in sides]


def compare_clones(options):
    evaluation, rows = measure_clones(options.storage, options.clones, options.images, options.epochs)
    values = np.array([[row["value"] for row in own] for own in rows])
    several = list(pairs_of_several(rows, np.random.default_rng(0)))
    one = list(itertools.combinations(rows, 2))
    command = f"{COMMAND} --storage <folder>"
    what = (
        f"{options.clones} clones of one setting, {options.images} images a class, {options.epochs} epochs, "
        f"{SEEDS} classifiers on each"
    )
    means, spread = values.mean(axis=1), float(np.sqrt(values.var(axis=1, ddof=1).mean() / SEEDS))
    share = "share of pairs"
    return [
        metric(
            "same_setting_verdicts",
            share_different(evaluation, several),
            share,
            "lower",
            command,
            f"{what}; {len(several)} pairs of {SEEDS} clone seeds with {SEEDS} others",
        ),
        metric(
            "same_setting_verdicts_one_clone",
            share_different(evaluation, one),
            share,
            "lower",
            command,
            f"{what}; {len(one)} pairs of one clone seed with another",
        ),
        metric("clone_seed_sd", means.std(ddof=1), "points", "lower", command, f"{what}; sd of the means", means),
        metric("clone_seed_sd_by_classifiers", spread, "points", "lower", command, f"{what}; what classifiers explain"),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--storage", help="folder of the clones; instead of the simulation")
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--images", type=int, default=60, help="of each class")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    write("verdicts", compare_clones(options) if options.storage else simulate_sweeps(options))


def simulate_sweeps(options):
    rng = np.random.default_rng(0)
    equal = [simulate(np.full(count, 60.0), options.runs, rng) for count in COUNTS]
    apart = [simulate(np.r_[60.0, np.full(count - 1, 60.0 - GAP)], options.runs, rng) for count in COUNTS]
    what = f"{', '.join(map(str, COUNTS))} settings, {SEEDS} seeds, seed noise of 1 point, {options.runs:,} sweeps each"

    def largest(name, key, unit, better, found, baseline="", pick=max):
        runs = [one[key] for one in found]
        return metric(name, pick(runs), unit, better, COMMAND, baseline or what, runs)

    return [
        largest("false_worse_share", "worse", "share of sweeps", "lower", equal),
        largest("false_worse_share_alone", "worse_alone", "share of sweeps", "lower", equal),
        largest("winner_coverage", "held", "share of sweeps", "higher", equal, pick=min),
        largest("winner_coverage_alone", "held_alone", "share of sweeps", "higher", equal, pick=min),
        largest("winner_luck", "luck", "points", "lower", equal),
        largest("winner_luck_shrunk", "shrunk", "points", "lower", equal),
        largest("worse_power_2_points", "power", "share of settings", "higher", apart, pick=min),
    ]


if __name__ == "__main__":
    main()
