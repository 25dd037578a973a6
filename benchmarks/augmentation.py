"""Augmentation against kornia, on CPUs: python benchmarks/augmentation.py [--print-only]

The operations of the paper recipe, one by one and together, at 32 and at 224 px. Both sides get the same uint8 batches
and end with float views. Each repeat runs them in turn, on one thread and by its processor time, so that other work on
the machine counts little; the figure is the median of the ratios. kornia has no PixMix, so that is left out. Needs
kornia, which raysd does not: pip install kornia
"""

import argparse
import time
from statistics import median

import kornia
import kornia.augmentation as kornia_ops
import record
import torch
import torchvision

from raysd.training.augmentation import BLUR_SIZE, augment
from raysd.training.recipe import Recipe, built_in_recipes

COMMAND = "python benchmarks/augmentation.py"
REPEATS = 7
BATCHES = {32: (256, 32), 224: (32, 256)}  # images, and the side of what they are cut from
NOTHING = Recipe(crop="none", flip=0.0)
PAPER = built_in_recipes()["paper"].model_copy(update={"pixmix_rounds": 0})
COLORS = {
    "jitter_and_gray": ("jitter_probability", "grey_probability"),
    "blur": ("blur_probability",),
    "solarize": ("solarize_probability",),
}


def parts_of(size):
    """A recipe for each operation alone, and for all of them together."""
    crop = NOTHING.model_copy(update={"crop": "random_resized", "crop_area": PAPER.crop_area})
    parts = {"crop": crop, "flip": NOTHING.model_copy(update={"flip": PAPER.flip})}
    for name, fields in COLORS.items():
        parts[name] = NOTHING.model_copy(update={field: getattr(PAPER, field) for field in fields})
    parts["multi_crop"] = crop.model_copy(update={"local_crops": PAPER.local_crops})
    return {**parts, "paper_recipe": PAPER}


def kornia_view(recipe, size, side, area, blur_probability, solarize_probability):
    """kornia's operations for one view of `side` pixels beside global ones of `size` pixels."""
    steps = []
    if area is not None:
        ratio = (1 / recipe.crop_aspect, recipe.crop_aspect)
        steps.append(kornia_ops.RandomResizedCrop((side, side), scale=area, ratio=ratio, resample="BICUBIC"))
    if recipe.flip:
        steps.append(kornia_ops.RandomHorizontalFlip(p=recipe.flip))
    if recipe.jitter_probability:
        steps.append(kornia_ops.ColorJitter(*recipe.jitter, p=recipe.jitter_probability))
    if recipe.grey_probability:
        steps.append(kornia_ops.RandomGrayscale(p=recipe.grey_probability))
    if blur_probability:
        scale = min(1.0, size / BLUR_SIZE)
        sigma = (scale * recipe.blur_sigma[0], scale * recipe.blur_sigma[1])
        kernel = max(3, int(0.1 * side) // 2 * 2 + 1)
        steps.append(kornia_ops.RandomGaussianBlur((kernel, kernel), sigma, p=blur_probability))
    if solarize_probability:
        steps.append(kornia_ops.RandomSolarize((0.5, 0.5), (0.0, 0.0), p=solarize_probability))
    return torch.nn.Sequential(*steps)


def kornia_of(recipe, size):
    """A function that does with kornia what `augment` does."""
    area = recipe.crop_area if recipe.crop == "random_resized" else None
    views = [kornia_view(recipe, size, size, area, recipe.blur_probability, recipe.solarize_probability)]
    local = (recipe.local_size(size), recipe.local_crop_area, recipe.local_blur_probability, 0.0)
    views += [kornia_view(recipe, size, *local) for _ in range(recipe.local_crops)]
    return lambda images: [view(images.float() / 255) for view in views]


def ours_of(recipe, size):
    """raysd's augmentation, with float views as kornia's are."""
    return lambda images: [
        view.float() / 255 for view in augment(images, recipe, torch.Generator().manual_seed(0), size)
    ]


def seconds(function, images):
    """Processor time of one call."""
    began = time.thread_time()
    function(images)
    return time.thread_time() - began


def measure(size):
    """Metrics of all parts at one size."""
    count, given = BATCHES[size]
    for name, recipe in parts_of(size).items():
        side = given if recipe.crop == "random_resized" else size
        images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
        sides = ours_of(recipe, size), kornia_of(recipe, size)
        shapes = [[tuple(view.shape[1:]) for view in function(images)] for function in sides]  # the first calls, too
        assert set(shapes[0]) == set(shapes[1]), (name, shapes)
        runs = [[seconds(function, images) for function in sides] for _ in range(REPEATS)]
        ours, theirs = (median(run[which] for run in runs) for which in (0, 1))
        ratios = [their / our for our, their in runs]
        about = (
            f"kornia {kornia.__version__} takes {1000 * theirs:.1f} ms for {count} images, raysd {1000 * ours:.1f} ms; "
            f"processor time of one thread, torchvision {torchvision.__version__}"
        )
        yield record.metric(
            f"{name}_{size}px_speedup_vs_kornia", median(ratios), "ratio", "higher", COMMAND, about, ratios
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print-only", action="store_true", help="record nothing")
    is_recorded = not parser.parse_args().print_only
    torch.set_num_threads(1)
    torch.manual_seed(0)
    metrics = [entry for size in BATCHES for entry in measure(size)]
    if is_recorded:
        record.write("augmentation", metrics)
