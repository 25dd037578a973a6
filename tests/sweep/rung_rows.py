"""Made-up rung results."""

import numpy as np
from row_types import checked

from raysd.storage.row_types.sweep import RungResult


def rung_result(number, seed_scores, rung=0, setting=None, clone=None, images_per_class=None, **values):
    """One setting on one rung; a rung has 25 images per class, the next one 100, and so on. No scores: it failed."""
    scores, count = [float(score) for score in seed_scores], images_per_class or 25 * 4**rung
    seeds = list(range(len(scores) or 2))
    row = {
        "fingerprint": f"{number:x}{rung:x}",
        "sweep": "abc",
        "number": number,
        "setting": setting or {"generation.guidance_scale": float(number)},
        "label": f"setting {number}",
        "clone": clone or f"c{number}",
        "rung": rung,
        "images_per_class": count,
        "seeds": seeds,
        "seed_scores": scores,
        "score": float(np.mean(scores)) if scores else None,
        "classifiers": [f"k{number}-{rung}-{seed}" for seed in seeds],
        "rows": [],
        "num_planned": 10 * count,
        "num_generated": 0,
        "seconds": {"generate": 0.0, "train": 0.0, "measure": 0.0},
        "proxies": {},
        "num_images": 10 * count,
        "num_flagged": 0,
        "short_classes": {},
        "command": "raysd sweep tiny.yaml",
        "versions": {},
        "date": "2026-01-02T03:04:05Z",
    }
    return checked({**row, **values}, RungResult)
