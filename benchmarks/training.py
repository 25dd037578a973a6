"""The training's figures: python benchmarks/training.py --storage runs --photos photos.parquet --cifar10 cifar10

`photos.parquet` holds photos of about 256 px in the columns `image` and `label`, and the folder `cifar10` the files
train.parquet and test.parquet of that set. Both sides of each ratio run in turn, several times. Parts can be chosen, as
`--parts ingest multicrop`. Writes benchmarks/results/training.json, and the curves of CIFAR-10 beside it.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
import plain_training
import pyarrow.parquet as pq
import torch
from PIL import Image
from record import RESULTS, metric, write
from torchvision import datasets
from torchvision.transforms import v2

COMMAND = "python benchmarks/training.py"
REPEATS = 3
CORES = os.cpu_count()
PAPER_JITTER = (0.4, 0.4, 0.2, 0.1)


def image_folder(images, folder):
    """An image set as an ImageFolder."""
    for file in images.files():
        rows = images.read_rows(file)
        for image, label, index in zip(
            rows["image"].to_pylist(), rows["label"].to_pylist(), rows["index"].to_pylist(), strict=True
        ):
            kind = "png" if image["bytes"][:4] == b"\x89PNG" else "jpg"
            path = Path(folder) / f"{label:04d}" / f"{index:06d}.{kind}"
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(image["bytes"])
    return folder


def loader_rate(folder, transform, num_epochs, batch_size):
    """Images per second that a DataLoader delivers."""
    data = datasets.ImageFolder(folder, transform)
    loader = torch.utils.data.DataLoader(
        data, batch_size, shuffle=True, num_workers=CORES, drop_last=True, persistent_workers=True
    )
    return steady_rate(len(images) for _ in range(num_epochs) for images, _ in loader)


def steady_rate(counts):
    """Items per second from the first batch on."""
    next(counts)
    began = time.monotonic()
    return sum(counts) / (time.monotonic() - began)


def raysd_rate(images, recipe, image_size, decoded_size, in_memory, num_epochs, batch_size):
    """Images per second that raysd delivers, augmented and normalized."""
    from raysd.classifier.model import normalize
    from raysd.training.augmentation import augment
    from raysd.training.loader import Ingest, Pool

    ingest = Ingest((Pool((images,)),), decoded_size, batch_size, in_memory)
    steps = range(len(ingest.pools[0]) // batch_size * num_epochs)
    arrays = ingest.read_into_memory() if in_memory else None
    batches = ingest.memory_batches(arrays, steps, 0, 1, 0) if in_memory else ingest.stream_batches(steps, 0, 1, 0)
    views = (
        augment(images, recipe, torch.Generator().manual_seed(step), image_size)[0]
        for step, (images, _) in enumerate(batches)
    )
    return steady_rate(len(normalize(view)) for view in views)


def normalizing(*transforms):
    return v2.Compose(
        [*transforms, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    )


def ingest(root, photos):
    from raysd.cluster.session import ensure_ray
    from raysd.data.real_datasets import real_dataset
    from raysd.training.recipe import Recipe

    ensure_ray()
    torch.set_num_threads(1)  # the other cores read and decode
    tiny, large = real_dataset("fashion_mnist", "train", root, 200), real_dataset(photos, "train", root)
    shift = normalizing(v2.Pad(2, padding_mode="edge"), v2.RandomCrop(32), v2.RandomHorizontalFlip())
    resized = normalizing(
        v2.RandomResizedCrop(224, (0.25, 1.0), interpolation=v2.InterpolationMode.BICUBIC), v2.RandomHorizontalFlip()
    )
    cases = {
        "32px": (
            tiny,
            Recipe(crop="shift"),
            32,
            32,
            True,
            60,
            100,
            shift,
            "2,000 images of 32 px, 60 epochs; raysd decodes them once",
        ),
        "256px": (
            large,
            Recipe(crop="random_resized"),
            224,
            256,
            False,
            16,
            50,
            resized,
            "1,000 photos, 16 epochs; raysd streams them",
        ),
    }
    for name, (images, recipe, size, decoded, in_memory, num_epochs, batch_size, transform, about) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            image_folder(images, folder)
            pairs = []
            for _ in range(REPEATS):
                ours = raysd_rate(images, recipe, size, decoded, in_memory, num_epochs, batch_size)
                pairs.append((ours, loader_rate(folder, transform, num_epochs, batch_size)))
        ratios = [ours / theirs for ours, theirs in pairs]
        baseline = (
            f"a DataLoader over an ImageFolder, {CORES} processes, same crops and flips, from the first batch on; "
            f"{about}"
        )
        yield metric(f"ingest_ratio_{name}", median(ratios), "ratio", "higher", COMMAND, baseline, ratios)
        yield metric(
            f"ingest_images_per_s_{name}",
            median(ours for ours, _ in pairs),
            "images/s",
            "higher",
            COMMAND,
            about,
            [ours for ours, _ in pairs],
        )


def pil_multicrop():
    """The paper's 1 + 8 crops of one image, by torchvision on PIL images."""

    def view(size, scale, blur, solarize):
        jitter = v2.RandomApply([v2.ColorJitter(*PAPER_JITTER)], p=0.8)
        blurring = v2.RandomApply([v2.GaussianBlur(9, (0.1, 2.0))], p=blur)
        steps = [
            v2.RandomResizedCrop(size, scale, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            jitter,
            v2.RandomGrayscale(0.2),
        ]
        return normalizing(*steps, blurring, *([v2.RandomSolarize(128, 0.2)] if solarize else []))

    views = [view(224, (0.25, 1), 0.2, True)] + [view(96, (0.05, 0.25), 0.5, False)] * 8

    def all_views(data):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return [view(image) for view in views]

    return all_views


def multicrop(photos):
    """Both sides on one core: per image with PIL, and decoded once and in batches."""
    from raysd.classifier.model import normalize
    from raysd.data.images import decode_image
    from raysd.training.augmentation import augment
    from raysd.training.recipe import built_in_recipes

    torch.set_num_threads(1)
    data = [image["bytes"] for image in pq.read_table(photos)["image"].to_pylist()[:256]]
    recipe, pil = built_in_recipes()["paper"].model_copy(update={"pixmix_rounds": 0}), pil_multicrop()

    def ours():
        for start in range(0, len(data), 64):
            images = torch.from_numpy(np.stack([decode_image(item, 256) for item in data[start : start + 64]]))
            for view in augment(images, recipe, torch.Generator().manual_seed(start), 224):
                normalize(view)

    pairs = [(timed(ours), timed(lambda: [pil(item) for item in data])) for _ in range(REPEATS)]
    ratios = [theirs / ours for ours, theirs in pairs]
    their_rate = len(data) / median(theirs for _, theirs in pairs)
    baseline = f"torchvision on PIL images, one by one, {their_rate:.0f} images/s on one core; no PixMix on either side"
    yield metric("multicrop_ratio", median(ratios), "ratio", "higher", COMMAND, baseline, ratios)
    rates = [len(data) / ours for ours, _ in pairs]
    yield metric(
        "multicrop_images_per_s", median(rates), "images/s", "higher", COMMAND, "1 + 8 crops on one core", rates
    )


def timed(function):
    began = time.monotonic()
    function()
    return time.monotonic() - began


STEP = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
    "stem_stride": 2,
    "batch_size": 100,
    "logger": "tensorboard",
}
STEP_SECONDS = 60


def step_efficiency(root):
    """Two DDP workers of raysd against two bare processes: same model, images, batches, and augmentation.

    The bare loop runs with the machine to itself, and again beside an idle Ray, whose own processes take their share of
    the cores.
    """
    from raysd.classifier.architecture import load_record
    from raysd.cluster.session import close_ray, ensure_ray
    from raysd.data.real_datasets import real_dataset
    from raysd.training.loader import Pool
    from raysd.training.run import TrainingRun
    from raysd.training.settings import TrainingSettings
    from raysd.training.train import train_classifiers

    images = real_dataset("fashion_mnist", "train", root, 200)
    num_steps = int(plain_training.ddp_rate(images, STEP, 100) * STEP_SECONDS / STEP["batch_size"])
    alone, beside_ray = [], []
    for repeat in range(REPEATS):
        ensure_ray()
        run = TrainingRun(
            root,
            (Pool((images,)),),
            10,
            TrainingSettings(**STEP, num_steps=num_steps, seeds=[time.time_ns() % 2**31 + repeat]),
        )
        (fingerprint,) = train_classifiers(run)
        ours = load_record(root.child("classifiers", fingerprint))["images_per_s"]
        beside_ray.append(ours / plain_training.ddp_rate(images, STEP, num_steps))
        close_ray()
        alone.append(ours / plain_training.ddp_rate(images, STEP, num_steps))
    baseline = (
        f"a bare DDP loop of two processes, same model, batches and augmentation, {num_steps} steps of "
        f"{STEP['batch_size']}"
    )
    yield metric(
        "step_efficiency", median(alone), "ratio", "higher", COMMAND, f"{baseline}, with the machine to itself", alone
    )
    yield metric(
        "step_efficiency_beside_ray",
        median(beside_ray),
        "ratio",
        "higher",
        COMMAND,
        f"{baseline}, beside an idle Ray of one node",
        beside_ray,
    )


CIFAR_EPOCHS, CIFAR_SEEDS = 2, (0, 1, 2)  # what a quarter of an hour on two cores allows
CIFAR = {
    "backbone_options": {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]},
    "stem_stride": 2,
    "batch_size": 128,
    "num_epochs": CIFAR_EPOCHS,
}
CIFAR |= {
    "precision": "float32",
    "recipe": "timm",
    "recipe_options": {"learning_rate": 0.04, "ema_decay": 0.99, "warmup_share": 0.15},
}


def cifar10(root, folder):
    """The `timm` recipe in raysd, on two workers, and in a plain loop of one process, on torchvision's transforms."""
    from raysd.classifier.architecture import load_record
    from raysd.data.real_datasets import real_dataset
    from raysd.training.loader import Pool
    from raysd.training.run import TrainingRun
    from raysd.training.settings import TrainingSettings
    from raysd.training.train import train_classifiers

    train, test = (real_dataset(f"{folder}/{split}.parquet", "train", root) for split in ("train", "test"))
    settings = TrainingSettings(**CIFAR, seeds=list(CIFAR_SEEDS), validate_epochs=1)
    run = TrainingRun(root, (Pool((train,)),), 10, settings, test)
    train_classifiers(run)
    curves = {
        ("raysd", seed): [row["validation_top1"] for row in load_record(run.folder(seed))["history"]]
        for seed in CIFAR_SEEDS
    }
    for seed in CIFAR_SEEDS:
        command = [
            sys.executable,
            str(Path(__file__).parent / "plain_training.py"),
            str(folder),
            str(seed),
            str(CIFAR_EPOCHS),
        ]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        curves["plain", seed] = [float(word) for word in printed.split()]
        print(seed, curves["plain", seed], flush=True)
    with (RESULTS / "cifar10_curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["loop", "seed", *(f"epoch {epoch + 1}" for epoch in range(CIFAR_EPOCHS))])
        writer.writerows([loop, seed, *(f"{value:.2f}" for value in curve)] for (loop, seed), curve in curves.items())
    for loop in ("raysd", "plain"):
        values = [curves[loop, seed][-1] for seed in CIFAR_SEEDS]
        about = (
            f"timm recipe, {CIFAR_EPOCHS} epochs of the 50,000 real images, top-1 on the 10,000 test images, seed "
            f"spread {stdev(values):.2f}"
        )
        yield metric(f"cifar10_top1_{loop}", mean(values), "percent", "higher", COMMAND, about, values)


READ_STEPS, READ_BATCH = 560, 256


def read_amplification():
    """Bytes read for a byte of the images used, by Ray Data's tasks, in each epoch of a large and of a small source.

    The files are as those of a clone: 336 images each, in row groups of 256. Nine tenths of a batch are from the large
    source. Two workers; the second is counted. Epochs that the run ends within do not
    count.
    """
    from raysd.cluster.session import ensure_ray
    from raysd.data.images import ImageSet
    from raysd.storage.location import Location
    from raysd.training.loader import Ingest, Pool

    class CountedIngest(Ingest):
        def read_window(self, pool, sequence, first, last):
            before, used = bytes_read(), 0
            for rows in super().read_window(pool, sequence, first, last):
                used += len(rows["label"])
                yield rows
            counted = {"pool": pool, "epoch": first // sequence.per_epoch, "read": bytes_read() - before, "used": used}
            Path(counts, f"{pool}-{first}.json").write_text(json.dumps(counted))

    ensure_ray()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as counts:
        sets, sizes = [], []
        for name, num_images in (("large", 50_400), ("small", 13_440)):
            sizes.append(write_noise(Path(folder, name), num_images))
            sets.append(ImageSet(name, name, Location(f"{folder}/{name}")))
        pools = (Pool((sets[0],), 0.9), Pool((sets[1],), 0.1))
        ingest = CountedIngest(pools, 8, READ_BATCH, False)
        for _ in ingest.stream_batches(range(READ_STEPS), 1, 2, 0):
            pass
        sums = {}
        for file in Path(counts).iterdir():
            task = json.loads(file.read_text())
            read, used = sums.get((task["pool"], task["epoch"]), (0, 0))
            sums[task["pool"], task["epoch"]] = read + task["read"], used + task["used"] * sizes[task["pool"]]
        per_epoch = [sequence.per_epoch for sequence in ingest.sequences(1, 2, 0)]
    ratios = {
        place: read / used
        for place, (read, used) in sorted(sums.items())
        if used >= 0.9 * per_epoch[place[0]] * sizes[place[0]]
    }
    print(ratios, flush=True)
    about = (
        f"the most of {len(ratios)} epochs: sources with shares of 0.9 and 0.1, files of 336 images, row groups of "
        "256, footers and columns included"
    )
    yield metric("read_amplification", max(ratios.values()), "ratio", "lower", COMMAND, about, list(ratios.values()))


def write_noise(folder, num_images):
    """Write images of 64 px in files like a clone's; return the bytes of an image."""
    from raysd.clone.shard import ROWS_PER_GROUP
    from raysd.data.real_datasets import image_table

    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    for number, start in enumerate(range(0, num_images, 336)):
        rows = image_table([buffer.getvalue()] * 336, start + np.arange(336) % 10, [])
        pq.write_table(
            rows, folder / f"train-{number:06d}.parquet", ROWS_PER_GROUP, compression="none", use_dictionary=False
        )
    return len(buffer.getvalue())


def bytes_read():
    """Bytes that this process has read from files."""
    return int(Path("/proc/self/io").read_text().split()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", default="runs")
    parser.add_argument("--photos")
    parser.add_argument("--cifar10")
    parser.add_argument("--parts", nargs="+", default=["ingest", "reads", "multicrop", "step", "cifar10"])
    arguments = parser.parse_args()
    from raysd.storage.location import Location

    root = Location(str(Path(arguments.storage).resolve()))
    parts = {
        "ingest": lambda: ingest(root, arguments.photos),
        "reads": read_amplification,
        "multicrop": lambda: multicrop(arguments.photos),
        "step": lambda: step_efficiency(root),
        "cifar10": lambda: cifar10(root, arguments.cifar10),
    }
    for part in arguments.parts:
        write("training", list(parts[part]()))
