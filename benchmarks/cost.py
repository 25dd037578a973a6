"""How well the cost model predicts the time of a clone: python benchmarks/cost.py --storage <an empty folder>

Three times: `raysd benchmark` measures the rate of the embedded model, `raysd plan`'s formula predicts the time of
1,500 images, and they are generated. Ray is up before; its start is not counted. About six minutes on two cores, which
should have nothing else to do.
"""

import argparse
import shutil
import time
from pathlib import Path
from statistics import median

import record

from raysd import commands
from raysd.clone.clone import plan_clone
from raysd.clone.spec import resolve_clone_spec
from raysd.cluster.resources import cluster_nodes
from raysd.cluster.session import ensure_ray
from raysd.config import load_experiment
from raysd.generation.cost import Pool, devices_per_actor, estimate_cost, find_rates, read_rates
from raysd.generation.placement import request_actors

COMMAND = "python benchmarks/cost.py"
REPEATS = 3
SETTINGS = ["generation.images_per_class=150", "generation.images_per_shard=250", "generation.batch_size=50"]


def predict(experiment, measured):
    """Seconds that `generate` should take on the running cluster, by the best rate of `measured` or of the table."""
    settings = experiment.generation
    spec = resolve_clone_spec(settings, experiment.table, experiment.all_variants)
    plan = plan_clone(experiment.root, spec, settings)
    request = request_actors(settings, cluster_nodes())
    pool = Pool(min(request.count, plan.num_shards), devices_per_actor(request.cpus, request.gpus))
    return estimate_cost(plan, find_rates(spec, measured)[0], settings.batch_size).wall_seconds(pool)


def measure(folder):
    """Predicted seconds by your own rate and by the table's, and the seconds that it took."""
    shutil.rmtree(folder, ignore_errors=True)
    experiment = load_experiment(None, [f"storage={folder}", *SETTINGS])
    commands.benchmark(experiment)
    own, table = predict(experiment, read_rates(experiment.root)), predict(experiment, [])
    began = time.monotonic()
    commands.generate(experiment)
    return own, table, time.monotonic() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated; it is deleted in the end")
    storage = Path(parser.parse_args().storage).resolve()
    ensure_ray()
    runs = []
    for repeat in range(REPEATS):
        runs.append(measure(storage / str(repeat)))
        print(
            "repeat {}: {:.1f} s predicted, {:.1f} s by the table, {:.1f} s taken".format(repeat, *runs[-1]), flush=True
        )
    shutil.rmtree(storage)
    own, table = (
        [abs(predicted - taken) / taken for predicted, taken in pairs]
        for pairs in ([run[::2] for run in runs], [run[1:] for run in runs])
    )
    about = (
        f"|predicted - taken| / taken, 1,500 images of the embedded model in {median(run[2] for run in runs):.0f} "
        "s, Ray being up"
    )
    rows = [
        record.metric(
            "prediction_error",
            median(own),
            "ratio",
            "lower",
            COMMAND,
            baseline=f"{about}; rate by raysd benchmark",
            runs=own,
        ),
        record.metric(
            "prediction_error_of_table",
            median(table),
            "ratio",
            "lower",
            COMMAND,
            baseline=f"{about}; rate of the table",
            runs=table,
        ),
    ]
    record.write("cost", rows)
