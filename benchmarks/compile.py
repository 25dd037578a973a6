"""What compiling a denoiser costs at the start and gains afterwards: python benchmarks/compile.py --storage <an empty
folder>

A U-Net of blocks as Stable Diffusion's, but two levels and narrower, random weights, on one thread of a CPU. Three
sides: not compiled, `compile: true`, `compile: regional`. Each side runs in a process of its own with an empty cache of
compiled code, then in a second process that finds the first one's cache, as the second actor of a node does. The sides
alternate. Processor time is counted, so that other work on the machine counts little.
"""

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

import record

COMMAND = "python benchmarks/compile.py"
SIDES = {"eager": "false", "whole": "true", "regional": "regional"}
WIDTHS = (64, 128)
SIZE, BATCH, STEPS, BATCHES = 128, 4, 2, 5
ABOUT = (
    f"processor time of one thread; a U-Net of two levels, {' and '.join(map(str, WIDTHS))} channels, two layers each, "
    f"{SIZE} px, batch {BATCH}, {STEPS} steps, float32"
)


def make_checkpoint(folder):
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from raysd.diffusion.checkpoint import EMBEDDED

    torch.manual_seed(0)
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(EMBEDDED / "text_encoder"))
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=WIDTHS,
        cross_attention_dim=text.config.hidden_size,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=down, up_block_types=up, block_out_channels=(8,) * 4, norm_num_groups=8, sample_size=SIZE
        ),
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer"),
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def measure(folder, side):
    """Seconds of the first batch beside a later one, and of a later batch; printed as JSON."""
    import torch

    from raysd.clone.plan import ImageCounts, Plan
    from raysd.generation.pipeline import Generator
    from raysd.resolve import clone_spec_of

    torch.set_num_threads(1)
    spec = clone_spec_of(load(folder, side))
    generator = Generator(spec)
    plan = Plan(spec, ImageCounts(len(spec.table), 10), BATCH)
    images, times = [plan.image(position) for position in range(BATCH)], [processor_time()]
    for _ in range(BATCHES + 1):
        generator.generate(spec, images)
        times.append(processor_time())
    seconds = [after - before for before, after in itertools.pairwise(times)]
    later = median(seconds[1:])
    print(json.dumps({"start": seconds[0] - later, "batch": later}))


def processor_time():
    """Seconds of this process and of the compilers that it has started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def load(folder, side):
    from raysd.config import load_experiment

    words = [f"generation.model={folder}", "generation.dtype=float32", f"generation.image_size={SIZE}"]
    words += [f"generation.num_inference_steps={STEPS}", f"generation.compile={SIDES[side]}"]
    return load_experiment(None, words)


def run(storage, side, cache):
    """What `measure` prints in a process of its own."""
    command = [sys.executable, __file__, "--storage", str(storage), "--side", side]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(finished.stdout.splitlines()[-1])
    print(side, {name: round(value, 2) for name, value in found.items()}, flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="a folder for the checkpoint and the caches; it is deleted")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = Path(arguments.storage).resolve()
    if arguments.side:
        measure(root / "model", arguments.side)
        sys.exit()
    make_checkpoint(root / "model")
    first, second = {side: [] for side in SIDES}, {side: [] for side in SIDES}
    for _ in range(arguments.repeats):
        for side in SIDES:
            shutil.rmtree(root / "cache", ignore_errors=True)
            first[side].append(run(root, side, root / "cache"))
            second[side].append(run(root, side, root / "cache"))
    metrics = []
    for side in ("whole", "regional"):
        for name, found in (("start", first), ("start_cached", second)):
            note = "the first batch, beside what a later one takes; " + (
                "no compiled code in the cache" if name == "start" else "the code of an earlier process in the cache"
            )
            runs = [one["start"] for one in found[side]]
            metrics.append(
                record.metric(
                    f"compile_{side}_{name}_seconds", median(runs), "s", "lower", COMMAND, f"{note}; {ABOUT}", runs
                )
            )
        runs = [
            eager["batch"] / one["batch"]
            for before, after in ((first["eager"], first[side]), (second["eager"], second[side]))
            for eager, one in zip(before, after, strict=True)
        ]
        note = f"later batches, against the same without compiling; {ABOUT}"
        metrics.append(record.metric(f"compile_{side}_speedup", median(runs), "ratio", "higher", COMMAND, note, runs))
    record.write("compile", metrics)
    shutil.rmtree(root)
