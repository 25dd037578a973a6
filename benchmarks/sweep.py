"""The sweep against the full grid: python benchmarks/sweep.py --storage runs

On the embedded model, four guidance scales x three prompt variants at 200 images a class, and a clone for each
classifier seed.

1. The full grid, as a sweep without a scheduler. `grid.json` and `grid.csv` hold a row per cell.
2. Halving over the same settings, three times, each with clone seeds and classifier seeds of its own.
3. What the grid picks, what each halving picks, and the grid's next best are generated and trained again with three
   fresh seeds:
   the regret of a halving is what its pick loses against the grid's on those.
4. The work of the first halving done once more by two plain processes, without Ray: what is left of the sweep's wall
   time is overhead.

Each part alone: `--parts grid halving regret overhead`. Parts read what earlier ones left in the storage root. Needs
Debian's opencv-doc for one transfer set.
"""

import argparse
import csv
import json
import multiprocessing
import shutil
import time
from pathlib import Path
from statistics import mean, stdev

import record
from record import RESULTS

from raysd.config import load_experiment
from raysd.resolve import clone_spec_of
from raysd.storage.rows import ACCURACY, RUNG_RESULT, SWEEP, read_rows

COMMAND = "python benchmarks/sweep.py"
SCALES, VARIANTS = [1, 2, 4, 7.5], ["name", "attributes", "clip_templates"]
FULL, SEEDS, FRESH = 200, 3, [100, 101, 102]
RUNGS = [
    {"images_per_class": 25, "num_seeds": 2},
    {"images_per_class": 75, "num_seeds": 2},
    {"images_per_class": FULL, "num_seeds": SEEDS},
]
REPEATS, KEEP, NEXT_BEST = 3, 1 / 3, 2
PROBE = {"scale": "standard", "trials": 6, "max_iterations": 100}
SETTINGS = {
    "classes": "fashion_mnist",
    "generation": {"num_inference_steps": 8, "images_per_class": FULL, "images_per_shard": 250, "batch_size": 50},
    "training": {
        "backbone_options": {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]},
        "stem_stride": 2,
        "num_epochs": 10,
        "batch_size": 100,
        "num_workers": 1,
        "logger": "none",
    },
    "evaluation": {
        "transfer_sets": [{"name": name, "probe": PROBE} for name in ("digits", "mnist_5k", "opencv_digits")]
    },
}


def experiment(storage, name, seeds, **sweep):
    """The settings of one sweep, through a file as a user would; each classifier seed has a clone seed of its own."""
    space = {"generation": {"guidance_scale": SCALES, "variant": VARIANTS}}
    own = {"objective": "transfer", "random": False, "max_concurrent_trials": 2, "space": space, **sweep}
    values = {**SETTINGS, "name": name, "storage": storage, "sweep": own}
    values["generation"] = {**values["generation"], "seeds": seeds}
    values["training"] = {**values["training"], "seeds": seeds}
    path = Path(storage) / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    return load_experiment(path)


def grid(storage):
    """The full grid."""
    return experiment(storage, "grid", list(range(SEEDS)))


def halving(storage, repeat):
    """The halving of one repeat; `keep` and the rungs leave two settings for the last one."""
    seeds = [10 * repeat + number for number in range(SEEDS)]
    return experiment(storage, f"halving-{repeat}", seeds, scheduler="halving", rungs=RUNGS, keep=KEEP)


def run_timed(settings, storage):
    """Run a sweep from nothing in a process of its own, as the command does; its row, and the seconds of the whole
    command."""
    row = find(settings)
    seconds = Path(storage) / f"{settings.name}.seconds"
    if row is None or not seconds.exists():
        process = multiprocessing.get_context("spawn").Process(target=_sweep, args=(storage, settings.name))
        began = time.monotonic()
        process.start()
        process.join()
        assert process.exitcode == 0
        seconds.write_text(str(time.monotonic() - began))
    return find(settings), float(seconds.read_text())


def _sweep(storage, name):
    from raysd import commands

    commands.sweep(load_experiment(Path(storage) / f"{name}.yaml"), COMMAND)


def find(settings):
    """The row of a sweep, or None."""
    return next((row for row in read_rows(settings.root, SWEEP) if row["name"] == settings.name), None)


def run_grid(storage):
    """The grid's cells as a table."""
    row, seconds = run_timed(grid(storage), storage)
    cells = []
    for result in sorted(read_rows(grid(storage).root, RUNG_RESULT), key=lambda result: result["number"]):
        if result["sweep"] == row["fingerprint"]:
            sets = {}
            for accuracy in read_rows(grid(storage).root, ACCURACY):
                if accuracy["classifier"] in result["classifiers"]:
                    sets.setdefault(accuracy["dataset"], []).append(accuracy["value"])
            values = {name: round(mean(found), 2) for name, found in sorted(sets.items())}
            cells.append(
                {
                    **result["setting"],
                    "transfer": round(result["score"], 3),
                    "seeds": [round(score, 3) for score in result["seed_scores"]],
                    **values,
                }
            )
    ranked = {json.dumps(each["setting"], sort_keys=True): each for each in row["ranking"]}
    for cell in cells:
        place = ranked[
            json.dumps(
                {name: cell[name] for name in ("generation.guidance_scale", "generation.variant")}, sort_keys=True
            )
        ]
        cell |= {"low": place["low"], "high": place["high"], "verdict": place["verdict"]}
    with (RESULTS / "grid.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
    num_sets = len(SETTINGS["evaluation"]["transfer_sets"])
    size = f"{FULL} images a class, {SEEDS} clone seeds and classifier seeds; mean of {num_sets} transfer sets"
    entries = []
    for cell in cells:
        name = f"{cell['generation.variant']} at guidance {cell['generation.guidance_scale']:g}"
        about = f"{size}; {cell['verdict']}, interval {cell['low']:.2f} to {cell['high']:.2f}"
        entries.append(record.metric(name, cell["transfer"], "percent", "higher", COMMAND, about, cell["seeds"]))
    for effect in row["effects"]:
        for value in effect["values"]:
            about = f"difference to the mean over all values, interval {value['low']:+.2f} to {value['high']:+.2f}"
            name = f"effect of {effect['factor']} {value['value']}"
            entries.append(record.metric(name, value["difference"], "points", "higher", COMMAND, about))
    entries.append(
        record.metric(
            "grid_seconds",
            seconds,
            "s",
            "lower",
            COMMAND,
            f"wall time of the full grid, {row['cost']['num_images']:,} images",
        )
    )
    record.write("grid", entries)


def run_halvings(storage):
    """Images and wall time of each halving over the grid's."""
    full, full_seconds = run_timed(grid(storage), storage)
    images, seconds = [], []
    for repeat in range(1, REPEATS + 1):
        row, own_seconds = run_timed(halving(storage, repeat), storage)
        images.append(row["cost"]["num_images"] / full["cost"]["num_images"])
        seconds.append(own_seconds / full_seconds)
        print(repeat, row["best"]["label"], round(own_seconds), "s", flush=True)
    yield metric(
        "images_ratio",
        mean(images),
        "ratio",
        "lower",
        f"images of the full grid, {full['cost']['num_images']:,}",
        images,
    )
    yield metric(
        "wall_time_ratio",
        mean(seconds),
        "ratio",
        "lower",
        f"wall time of the full grid, {full_seconds:.0f} s, same machine and command",
        seconds,
    )


def run_regret(storage):
    """True accuracy over fresh seeds of every pick."""
    settings = grid(storage)
    full = find(settings)
    ranking = [each["setting"] for each in full["ranking"]]
    picks = [find(halving(storage, repeat))["best"]["setting"] for repeat in range(1, REPEATS + 1)]
    wanted = []
    for setting in [*ranking[: 1 + NEXT_BEST], *picks]:
        if setting not in wanted:
            wanted.append(setting)
    truth = {json.dumps(setting, sort_keys=True): true_scores(settings, setting) for setting in wanted}

    def of(setting):
        return truth[json.dumps(setting, sort_keys=True)]

    best, top = of(ranking[0]), max(truth.values(), key=mean)
    regrets = [mean(best) - mean(of(pick)) for pick in picks]
    for setting in wanted:
        print(setting, round(mean(of(setting)), 2), "+-", round(stdev(of(setting)), 2), flush=True)
    about = (
        f"the grid's own pick, {label(ranking[0])}, over 3 fresh clone seeds and classifier seeds: {mean(best):.2f} +- "
        f"{stdev(best):.2f}"
    )
    yield metric("mean_regret", mean(regrets), "points", "lower", about, regrets)
    yield metric("max_regret", max(regrets), "points", "lower", about, regrets)
    over = [mean(top) - mean(of(pick)) for pick in picks]
    about = (
        f"the highest of {len(wanted)} settings over the same fresh seeds; the highest of several noisy means is "
        "too high by itself"
    )
    yield metric("mean_regret_to_highest", mean(over), "points", "lower", about, over)
    print([label(pick) for pick in picks])


def label(setting):
    """A setting in a few words."""
    return f"{setting['generation.variant']} at guidance {setting['generation.guidance_scale']:g}"


def true_scores(settings, setting):
    """Mean transfer of a setting for each fresh seed, which is its clone's and its classifier's."""
    import torch

    from raysd import commands
    from raysd.evaluation.evaluate import Evaluation
    from raysd.sweep.settings import RungSettings
    from raysd.sweep.space import Setting, experiment_at

    torch.set_num_threads(1)
    fresh = {part: getattr(settings, part).model_copy(update={"seeds": FRESH}) for part in ("generation", "training")}
    at = experiment_at(settings.model_copy(update=fresh), Setting(setting), RungSettings(images_per_class=FULL))
    commands.generate(at)
    evaluation = Evaluation(at.root, at.evaluation, at.table, COMMAND)
    return [mean(row["value"] for row in evaluation.measure(classifier)) for classifier in train_each(at)]


def train_each(experiment):
    """Train the classifiers of an experiment whose clones are complete, in this process."""
    from raysd.resolve import replicates, training_pools, training_run
    from raysd.training.train import train_here

    return [name for each in replicates(experiment) for name in train_here(training_run(each, training_pools(each)))]


def run_overhead(storage):
    """The share of a halving's wall time that two plain processes do not need for the same shards, trainings and
    measurements."""
    storage = str(Path(storage) / "overhead")
    shutil.rmtree(storage, ignore_errors=True)  # both sides begin with nothing, one after the other
    settings = halving(storage, 1)
    row, seconds = run_timed(settings, storage)
    results = [result for result in read_rows(settings.root, RUNG_RESULT) if result["sweep"] == row["fingerprint"]]
    folder, spawn = Path(storage) / "plain", multiprocessing.get_context("spawn")
    began = time.monotonic()
    tasks = spawn.JoinableQueue()
    workers = [
        spawn.Process(target=_plain_worker, args=(tasks, str(Path(storage) / "halving-1.yaml"), str(folder)))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for rung in range(
        len(RUNGS)
    ):  # one process generates, trains and measures a setting; all of a rung come before the next, as in the sweep
        for result in sorted(results, key=lambda result: result["number"]):
            if result["rung"] == rung:
                tasks.put((result["setting"], rung))
        tasks.join()
    for _ in workers:
        tasks.put(None)
    for worker in workers:
        worker.join()
    plain = time.monotonic() - began
    about = f"wall time of two plain processes for the same work, {plain:.0f} s of {seconds:.0f} s"
    yield metric("overhead_share", 1 - plain / seconds, "ratio", "lower", about, [1 - plain / seconds])


def _plain_worker(tasks, path, storage):
    import torch

    from raysd.device import keep_freed_memory
    from raysd.evaluation.evaluate import Evaluation
    from raysd.generation.actor import GenerationActor
    from raysd.generation.generate import generate_clones
    from raysd.resolve import clones_of
    from raysd.sweep.space import Setting, experiment_at, first_setting, rungs_of

    keep_freed_memory()
    torch.set_num_threads(1)
    settings = load_experiment(path, [f"storage={storage}"])
    evaluation, rungs = Evaluation(settings.root, settings.evaluation, settings.table, COMMAND), rungs_of(settings)
    actor = GenerationActor(
        clone_spec_of(experiment_at(settings, first_setting(settings), rungs[0])), settings.generation.batch_size, 1
    )

    def generate(jobs, shards):
        return [{"clone": 0, **actor.try_shard(jobs[0], int(shard))} for shard in shards[0]]

    while (task := tasks.get()) is not None:
        at = experiment_at(settings, Setting(task[0]), rungs[task[1]])
        for clone in clones_of(at):
            generate_clones([clone], at.generation, generate=generate)
        for classifier in train_each(at):
            evaluation.measure(classifier)
        tasks.task_done()


def metric(*arguments):
    name, value, unit, better, baseline, runs = arguments
    return record.metric(name, value, unit, better, COMMAND, baseline, runs)


PARTS = {"halving": run_halvings, "regret": run_regret, "overhead": run_overhead}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--parts", nargs="+", default=["grid", *PARTS])
    arguments = parser.parse_args()
    storage = str(Path(arguments.storage).resolve())
    for part in arguments.parts:
        if part == "grid":
            run_grid(storage)
        else:
            for entry in PARTS[part](storage):
                record.write("sweep", [entry])
