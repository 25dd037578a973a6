"""What the start of each process costs: python benchmarks/startup.py

CPU seconds (all threads, user and system) of each kind of process until it is ready for its first work, as a multiple
of a bare `python -c "import torch"` in the same run. What Ray itself needs is measured with an empty actor, an empty
training and an empty trial, and taken off. Writes benchmarks/results/startup.json.
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from record import metric, write

COMMAND = "python benchmarks/startup.py"
REPEATS = 3
FAST = [
    "generation.num_inference_steps=2",
    "generation.images_per_class=2",
    "generation.images_per_shard=20",
    "generation.num_actors=1",
]
TINY = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
    "stem_stride": 2,
    "batch_size": 20,
    "num_epochs": 1,
    "num_workers": 1,
}
TRAIN = [f"training.{key}={json.dumps(value)}" for key, value in TINY.items()]
EVALUATE = [
    "evaluation.validation_set=fashion_mnist",
    "evaluation.validation_images_per_class=5",
    "evaluation.test_set=fashion_mnist",
]
DRIVERS = {
    "plan": [],
    "generate": [],
    "score": [],
    "train": [],
    "evaluate": EVALUATE,
    "sweep": [*EVALUATE, "sweep.space.generation.guidance_scale=[1,4]", "sweep.rungs=[2]"],
}
# A driver is ready when it asks for Ray; `plan` and an evaluation of few images never do.
DRIVER = """
import sys, time
from raysd.cluster import session
def ready():
    print("ready", time.process_time()); sys.stdout.flush(); import os; os._exit(0)
session.ensure_ray = ready
sys.argv = ["raysd", *sys.argv[1:]]
from raysd.cli import main
try:
    main()
except SystemExit:
    print("ready", time.process_time())
"""


def cpu_of(code, *words):
    """CPU and wall seconds of a Python process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began


def driver_cpu(verb, root):
    """CPU and wall seconds of a verb's driver until it asks for Ray."""
    words = [verb, f"storage={root}", *FAST, *TRAIN, *DRIVERS[verb]]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    began = time.monotonic()
    finished = subprocess.run([sys.executable, "-c", DRIVER, *words], capture_output=True, text=True, env=environment)
    lines = re.findall(r"^ready (.*)", finished.stdout, re.MULTILINE)
    assert lines, finished.stderr
    return float(lines[0]), time.monotonic() - began


class Empty:
    """What Ray itself needs for an actor."""

    def used(self):
        return time.process_time()


def timed(kind):
    """The actor's class, which then tells the CPU seconds of its process."""

    class Timed(kind):
        def used(self):
            return time.process_time()

    return Timed


def actor_cpu(kind, *arguments):
    """CPU and wall seconds until an actor has been made."""
    import ray

    began = time.monotonic()
    actor = ray.remote(num_cpus=1)(kind).remote(*arguments)
    used = ray.get(actor.used.remote())
    wall = time.monotonic() - began
    ray.kill(actor)
    return used, wall


def clone_of(root):
    """A small clone, and its spec."""
    from raysd.config import load_experiment
    from raysd.generation.generate import generate_clones
    from raysd.resolve import clone_of

    experiment = load_experiment(None, [f"storage={root}", *FAST])
    job = clone_of(experiment)
    generate_clones([job], experiment.generation)
    return job


def image_text_model(folder):
    """A tiny CLIP with random weights; its tokenizer is the embedded generator's."""
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPTokenizer,
        CLIPVisionConfig,
    )

    from raysd.curation.image_text_model import find_image_text_model
    from raysd.diffusion.checkpoint import EMBEDDED

    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=24, eos_token_id=tokenizer.eos_token_id, **tiny
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, **tiny).to_dict(),
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32), tokenizer).save_pretrained(folder)
    return find_image_text_model(str(folder))


def scoring_arguments(job, folder):
    from raysd.curation.scores import ScoringSpec

    return job, ScoringSpec(image_text_model(folder), tuple(job.spec.table.names), ()), [], 8, 1


def note_use(folder):
    """Write down the CPU seconds of this process, and of Ray Train's controller on this node."""
    import psutil

    Path(folder, "worker").write_text(str(time.process_time()))
    for process in psutil.Process(os.getppid()).children():
        if "TrainController" in " ".join(process.cmdline()):
            times = process.cpu_times()
            Path(folder, "controller").write_text(str(times.user + times.system))


def training_cpu(root, is_empty):
    """CPU seconds of a Ray Train worker and of its controller until the first step, or until an empty loop is
    called."""
    from raysd.data.real_datasets import real_dataset
    from raysd.storage.location import Location
    from raysd.training import worker
    from raysd.training.loader import Pool
    from raysd.training.run import TrainingRun
    from raysd.training.settings import TrainingSettings
    from raysd.training.train import train_classifiers

    folder, original = tempfile.mkdtemp(dir=root), worker.train_worker
    images = real_dataset("digits", "train", Location(folder), 20)
    run = TrainingRun(Location(folder), (Pool((images,)),), 10, TrainingSettings(**{**TINY, "image_size": 16}))

    def until_first_step(config):
        from raysd.training.loop import SeedTraining

        def stop(*_):
            note_use(folder)
            raise InterruptedError

        SeedTraining._train_step = stop
        with contextlib.suppress(InterruptedError):
            original(config)

    worker.train_worker = (lambda config: note_use(folder)) if is_empty else until_first_step
    try:
        with contextlib.suppress(RuntimeError):  # there is no classifier in the end, as it should be
            train_classifiers(run, quiet=True)
    finally:
        worker.train_worker = original
    return tuple(float(Path(folder, name).read_text()) for name in ("worker", "controller"))


def trial_cpu(root):
    """CPU seconds of a trial until it asks for its clone."""
    from raysd import commands
    from raysd.config import load_experiment
    from raysd.errors import UserError
    from raysd.sweep import trials

    folder, original = tempfile.mkdtemp(dir=root), trials._run_job

    def until_first_clone(*arguments):
        from raysd.sweep.rung import RungRunner
        from raysd.sweep.trials import _run_job

        def stop(*_):
            Path(folder, "trial").write_text(str(time.process_time()))
            raise UserError("startup", "", "measured")

        RungRunner._generate = stop
        _run_job(*arguments)

    trials._run_job = until_first_clone
    words = [f"storage={folder}", *FAST, *TRAIN, *DRIVERS["sweep"], "training.seeds=[0]"]
    try:
        with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
            commands.sweep(load_experiment(None, words))
    finally:
        trials._run_job = original
    return float(Path(folder, "trial").read_text())


def empty_trial_cpu(root):
    """CPU seconds of a trial of Ray Tune that does nothing."""
    from ray.tune import RunConfig, Tuner

    file = Path(root, "empty")
    Tuner(
        lambda config: file.write_text(str(time.process_time())) and None,
        run_config=RunConfig(storage_path=root, verbose=0),
    ).fit()
    return float(file.read_text())


def measure(root):
    """CPU seconds of each kind of process, less what Ray needs of them; wall seconds of actors and drivers beside
    them."""
    from raysd.curation.scoring import ShardScorer
    from raysd.evaluation.features import Forward
    from raysd.generation.actor import GenerationActor

    bare, _ = cpu_of("import torch")
    used = {
        "pipeline_import": cpu_of("from diffusers import StableDiffusionPipeline"),
        "timm_import": cpu_of("import torch, timm"),
    }
    used |= {f"driver_{verb}": driver_cpu(verb, root) for verb in DRIVERS}
    empty, _ = actor_cpu(Empty)
    job = clone_of(root)
    actors = {
        "actor": (GenerationActor, job.spec, 8, 1),
        "scoring_actor": (ShardScorer, *scoring_arguments(job, Path(root) / "clip")),
        "feature_actor": (Forward, 1),
    }
    for name, (kind, *arguments) in actors.items():
        cpu, wall = actor_cpu(timed(kind), *arguments)
        used[name] = cpu - empty, wall
    (empty_worker, empty_controller), (worker, controller) = training_cpu(root, True), training_cpu(root, False)
    used["train_worker"] = worker - empty_worker + bare, None  # Ray Train's empty worker has torch already
    used["train_controller"] = controller - empty_controller, None
    used["trial"] = trial_cpu(root) - empty_trial_cpu(root), None
    return bare, used


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    repeats = parser.parse_args().repeats
    from raysd.cluster.session import close_ray, ensure_ray

    ensure_ray()
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as root:
            runs.append(measure(root))
    close_ray()
    baseline = 'CPU seconds of python -c "import torch" in the same run'
    rows = [
        metric(
            "bare_import_s",
            median(bare for bare, _ in runs),
            "s",
            "lower",
            COMMAND,
            baseline,
            [bare for bare, _ in runs],
        )
    ]
    for name in runs[0][1]:
        ratios = [used[name][0] / bare for bare, used in runs]
        rows.append(metric(f"{name}_start_ratio", median(ratios), "ratio", "lower", COMMAND, baseline, ratios))
        if runs[0][1][name][1] is not None:
            walls = [used[name][1] for _, used in runs]
            rows.append(
                metric(f"{name}_wall_s", median(walls), "s", "lower", COMMAND, "wall seconds until it is ready", walls)
            )
    worst = [max(used[f"driver_{verb}"][0] for verb in DRIVERS) / bare for bare, used in runs]
    rows.append(
        metric(
            "driver_start_ratio",
            median(worst),
            "ratio",
            "lower",
            COMMAND,
            f"the slowest of the drivers above; {baseline}",
            worst,
        )
    )
    write("startup", rows)


if __name__ == "__main__":
    main()
