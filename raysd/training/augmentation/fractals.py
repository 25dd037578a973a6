"""Fractals for a mixing set: attractors of random iterated function systems, sampled by the chaos game in random
colors.

Each system has 3 to 7 affine maps. Their singular values are sampled so that the maps contract, but not so much that
the image is a few dots (Anderson and Farrell, "Improving fractal pre-training", 2022). A point jumps from map to map;
its color follows the maps it took.
"""

from functools import lru_cache

import numpy as np

POINTS, STEPS, WARM_UP = 2048, 80, 12
MAPS = (3, 7)
CHUNK = 32  # fractals at a time
EDGE = 0.02  # share of the points that may fall outside the image, on each side


@lru_cache(maxsize=1)  # the classifiers of a process have the same ones, and they take seconds
def fractals(count: int, size: int, seed: int) -> np.ndarray:
    """Return colorful fractals uint8 [count, 3, size, size]; the same seed gives the same ones."""
    parts = [
        _sample(min(CHUNK, count - start), size, np.random.default_rng([seed, start]))
        for start in range(0, count, CHUNK)
    ]
    return np.concatenate(parts)


def _maps(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices [count, maps, 2, 2] that contract, and shifts [count, maps, 2]."""
    maps = MAPS[1]
    angles = rng.uniform(0, 2 * np.pi, (2, count, maps))
    long = rng.uniform(0.55, 0.9, (count, maps))
    short = long * rng.uniform(0.25, 0.95, (count, maps)) * rng.choice([-1, 1], (count, maps))
    turn, back = (_rotations(angle) for angle in angles)
    matrices = turn @ (np.stack([long, short], axis=-1)[..., None] * back)
    return matrices, rng.uniform(-1, 1, (count, maps, 2))


def _rotations(angles: np.ndarray) -> np.ndarray:
    cosines, sines = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cosines, -sines], axis=-1), np.stack([sines, cosines], axis=-1)], axis=-2)


def _play(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Play the chaos game; return points [count, N, 2] and their colors [count, N] in [0, 1]."""
    matrices, shifts = _maps(count, rng)
    num_maps = rng.integers(MAPS[0], MAPS[1] + 1, count)
    system = np.arange(count)[:, None]
    points, colors = rng.uniform(-1, 1, (count, POINTS, 2)), rng.uniform(0, 1, (count, POINTS))
    map_colors = rng.uniform(0, 1, (count, MAPS[1]))
    places, tints = [], []
    for step in range(STEPS):
        chosen = (rng.random((count, POINTS)) * num_maps[:, None]).astype(int)
        points = (matrices[system, chosen] @ points[..., None])[..., 0] + shifts[system, chosen]
        colors = (colors + map_colors[system, chosen]) / 2
        if step >= WARM_UP:
            places.append(points)
            tints.append(colors)
    return np.concatenate(places, axis=1), np.concatenate(tints, axis=1)


def _sample(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    points, tints = _play(count, rng)
    low, high = np.quantile(points, [EDGE, 1 - EDGE], axis=1)
    scaled = (points - low[:, None]) / np.maximum(high - low, 1e-6)[:, None]
    cells = np.floor((0.06 + 0.88 * scaled) * size).astype(np.int64)
    inside = ((cells >= 0) & (cells < size)).all(axis=2)
    flat = (np.arange(count)[:, None] * size + cells[..., 1]) * size + cells[..., 0]
    density = np.bincount(flat[inside], minlength=count * size * size).reshape(count, size, size)
    tint = np.bincount(flat[inside], tints[inside], minlength=count * size * size).reshape(
        count, size, size
    ) / np.maximum(density, 1)
    light = np.log1p(density) / np.log1p(density.max(axis=(1, 2), keepdims=True))
    return _colored(light**0.6, tint, rng)


def _colored(light: np.ndarray, tint: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return two random color waves along the tint, on a random dark or light ground; uint8 [count, 3, size, size]."""
    count = len(light)
    phase, turns = rng.uniform(0, 1, (count, 3, 1, 1)), rng.uniform(0.5, 1.6, (count, 1, 1, 1))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (turns * tint[:, None] + phase))
    ground = rng.uniform(0, 1, (count, 3, 1, 1)) ** 2
    image = ground + light[:, None] * (wave - ground)
    return (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
