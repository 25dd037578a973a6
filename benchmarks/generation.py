"""What generating a clone costs beside the model itself: python benchmarks/generation.py --storage <an empty folder>

Six parts, each in a process of its own, about three quarters of an hour together on two cores; `--part` runs one of
them:

- `loop`: one actor against the best plain loop with the same pipeline, sampler, batch, precision and codec.
- `script`: raysd as it comes against the script that one would write, and the accuracy that both clones teach.
- `scale`: null generators, which sleep as long as a GPU would generate, on 2 to 64 actors.
- `memory`: 200,000 null images; the peak memory of driver and actors, early and at the end.
- `scan`: what is missing of 100,000 shards, and what a plan of 100 million images costs.
- `shards`: 4,000 shards with one null image each, handed out at once: what many shards ask of the driver and of Ray.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from statistics import mean, median, stdev
from unittest.mock import patch

import numpy as np
import record

from raysd import commands
from raysd.clone.clone import plan_clone
from raysd.clone.scan import missing_shards
from raysd.clone.settings import GenerationSettings
from raysd.clone.shard import encode_image, shard_name
from raysd.clone.spec import resolve_clone_spec
from raysd.cluster.session import ensure_ray
from raysd.config import Experiment, load_experiment
from raysd.diffusion.checkpoint import EMBEDDED
from raysd.generation.actor import GenerationActor
from raysd.generation.batch import GeneratedBatch
from raysd.generation.generate import generate_clones

COMMAND = "python benchmarks/generation.py"
CONFIG = Path(__file__).parent.parent / "configs" / "fashion_mnist.yaml"
NUM_CORES = os.cpu_count() or 1
REPEATS = 3
BATCH = 50
LOOP_IMAGES = 3000  # a minute or more
SCRIPT_IMAGES_PER_CLASS = 100
SMALL_BATCH = 10
NULL_SECONDS = 0.5  # an image: Stable Diffusion 1.x on a large GPU
NULL_SIZE = 256
SCALE_ACTORS = {2: 8, 8: 8, 32: 8, 64: 16}  # shards for each actor
SCALE_SHARD = 32
MEMORY_IMAGES = 200_000
SCAN_SHARDS = 100_000
FEW_SHARDS, NUM_SHARDS = 500, 4_000


def metric(*arguments, **options):
    record.write("generation", [record.metric(*arguments, **options, command=COMMAND)])


class Logged:
    """A generator that notes each batch, in a file of its process: start, end, images, peak memory in kB."""

    def __init__(self, generator, log):
        self.generator = generator
        log.mkdir(parents=True, exist_ok=True)
        self.file = (log / f"{os.getpid()}.txt").open("a", buffering=1)

    def generate(self, spec, images):
        began = time.time()
        batch = self.generator.generate(spec, images)
        print(began, time.time(), len(images), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=self.file)
        return batch


class NullGenerator:
    """Hands out ready images after the time that a GPU would take. Imports no torch."""

    def __init__(self, seconds):
        waves = np.add.outer(np.sin(np.arange(NULL_SIZE) / 9), np.cos(np.arange(NULL_SIZE) / 17))
        self.image = np.stack([(60 * waves + shift).astype(np.uint8) for shift in (120, 130, 140)], axis=-1)
        self.seconds = seconds

    def generate(self, spec, images):
        time.sleep(self.seconds * len(images))
        return GeneratedBatch(np.repeat(self.image[None], len(images), axis=0), [""] * len(images))


def actor_class(log, null_seconds):
    """A generation actor that notes its batches, and that generates null images where `null_seconds` are given."""

    class Actor(GenerationActor):
        @staticmethod
        def load_generator(spec, num_threads):
            is_real = null_seconds is None
            generator = GenerationActor.load_generator(spec, num_threads) if is_real else NullGenerator(null_seconds)
            return Logged(generator, log)

    return Actor


def generate_clone(folder, settings, null_seconds=None):
    """Generate a clone; its job, the logs of its actors, and when the call began."""
    from raysd.storage.location import Location

    shutil.rmtree(folder, ignore_errors=True)
    settings = GenerationSettings(**settings)
    experiment = Experiment(generation=settings)
    spec = resolve_clone_spec(settings, experiment.table, experiment.all_variants)
    job = plan_clone(Location(str(folder)), spec, settings)
    ensure_ray()
    began = time.time()
    with patch("raysd.generation.actor_pool.GenerationActor", actor_class(folder / "log", null_seconds)):
        generate_clones([job], settings)
    logs = [np.loadtxt(path, ndmin=2) for path in sorted((folder / "log").glob("*.txt"))]
    return job, logs, began


def commits(job):
    """When each shard was committed, rising."""
    return np.sort([path.stat().st_mtime for path in Path(job.folder.path, "data").glob("*.parquet")])


def measure_loop(root):
    settings = {
        "images_per_class": LOOP_IMAGES // 10,
        "images_per_shard": 250,
        "batch_size": BATCH,
        "num_actors": 1,
        "cpus_per_actor": NUM_CORES,
    }
    actor, loop, starts = [], [], []
    for repeat in range(REPEATS):
        job, logs, began = generate_clone(root / "actor", settings)
        first = min(log[0, 0] for log in logs)
        actor.append(len(job) / (commits(job)[-1] - first))
        starts.append(first - began)
        loop.append(plain_loop(job, root / "loop"))
        print(f"loop {repeat}: actor {actor[-1]:.1f}, plain loop {loop[-1]:.1f} images/s", flush=True)
    ratios = [one / other for one, other in zip(actor, loop, strict=True)]
    about = f"{LOOP_IMAGES} images, batch {BATCH}, {NUM_CORES} threads, float32, PNG; Ray's start not counted"
    metric(
        "efficiency_vs_plain_loop", median(ratios), "ratio", "higher", baseline=f"best plain loop, {about}", runs=ratios
    )
    metric("actor_images_per_second", median(actor), "images/s", "higher", baseline=about, runs=actor)
    metric("plain_loop_images_per_second", median(loop), "images/s", "higher", baseline=about, runs=loop)
    metric(
        "start_seconds",
        median(starts),
        "s",
        "lower",
        baseline="from the call to the first batch, Ray being up: pool, imports, model",
        runs=starts,
    )


def plain_loop(job, folder):
    """Images per second of one process that generates the plan's images, with prompts encoded once, and writes PNG
    files."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    torch.set_num_threads(NUM_CORES)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spec = job.spec
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, use_safetensors=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    encoded = {}
    began = time.time()
    with torch.inference_mode():
        for start in range(0, len(job), BATCH):
            planned = [job.image(position) for position in range(start, start + BATCH)]
            for image in planned:
                if image.prompt not in encoded:
                    encoded[image.prompt] = pipeline.encode_prompt(image.prompt, "cpu", 1, True)
            images = pipeline(
                prompt_embeds=torch.cat([encoded[image.prompt][0] for image in planned]),
                negative_prompt_embeds=torch.cat([encoded[image.prompt][1] for image in planned]),
                guidance_scale=spec.guidance_scale,
                num_inference_steps=spec.num_inference_steps,
                generator=[torch.Generator("cpu").manual_seed(image.seed) for image in planned],
                output_type="np",
            ).images
            for image, pixels in zip(planned, images, strict=True):
                gray = (pixels * 255).round().astype(np.uint8).astype(np.float32).mean(axis=2).round().astype(np.uint8)
                (folder / f"{image.position:07d}.png").write_bytes(encode_image(gray, "png"))
    return len(job) / (time.time() - began)


def measure_script(root):
    settings = {"images_per_class": SCRIPT_IMAGES_PER_CLASS, "batch_size": BATCH, "images_per_shard": 250}
    ours, script = [], []
    for repeat in range(REPEATS):
        job, logs, _ = generate_clone(root / "runs", settings)
        ours.append(len(job) / (commits(job)[-1] - min(log[0, 0] for log in logs)))
        script.append(usual_script(root / "script", SCRIPT_IMAGES_PER_CLASS, BATCH))
        print(f"script {repeat}: raysd {ours[-1]:.1f}, script {script[-1]:.1f} images/s", flush=True)
    small = usual_script(root / "small", 2 * SMALL_BATCH, SMALL_BATCH)
    overrides = [
        f"storage={root / 'runs'}",
        f"generation.images_per_class={SCRIPT_IMAGES_PER_CLASS}",
        "evaluation.transfer_sets=[]",
    ]
    accuracy = {}
    for name, source in (("raysd", []), ("script", [f"training.real={root / 'script'}"])):
        experiment = load_experiment(CONFIG, overrides + source)
        commands.train(experiment)
        accuracy[name] = [row["value"] for row in commands.evaluate(experiment, COMMAND) if row["role"] == "test"]
    ratios = [one / other for one, other in zip(ours, script, strict=True)]
    about = f"diffusers pipeline, the checkpoint's scheduler, 50 steps, PNG files, {NUM_CORES} threads"
    metric(
        "speedup_vs_usual_script",
        median(ratios),
        "ratio",
        "higher",
        baseline=f"{about}, {BATCH} prompts a call",
        runs=ratios,
    )
    metric(
        "script_images_per_second",
        median(script),
        "images/s",
        "higher",
        baseline=f"{BATCH} prompts a call",
        runs=script,
    )
    metric(
        "script_images_per_second_small_batch",
        small,
        "images/s",
        "higher",
        baseline=f"{SMALL_BATCH} prompts a call",
        runs=[small],
    )
    metric(
        "raysd_images_per_second",
        median(ours),
        "images/s",
        "higher",
        baseline=f"sampler fast, {NUM_CORES} actors, batch {BATCH}",
        runs=ours,
    )
    for name, values in accuracy.items():
        size = (
            f"top-1 on 10,000 real test images, {SCRIPT_IMAGES_PER_CLASS} images a class, seed spread "
            f"{stdev(values):.2f}"
        )
        metric(f"{name}_clone_top1", mean(values), "percent", "higher", baseline=size, runs=values)


def usual_script(folder, images_per_class, batch):
    """Images per second of the script that one would write, and its images in a folder per class."""
    import torch
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(NUM_CORES)
    shutil.rmtree(folder, ignore_errors=True)
    table = Experiment().table
    pipeline = StableDiffusionPipeline.from_pretrained(EMBEDDED, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    began = time.time()
    for row in table.rows:
        place = folder / row["key"]
        place.mkdir(parents=True)
        for start in range(0, images_per_class, batch):
            images = pipeline([row["name"]] * batch, num_inference_steps=50, guidance_scale=2.0).images
            for number, image in enumerate(images, start):
                image.convert("L").save(place / f"{number:05d}.png")
    return len(table) * images_per_class / (time.time() - began)


def null_settings(num_actors, num_images, images_per_shard):
    shape = {
        "image_size": NULL_SIZE,
        "color": "rgb",
        "codec": "jpeg",
        "images_per_shard": images_per_shard,
        "batch_size": 16,
    }
    return {
        **shape,
        "images_per_class": num_images // 10,
        "num_actors": num_actors,
        "cpus_per_actor": min(1.0, NUM_CORES / num_actors),
    }


def measure_scale(root):
    for num_actors, shards in SCALE_ACTORS.items():
        num_images = num_actors * shards * SCALE_SHARD
        job, logs, began = generate_clone(
            root / "scale", null_settings(num_actors, num_images, SCALE_SHARD), NULL_SECONDS
        )
        firsts, last = np.array([log[0, 0] for log in logs]), commits(job)[-1]
        steady = len(job) * NULL_SECONDS / (last - firsts).sum()
        whole = len(job) * NULL_SECONDS / num_actors / (last - began)
        about = f"{num_actors} null actors of {1 / NULL_SECONDS:g} images/s, {len(job)} images of {NULL_SIZE} px"
        note = f"share of the ideal throughput from each actor's first batch to the last commit; {about}"
        metric(f"scaling_efficiency_{num_actors}_actors", steady, "ratio", "higher", baseline=note, runs=[steady])
        note = f"the same with the start of the actors, a run of {last - began:.0f} s; {about}"
        metric(
            f"scaling_efficiency_{num_actors}_actors_with_start", whole, "ratio", "higher", baseline=note, runs=[whole]
        )
        metric(
            f"start_seconds_{num_actors}_actors",
            firsts.max() - began,
            "s",
            "lower",
            baseline=f"until the last actor generates; {about}",
        )


def measure_memory(root):
    generate_clone(root / "memory", null_settings(NUM_CORES, MEMORY_IMAGES // 10, 250), 0.0)
    small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    job, logs, began = generate_clone(root / "memory", null_settings(NUM_CORES, MEMORY_IMAGES, 250), 0.0)
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = commits(job)[-1] - began
    tenth, ends = [log[len(log) // 10, 3] / 1024 for log in logs], [log[-1, 3] / 1024 for log in logs]
    about = f"{len(job)} null images of {NULL_SIZE} px in {seconds:.0f} s, {NUM_CORES} actors"
    metric("driver_peak_mb_200k", driver, "MB", "lower", baseline=about)
    metric("driver_peak_mb_20k", small, "MB", "lower", baseline="the same driver after a tenth of the images")
    metric("actor_peak_mb_200k", max(ends), "MB", "lower", baseline=about, runs=ends)
    metric(
        "actor_peak_mb_20k", max(tenth), "MB", "lower", baseline="the same actors after a tenth of the run", runs=tenth
    )
    metric(
        "null_images_per_second",
        len(job) / seconds,
        "images/s",
        "higher",
        baseline=f"encoded and committed; {about}",
    )


def measure_scan(root):
    from raysd.storage.location import Location

    settings = GenerationSettings(images_per_class=SCAN_SHARDS, images_per_shard=10)
    experiment = Experiment(generation=settings)
    job = plan_clone(
        Location(str(root / "scan")), resolve_clone_spec(settings, experiment.table, experiment.all_variants), settings
    )
    small, _, _ = generate_clone(root / "one", null_settings(1, 10, 10), 0.0)
    shard = Path(small.folder.path, "data", shard_name(0)).read_bytes()
    data = Path(job.folder.path, "data")
    shutil.rmtree(root / "scan", ignore_errors=True)
    data.mkdir(parents=True)
    planned = [job.counts.to_json()]
    job.folder.write("clone.json", json.dumps({"planned": planned, "images_per_shard": 10}).encode())
    lost = sorted(random.Random(0).sample(range(SCAN_SHARDS), 1000))
    for number in sorted(set(range(SCAN_SHARDS)) - set(lost)):
        (data / shard_name(number)).write_bytes(shard)
    runs = []
    for _ in range(REPEATS):
        began = time.time()
        assert missing_shards(job).tolist() == lost
        runs.append(time.time() - began)
    metric(
        "resume_scan_seconds_100k_shards",
        median(runs),
        "s",
        "lower",
        baseline="local disk, 1,000 of the shards missing",
        runs=runs,
    )
    shutil.rmtree(root / "scan")
    settings = GenerationSettings(images_per_class=10_000_000)
    spec = resolve_clone_spec(settings, experiment.table, experiment.all_variants)
    began = time.time()
    job = plan_clone(Location(str(root / "plan")), spec, settings)
    assert len(missing_shards(job)) == job.num_shards
    metric(
        "plan_seconds_100m_images", time.time() - began, "s", "lower", baseline="plan and first scan of an empty folder"
    )
    tracemalloc.start()
    missing_shards(plan_clone(Location(str(root / "plan")), spec, settings))
    metric(
        "plan_mb_100m_images",
        tracemalloc.get_traced_memory()[1] / 2**20,
        "MB",
        "lower",
        baseline="the most memory that the same takes",
    )


def measure_shards(root):
    """All shards wait in the pool's line at once, which holds a little more."""
    peaks = []
    for count in (FEW_SHARDS, NUM_SHARDS):
        job, *_ = generate_clone(root, {**null_settings(NUM_CORES, count, 1), "batch_size": 1}, 0.0)
        ended, times = time.time(), commits(job)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    about = f"{NUM_SHARDS:,} shards of one null image that wait at once, {NUM_CORES} actors, local disk"
    metric("null_shards_per_second", len(times) / (times[-1] - times[0]), "shards/s", "higher", baseline=about)
    metric("null_shards_check_seconds", ended - times[-1], "s", "lower", baseline=f"reading all of them back; {about}")
    per_shard = (peaks[1] - peaks[0]) / (NUM_SHARDS - FEW_SHARDS)
    note = (
        f"the driver's peak of {peaks[1] / 1024:.0f} MB over that of {FEW_SHARDS} shards, {peaks[0] / 1024:.0f} "
        f"MB; {about}"
    )
    metric("driver_kb_per_waiting_shard", per_shard, "kB", "lower", baseline=note)


PARTS = {
    "loop": measure_loop,
    "script": measure_script,
    "scale": measure_scale,
    "memory": measure_memory,
    "scan": measure_scan,
    "shards": measure_shards,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is generated; it is deleted in the end")
    parser.add_argument("--part", choices=PARTS)
    arguments = parser.parse_args()
    storage = Path(arguments.storage).resolve()
    if arguments.part:
        PARTS[arguments.part](storage / arguments.part)
        shutil.rmtree(storage / arguments.part)
    else:
        for part in PARTS:
            subprocess.run([sys.executable, __file__, "--storage", str(storage), "--part", part], check=True)
