"""What compiling a denoiser costs at the start and gains afterwards: python benchmarks/compile.py --storage <an empty
folder>

Two denoisers with random weights, on one thread of a CPU: a U-Net of blocks as Stable Diffusion's, but two levels and
narrower, and a transformer of eight blocks as PixArt's. Three sides: not compiled, `compile: true`, `compile:
regional`. Each side runs in a process of its own with an empty cache of compiled code, then in a second process that
finds the first one's cache, as the second actor of a node does. The sides alternate. Processor time is counted, so that
other work on the machine counts little.
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
SIZE, BATCH, STEPS, BATCHES = 32, 4, 2, 5
ABOUT = f"processor time of one thread; {SIZE} px, batch {BATCH}, {STEPS} steps, float32"
MODELS = {
    "transformer": "a transformer of eight blocks, 128 channels",
    "unet": f"a U-Net of two levels, {' and '.join(map(str, WIDTHS))} channels, two layers each",
}


def make_checkpoint(name, folder):
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import tiny_models

    torch.manual_seed(0)
    pipeline = tiny_models.sd1() if name == "unet" else tiny_models.pixart()
    config = dict(pipeline.components["unet" if name == "unet" else "transformer"].config)
    if name == "unet":
        wide = {"block_out_channels": WIDTHS, "layers_per_block": 2, "attention_head_dim": 8, "norm_num_groups": 32}
        pipeline.register_modules(unet=type(pipeline.unet)(**{**config, **wide}))
    else:
        wide = {"num_layers": 8, "num_attention_heads": 4, "attention_head_dim": 32, "cross_attention_dim": 128}
        pipeline.register_modules(transformer=type(pipeline.transformer)(**{**config, **wide}))
    pipeline.save_pretrained(folder)


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


def compare(model, storage, repeats):
    """The metrics of one model."""
    first, second = {side: [] for side in SIDES}, {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            shutil.rmtree(storage / "cache", ignore_errors=True)
            first[side].append(run(storage, side, storage / "cache"))
            second[side].append(run(storage, side, storage / "cache"))
    about = f"{MODELS[model]}; {ABOUT}"
    for side in ("whole", "regional"):
        for name, found in (("start", first), ("cached_start", second)):
            cache = (
                "no compiled code in the cache" if name == "start" else "an earlier process left its code in the cache"
            )
            runs = [one["start"] for one in found[side]]
            note = f"the first batch, less what a later one takes; {cache}; {about}"
            yield record.metric(f"{model}_{side}_{name}", median(runs), "s", "lower", COMMAND, note, runs)
        pairs = [*zip(first["eager"], first[side], strict=True), *zip(second["eager"], second[side], strict=True)]
        runs = [eager["batch"] / compiled["batch"] for eager, compiled in pairs]
        note = f"later batches, against the same without compiling; {about}"
        yield record.metric(f"{model}_{side}_speedup", median(runs), "ratio", "higher", COMMAND, note, runs)


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
    for model in MODELS:
        make_checkpoint(model, root / "model")
        record.write("compile", compare(model, root, arguments.repeats))
        shutil.rmtree(root / "model")
    shutil.rmtree(root)
