"""Augmentation of whole batches."""

import torch

from raysd.training.augment import augment as _old


def augment(images, recipe, generator, size, mixing=None):
    return [_old(images, recipe, generator)]


def fractals(count, size, seed):
    return torch.zeros(count, 3, size, size, dtype=torch.uint8).numpy()
