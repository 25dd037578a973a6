"""raysd on a GPU: python benchmarks/gpu.py --storage <an empty folder>

Four parts, each in a process of its own with a limit of its own, eight minutes together; `--part` runs one of them:

- `correctness`: a clone of the embedded model on the GPU against the CPU's, byte for byte against itself with other
  shards and with half a GPU, in half precision, compiled; the safety checker; training and evaluation; doctor,
  benchmark and plan.
- `speed`: Stable Diffusion 1.5 at 512 px and SDXL at 1024 px, with random weights: against the best plain loop of
  diffusers with the same settings, against the script that one would write, where the time goes, memory.
- `augmentation`: the paper recipe at 224 px.
- `options`: what could make a batch faster, each alone against the same without it; more of them with `--seconds`.

A step that fails, or takes too long, is recorded as such, and the others go on. `--tiny` runs every step on a CPU with
tiny models, to try the script; nothing of that is recorded. The folder needs 10 GB of room, best in memory.
"""

import argparse
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import record

COMMAND = "python benchmarks/gpu.py"
ROOT = Path(__file__).parent.parent
PARTS = {"correctness": 125, "speed": 215, "augmentation": 15, "options": 120}  # seconds
TINY_SECONDS = 1200
TOLERANCE = {"float32": 1.0, "float16": 4.0, "bfloat16": 8.0}  # mean difference from the CPU's images, of 255 levels
SIZES = {"sd15": (512, 32, 5), "sdxl": (1024, 5, 4)}  # pixels, images of a batch, batches with that of the warm-up
TINY_SIZES = {"sd15": (32, 2, 5), "sdxl": (32, 2, 5)}
USUAL_IMAGES = 3
GUIDANCE = 2.0


@dataclass(frozen=True)
class Bench:
    """What all steps of a part share."""

    storage: Path
    tiny: bool
    ends: float

    @property
    def gpus(self) -> float:
        return 0 if self.tiny else 1

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one step; None where it failed or ran out of time, which is recorded."""
        left, began = self.ends - time.monotonic(), time.monotonic()
        try:
            if left <= 1:
                raise TimeoutError("no time was left")
            with alarm(left):
                answer = function(*arguments)
            print(f"    {name}: {time.monotonic() - began:.1f} s", flush=True)
            return answer
        except Exception as error:
            traceback.print_exc()
            check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300])
            return None
        finally:
            free_memory()


def free_memory() -> None:
    """Give the GPU's memory back that the last step left."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def alarm(seconds: float):
    """Raise TimeoutError in the block after so many seconds."""

    def ring(*_):
        raise TimeoutError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def metric(name: str, value: float, unit: str, better: str = "higher", about: str = "", runs: Any = ()) -> None:
    entry = record.metric(f"gpu_{name}", value, unit, better, COMMAND, about, runs)
    record.write("gpu", [{**entry, **card()}])


def check(name: str, passed: bool, about: str = "") -> None:
    """Record whether something is as it should be: 1 if it is, else 0."""
    metric(f"check_{name}", float(passed), "1 = as it should be", about=about)


def card() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"device": "CPU"}
    properties = torch.cuda.get_device_properties(0)
    return {"device": f"{properties.name}, {properties.total_memory / 1e9:.0f} GB", "cuda": torch.version.cuda}


# Correctness.


def correctness(bench: Bench) -> None:
    sizes = {"images_per_class": 100, "images_per_shard": 250, "batch_size": 50, "num_inference_steps": 10}
    if bench.tiny:
        sizes = {"images_per_class": 3, "images_per_shard": 20, "batch_size": 10, "num_inference_steps": 2}
    one = {"num_actors": 1, "gpus_per_actor": bench.gpus}
    many = {"num_actors": 1 if bench.tiny else 4, "cpus_per_actor": 1 if bench.tiny else 4, "gpus_per_actor": 0}

    def clone(name, **settings):
        return made_clone(bench.storage / name, {**sizes, **one, **settings})

    cpu = bench.step("cpu_clone", partial(clone, "cpu", **many))
    gpu = bench.step("float32_clone", partial(clone, "gpu"))
    if gpu is None:
        return
    if cpu is not None:
        compare("float32", cpu, gpu)
    same_bytes(bench, "same_bytes_twice", gpu, partial(clone, "again"))
    other = {"images_per_shard": sizes["images_per_shard"] // 4 + 1}
    same_bytes(bench, "same_bytes_in_other_batches", gpu, partial(clone, "shards", **other))
    half = {"gpus_per_actor": 0.5 * bench.gpus, "num_actors": 1 if bench.tiny else 2}
    same_bytes(bench, "same_bytes_on_half_a_gpu", gpu, partial(clone, "half", **half))
    for dtype in ("bfloat16",) if bench.tiny else ("float16", "bfloat16"):
        made = bench.step(f"{dtype}_clone", partial(clone, dtype, dtype=dtype))
        if made is not None and cpu is not None:
            compare(dtype, cpu, made)
    bench.step("safety_checker", safety, bench, one)
    bench.step("training_and_evaluation", training, bench, {**sizes, **one})
    bench.step("doctor_benchmark_plan", advice, bench, {**sizes, **one})
    for how in ("regional",) if bench.tiny else (True, "regional"):
        name = f"compile_{how}".lower()
        made = bench.step(f"{name}_clone", partial(clone, name, compile=how))
        if made is not None:
            compare(f"{name}", gpu, made, "float32")
    if made is not None:
        same_bytes(bench, "same_bytes_compiled_regional", made, partial(clone, "compiled_again", compile="regional"))


def made_clone(storage, settings):
    """The bytes of a clone's images, by label and index; Ray's actors generate it."""
    import pyarrow.parquet as pq

    import raysd

    made = raysd.generate({"storage": str(storage), "generation": settings})
    table = pq.read_table(Path(made.path, "data"), columns=["label", "index", "image"])
    assert table.num_rows == made.num_images
    return {(row["label"], row["index"]): row["image"]["bytes"] for row in table.to_pylist()}


def compare(name, one, other, dtype=None):
    """Record how far the images of two clones are apart, and whether that is within the tolerance."""
    apart = [np.abs(decoded(data) - decoded(other[place])) for place, data in one.items()]
    mean, largest = float(np.mean(apart)), float(np.max(apart))
    tolerance = TOLERANCE[dtype or name]
    about = f"mean difference of {mean:.3f} of 255 levels, {tolerance:g} allowed; the largest {largest:.0f}"
    check(f"{name}_as_{'float32' if dtype else 'on_the_cpu'}", mean <= tolerance, f"{about}; {len(one)} images")


def decoded(data):
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data))).astype(np.int16)


def same_bytes(bench, name, images, make):
    made = bench.step(name, make)
    if made is not None:
        wrong = sum(made.get(place) != data for place, data in images.items())
        check(name, not wrong, f"{wrong} of {len(images)} images differ")


def safety(bench, one):
    """A checker that flags everything: images are kept with their flag, and black."""
    import pyarrow.parquet as pq
    import torch
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    import raysd

    tower = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 1}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=32))
    checker.concept_embeds_weights.data = torch.full_like(checker.concept_embeds_weights, -2)
    pipeline = tiny_models().sd1()
    pipeline.register_modules(safety_checker=checker, feature_extractor=CLIPImageProcessor(size=32, crop_size=32))
    pipeline.save_pretrained(bench.storage / "checked")
    settings = {"model": str(bench.storage / "checked"), "images_per_class": 1, "batch_size": 4, "flagged": "keep"}
    if bench.tiny:
        settings |= {"dtype": "float32"}
    made = raysd.generate(
        {
            "storage": str(bench.storage / "safety"),
            "generation": {**settings, **one, "num_inference_steps": 2, "image_size": 32},
        }
    )
    rows = pq.read_table(Path(made.path, "data")).to_pylist()
    flagged = [row["flag"] == "unsafe" and decoded(row["image"]["bytes"]).max() <= 2 for row in rows]
    check("safety_checker", all(flagged), f"{sum(flagged)} of {len(flagged)} images are flagged and black")


def training(bench, settings):
    """Two epochs on the clone, with the augmentation of the paper, and an evaluation on real images."""
    import raysd

    experiment = {
        "storage": str(bench.storage / "gpu"),
        "generation": settings,
        "training": {
            "recipe": "paper",
            "recipe_options": {"num_fractals": 16},
            "num_epochs": 2,
            "num_workers": 1,
            "batch_size": 10 if bench.tiny else 50,
            "logger": "none",
        },
        "evaluation": {"test_set": "digits" if bench.tiny else "fashion_mnist", "transfer_sets": []},
    }
    if bench.tiny:
        experiment["training"] |= {"image_size": 16, "num_steps": 2}
        experiment["training"] |= {"backbone_options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}}
        experiment["evaluation"]["test_set"] = None
        experiment["evaluation"]["transfer_sets"] = [{"name": "digits", "shots": 2, "probe": {"kind": "knn"}}]
    began = time.monotonic()
    raysd.train(experiment)
    seconds = time.monotonic() - began
    rows = list(raysd.evaluate(experiment, COMMAND))
    value = max(row["value"] for row in rows)
    check("training_and_evaluation", value > 15, f"best figure {value:.1f} %, guessing has 10; trained {seconds:.0f} s")


def advice(bench, settings):
    import raysd

    experiment = {"storage": str(bench.storage / "gpu"), "generation": settings}
    failures = raysd.doctor(experiment)
    check("doctor", not failures, "; ".join(map(str, failures)) or "no failures")
    with patch("raysd.generation.throughput.measure_rates.__defaults__", (0.0 if bench.tiny else 2.0, 2, False)):
        (row,) = raysd.benchmark(experiment)
    known = card()["device"].split(",")[0]
    check("benchmark", row["device"].startswith(known), f"{row['images_per_second']:.1f} images/s on {row['device']}")
    lines = raysd.plan(experiment).cost
    check("plan", any("measured" in line and known in line for line in lines), " | ".join(lines))


# Speed at full size.


def speed(bench: Bench) -> None:
    sizes = TINY_SIZES if bench.tiny else SIZES
    folders = {name: bench.step(f"make_{name}", make_checkpoint, bench, name) for name in sizes}
    for name, folder in folders.items():
        if folder is None:
            continue
        ours = bench.step(f"raysd_{name}", measure_raysd, bench, name, folder)
        loop = bench.step(f"loop_{name}", plain_loop, bench, name, folder)
        usual = bench.step(f"usual_{name}", usual_script, bench, name, folder)
        if ours and loop:
            metric(f"efficiency_{name}", ours / loop, "ratio", about=f"raysd {ours:.3g}, best plain loop {loop:.3g}")
        if ours and usual:
            about = f"raysd {ours:.3g}, 50 steps with a prompt a call and PNG {usual:.3g} images/s"
            metric(f"speedup_usual_{name}", ours / usual, "ratio", about=about)
        bench.step(f"shares_{name}", shares, bench, name, folder)
        if ours:
            bench.step(f"flops_{name}", flop_share, bench, name, folder, ours)


def tiny_models():
    sys.path.insert(0, str(ROOT / "tests"))
    import tiny_models

    return tiny_models


def make_checkpoint(bench, name):
    """A folder with random weights in half precision, made on the GPU; tiny ones in float32."""
    import torch

    folder = bench.storage / name
    if folder.is_dir():
        return folder
    part = bench.storage / f"{name}.part"  # it gets its name when it is whole
    torch.manual_seed(0)
    if bench.tiny:
        models = tiny_models()
        (models.sd1() if name == "sd15" else models.sdxl()).save_pretrained(part)
        return part.rename(folder)
    import memory

    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("cuda"):
            kind, parts = memory.models(name)
    finally:
        torch.set_default_dtype(torch.float32)
    scheduler, tokens, rest = memory.OTHERS[name]
    kind(**parts, **memory.tokenizers(**tokens), scheduler=scheduler(), **rest).save_pretrained(part)
    return part.rename(folder)


def settings_of(bench, name, folder):
    size, batch, batches = (TINY_SIZES if bench.tiny else SIZES)[name]
    settings = {
        "model": str(folder),
        "image_size": size,
        "guidance_scale": GUIDANCE,
        "flagged": "keep",  # random weights may give black images
        "batch_size": batch,
        "images_per_shard": batch,
        "images_per_class": batch * batches // 10,  # of ten classes
        "num_actors": 1,
        "gpus_per_actor": bench.gpus,
    }
    return {**settings, **({"dtype": "float32", "num_inference_steps": 2} if bench.tiny else {})}


def spec_of(settings):
    from raysd.config import load_experiment
    from raysd.resolve import clone_spec_of

    return clone_spec_of(load_experiment({"generation": settings}))


def batch_of(spec, count, start=0):
    from raysd.clone.plan import ImageCounts, Plan

    plan = Plan(spec, ImageCounts(len(spec.table), 10**6), count)
    return [plan.image(position) for position in range(start, start + count)]


class Card:
    """The GPU's use and memory, four times a second while a block runs."""

    def __enter__(self):
        command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        self.process = None
        if shutil.which(command[0]):
            self.process = subprocess.Popen([*command, "-lms", "250"], stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        self.use, self.megabytes = [], []
        if self.process is not None:
            self.process.terminate()
            rows = [line.split(",") for line in self.process.communicate()[0].splitlines()]
            rows = [row for row in rows if len(row) == 2 and all(cell.strip().isdigit() for cell in row)]
            self.use, self.megabytes = [int(row[0]) for row in rows], [int(row[1]) for row in rows]


def measure_raysd(bench, name, folder):
    """Images a second of one actor from the end of its first batch to the last commit."""
    from generation import commits, generate_clone

    from raysd.generation.memory import actor_memory

    settings = settings_of(bench, name, folder)
    with Card() as card:
        job, (log,), began = generate_clone(bench.storage / f"raysd_{name}", settings)
    first_end, last = log[0, 1], commits(job)[-1]
    rate = log[1:, 2].sum() / (last - first_end)
    about = f"batches of {settings['batch_size']}, {job.spec.image_size} px, {job.spec.num_inference_steps} steps, "
    about += f"{job.spec.dtype}, {job.spec.codec}"
    metric(f"raysd_{name}_images_per_second", rate, "images/s", about=about)
    metric(f"start_{name}_seconds", log[0, 0] - began, "s", "lower", "from the call to the first batch; Ray was up")
    idle = 1 - (log[1:, 1] - log[1:, 0]).sum() / (last - first_end)
    metric(f"idle_share_{name}", idle, "share", "lower", "of the time after the first batch; no batch was in work")
    if card.megabytes:
        steady = card.use[-int(4 * (last - first_end)) :]
        metric(f"busy_share_{name}", np.mean(steady) / 100, "share", about="nvidia-smi's utilization, after the start")
        estimate = actor_memory(job.spec, settings["batch_size"]).on_gpu / 1e9
        about = f"doctor's estimate is {estimate:.1f} GB; by nvidia-smi, less what was taken before"
        peak = (max(card.megabytes) - card.megabytes[0]) * 2**20 / 1e9
        metric(f"peak_gb_{name}", peak, "GB", "lower", about)
    return rate


def load_pipeline(bench, folder):
    import torch
    from diffusers import DiffusionPipeline

    dtype = torch.float32 if bench.tiny else torch.float16
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cpu" if bench.tiny else "cuda")


def plain_loop(bench, name, folder):
    """Images a second of the best plain loop: prompts encoded once, channels last, the same solver and codec."""
    import torch
    from diffusers import DPMSolverMultistepScheduler

    from raysd.clone.shard import encode_image
    from raysd.diffusion.family import EMBEDDINGS

    settings = settings_of(bench, name, folder)
    spec, size = spec_of(settings), settings["batch_size"]
    pipeline = load_pipeline(bench, folder)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.unet.to(memory_format=torch.channels_last)
    names, encoded, count, began = EMBEDDINGS[type(pipeline).__name__], {}, 0, 0.0
    place = bench.storage / f"loop_{name}"
    place.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for number in range(SIZES[name][2]):
            planned = batch_of(spec, size, number * size)
            for prompt in {image.prompt for image in planned} - set(encoded):
                encoded[prompt] = pipeline.encode_prompt(
                    prompt=prompt, device=pipeline.device, num_images_per_prompt=1, do_classifier_free_guidance=True
                )
            given = zip(*(encoded[image.prompt] for image in planned), strict=True)
            images = pipeline(
                **{key: torch.cat(parts) for key, parts in zip(names, given, strict=True)},
                guidance_scale=GUIDANCE,
                num_inference_steps=spec.num_inference_steps,
                height=spec.image_size,
                width=spec.image_size,
                generator=[torch.Generator("cpu").manual_seed(image.seed) for image in planned],
                output_type="np",
            ).images
            for image, pixels in zip(planned, images, strict=True):
                data = (np.nan_to_num(pixels) * 255).round().astype(np.uint8)
                (place / f"{image.position}.{spec.codec}").write_bytes(encode_image(data, spec.codec))
            if number == 0:
                began = time.monotonic()
            else:
                count += size
    return count / (time.monotonic() - began)


def usual_script(bench, name, folder):
    """Images a second of the script that one would write: 50 steps, a prompt a call, PNG."""
    spec, pipeline, began = spec_of(settings_of(bench, name, folder)), load_pipeline(bench, folder), 0.0
    steps = 2 if bench.tiny else 50
    for number in range(USUAL_IMAGES + 1):  # the first is the warm-up
        began = time.monotonic() if number == 1 else began
        images = pipeline(
            "a photo of a dog",
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            height=spec.image_size,
            width=spec.image_size,
        ).images
        images[0].save(bench.storage / f"usual_{number}.png")
    return USUAL_IMAGES / (time.monotonic() - began)


def synchronize():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Parts:
    """Seconds of some functions."""

    def __init__(self):
        self.seconds = {}

    def watched(self, name, function):
        def call(*arguments, **options):
            synchronize()
            began = time.perf_counter()
            answer = function(*arguments, **options)
            synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
            return answer

        return call


def shares(bench, name, folder):
    """Where the time of a batch goes, with the GPU waited for after each call of a model."""
    from raysd.clone.shard import encode_image
    from raysd.generation import pipeline as module

    settings, parts = settings_of(bench, name, folder), Parts()
    spec = spec_of(settings)
    generator = module.Generator(spec)
    images = batch_of(spec, settings["batch_size"])
    generator.generate(spec, images)
    generator.denoiser.forward = parts.watched("denoiser", generator.denoiser.forward)
    generator.pipeline.vae.decode = parts.watched("vae", generator.pipeline.vae.decode)
    with patch.object(module, "finish_pixels", parts.watched("finish", module.finish_pixels)):
        batch = parts.watched("batch", generator.generate)(spec, images)
    began = time.perf_counter()
    for pixels in batch.pixels:
        encode_image(pixels, spec.codec)
    encoding = time.perf_counter() - began
    whole = parts.seconds.pop("batch")
    about = f"of a batch of {len(images)}, {whole:.2f} s"
    for part, seconds in parts.seconds.items():
        metric(f"share_{part}_{name}", seconds / whole, "share", "lower", about)
    rest = 1 - sum(parts.seconds.values()) / whole
    metric(f"share_rest_{name}", rest, "share", "lower", f"noise, solver, copies; {about}")
    metric(f"share_encode_{name}", encoding / whole, "share", "lower", f"of one thread beside the next batch; {about}")


def flop_share(bench, name, folder, rate):
    import yaml

    from raysd.generation.cost import GPUS, same_device
    from raysd.generation.fake_run import count_flops

    spec = spec_of(settings_of(bench, name, folder))
    step, decoding = count_flops(spec)
    per_image = step * spec.num_inference_steps + decoding
    table = yaml.safe_load(GPUS.read_text())
    known = card()["device"].split(",")[0]
    peaks = [row["tflops"] for row in table["gpus"] if same_device(row["device"], known)]
    about = f"{per_image / 1e12:.3g} TFLOP an image; the card's limit is {peaks or 'not known'} TFLOP/s"
    metric(f"tflops_{name}", rate * per_image / 1e12, "TFLOP/s", about=about)
    if peaks:
        metric(f"flop_share_{name}", rate * per_image / 1e12 / peaks[0], "share", about=about)


# Augmentation.


def augmentation(bench: Bench) -> None:
    bench.step("augmentation", measure_augmentation, bench)


def measure_augmentation(bench):
    import torch

    from raysd.training.augmentation import augment, fractals
    from raysd.training.recipe import built_in_recipes

    device = torch.device("cpu" if bench.tiny else "cuda")
    size, count, repeats = (32, 8, 2) if bench.tiny else (224, 256, 10)
    recipe = built_in_recipes()["paper"]
    images = torch.randint(0, 256, (count, 3, size * 8 // 7, size * 8 // 7), dtype=torch.uint8, device=device)
    mixing = torch.from_numpy(fractals(8, size, 0)).to(device)
    generator, rates = torch.Generator().manual_seed(0), []
    for number in range(repeats + 1):
        synchronize()
        began = time.perf_counter()
        augment(images, recipe, generator, size, mixing, batched=True)
        synchronize()
        if number:
            rates.append(count / (time.perf_counter() - began))
    about = f"the paper recipe, 1 + 8 views of each image at {size} px, batches of {count}"
    metric("augmentation_images_per_second", median(rates), "images/s", about=about, runs=rates)


# Options.


def contiguous(generator):
    import torch

    generator.denoiser.to(memory_format=torch.contiguous_format)


def channels_last_vae(generator):
    import torch

    generator.pipeline.vae.to(memory_format=torch.channels_last)


def fused_qkv(generator):
    generator.denoiser.fuse_qkv_projections()


def unsliced_vae(generator):
    generator._set_slicing = lambda spec: None
    generator.pipeline.vae.use_slicing = False


def regional(generator):
    generator._compile(replace(generator.spec, compile="regional"))


def regional_attention(generator):
    """Without the blocks of convolutions, as diffusers has it."""
    for block in generator.denoiser.modules():
        if type(block).__name__ == "BasicTransformerBlock":
            block.compile(dynamic=False)


def compiled_vae(generator):
    import torch

    generator.pipeline.vae.decoder.forward = torch.compile(generator.pipeline.vae.decoder.forward, dynamic=False)


def whole(generator):
    generator._compile(replace(generator.spec, compile=True))


QUICK = [channels_last_vae, fused_qkv, regional]
SLOW = [contiguous, unsliced_vae, regional_attention, whole, compiled_vae]


def options(bench: Bench) -> None:
    import torch

    if bench.tiny:  # compilers for CPUs take minutes
        torch.compile = partial(torch.compile, backend="eager")
    for changes in (QUICK, SLOW):
        for name in SIZES:
            folder = bench.step(f"make_{name}", make_checkpoint, bench, name)
            for change in changes:
                if folder is not None:
                    torch.compiler.reset()
                    bench.step(f"option_{change.__name__}_{name}", measure_option, bench, name, folder, change)


def measure_option(bench, name, folder, change):
    """Seconds of a batch with the change, against those of the same generator before it, and how far images are
    apart."""
    from raysd.generation.pipeline import Generator

    settings = {**settings_of(bench, name, folder), "num_inference_steps": 2 if bench.tiny else 4}
    spec = spec_of(settings)
    generator = Generator(spec)
    generator.spec = spec  # for those that compile
    images = batch_of(spec, settings["batch_size"])
    generator.generate(spec, images)
    before, plain = seconds_of(generator, spec, images)
    change(generator)
    first, _ = seconds_of(generator, spec, images, 1)
    after, changed = seconds_of(generator, spec, images)
    apart = np.abs(plain.astype(np.int16) - changed.astype(np.int16))
    about = (
        f"a batch of {len(images)} in {spec.num_inference_steps} steps: {after:.2f} s with it, {before:.2f} s before; "
    )
    about += f"the first takes {first:.1f} s; images {apart.mean():.2f} levels apart, at the most {apart.max()}"
    metric(f"option_{change.__name__}_{name}", before / after, "ratio", about=about)


def seconds_of(generator, spec, images, repeats=2):
    runs = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        batch = generator.generate(spec, images)
        synchronize()
        runs.append(time.perf_counter() - began)
    return min(runs), batch.pixels


FUNCTIONS = {
    "correctness": correctness,
    "speed": speed,
    "augmentation": augmentation,
    "options": options,
}


def run_part(part: str, storage: Path, tiny: bool, out: Path, seconds: float) -> None:
    """Run a part in a process group of its own, which is ended after so many seconds."""
    command = [sys.executable, __file__, "--storage", str(storage), "--out", str(out), "--part", part, "--inner"]
    command += ["--tiny"] if tiny else []
    process = subprocess.Popen(
        [*command, "--seconds", str(seconds)], start_new_session=True, env={**os.environ, "PYTHONPATH": python_path()}
    )
    try:
        process.wait(seconds + 15)
    except subprocess.TimeoutExpired:
        print(f"{part} was ended after {seconds:.0f} s", flush=True)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def python_path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def print_table(out: Path) -> None:
    rows = json.loads((out / "gpu.json").read_text()) if (out / "gpu.json").is_file() else []
    for row in rows:
        print(f"{row['metric']:<48} {row['value']:>12g} {row['unit']:<20} {row['baseline']}")
    if rows:
        print(rows[0].get("device"), rows[0]["versions"], sep="; ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for what is made; it is deleted in the end")
    parser.add_argument("--part", choices=PARTS, help="only this one")
    parser.add_argument("--tiny", action="store_true", help="tiny models on the CPU; nothing is recorded")
    parser.add_argument("--out", help="folder of gpu.json; benchmarks/results when left out")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help="limit of each part, in the place of its own")
    given = parser.parse_args()
    root = Path(given.storage).resolve()
    root.mkdir(parents=True, exist_ok=True)
    results = Path(given.out or (tempfile.mkdtemp() if given.tiny else record.RESULTS)).resolve()
    results.mkdir(parents=True, exist_ok=True)
    if given.inner:
        record.RESULTS = results
        if given.tiny:
            import torch

            torch.set_num_threads(1)  # as an actor's
        FUNCTIONS[given.part](Bench(root, given.tiny, time.monotonic() + given.seconds))
        sys.stdout.flush()
        sys.exit()
    for each in [given.part] if given.part else PARTS:
        run_part(each, root, given.tiny, results, given.seconds or (TINY_SECONDS if given.tiny else PARTS[each]))
    print_table(results)
    shutil.rmtree(root, ignore_errors=True)
