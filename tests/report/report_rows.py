"""Made-up result rows and tiny clones."""

import hashlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysd.storage.results import write_result


def digest(*parts):
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def accuracy_row(value, seed=0, kind="clone", variant="name", guidance=2.0, role="test", dataset="fashion_mnist-test", **changes):
    """One accuracy row; `changes` replace its fields."""
    clone = kind == "clone"
    classifier = digest(kind, variant if clone else "", guidance if clone else "", seed)
    same_class = role != "transfer"
    row = {
        "fingerprint": digest(classifier, role, dataset),
        "role": role,
        "dataset": dataset,
        "dataset_fingerprint": digest(dataset),
        "shots": None if same_class else 5,
        "value": value,
        "low": None if value is None else value - 1.5,
        "high": None if value is None else value + 1.5,
        "num_images": 10000,
        "per_class": [value] * 3 if same_class else None,
        "class_names": ["boot", "bag", "coat"] if same_class else None,
        "classifier": classifier,
        "seed": seed,
        "backbone": "resnet18",
        "trained_on": {
            "kind": kind,
            "name": {"clone": f"{variant}-{guidance}", "real": "fashion_mnist-train", "random": "random"}[kind],
            "fingerprint": None if kind == "random" else digest(kind, variant if clone else "", guidance if clone else ""),
            "images_per_class": None if kind == "random" else 100,
            "variant": variant if clone else None,
            "guidance_scale": guidance if clone else None,
            "model": "tiny-sd" if clone else None,
            "num_inference_steps": 20 if clone else None,
        },
        "seconds": 1.5,
        "command": "raysd evaluate configs/fashion.yaml",
        "versions": {"torch": "2.13.0", "raysd": "0.1.0"},
        "date": "2026-01-02T03:04:05Z",
    }
    return {**row, **changes}


def write_clone(folder, class_names, guidance, num_images=4, side=28, prompt="a photo of {name}"):
    """One round-major shard of grey pictures, in the columns of a real clone."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(num_images):
        for label, name in enumerate(class_names):
            pixels = np.clip(rng.normal(40 + 20 * guidance, 40, (side, side)) + 25 * label, 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            image = {"bytes": buffer.getvalue(), "path": f"{label}-{index}.png"}
            flag = "black" if (label, index) == (1, 1) else ""
            rows.append({"image": image, "label": label, "key": name, "index": index, "prompt": prompt.format(name=name), "seed": index, "flag": flag})
    data = folder / "data"
    data.mkdir(parents=True)
    features = {"label": {"names": class_names, "_type": "ClassLabel"}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, data / "train-000000.parquet")


def sweep_row(folder, variants=("name", "multiple"), scales=(1.0, 2.0, 7.5), **changes):
    """A sweep over variants and guidance scales whose clones lie below `folder`."""
    clones = [
        {
            "fingerprint": digest("clone", variant, scale),
            "folder": str(folder / digest("clone", variant, scale)),
            "variant": variant,
            "guidance_scale": scale,
            "images_per_class": 100,
            "num_images": 300,
            "num_flagged": 2,
        }
        for variant in variants
        for scale in scales
    ]
    row = {
        "fingerprint": digest("sweep", *variants),
        "name": "fashion",
        "objective": "validation",
        "best": {"variant": variants[0], "guidance_scale": 2.0, "clone": digest("clone", variants[0], 2.0)},
        "images_per_class": 100,
        "num_drawn": 1800,
        "seconds": {"generate": 812.0, "train": 1300.5, "total": 7215.0},
        "classifiers": [],
        "clones": clones,
        "command": "raysd sweep configs/fashion.yaml",
        "versions": {"torch": "2.13.0"},
        "date": "2026-01-02T03:04:05Z",
    }
    return {**row, **changes}


def experiment_rows(variants=("name", "multiple"), scales=(1.0, 2.0, 7.5), seeds=(0, 1, 2)):
    """Rows of a whole small experiment: every clone, real and random, on validation, test and two transfer sets."""
    sets = [("validation", "fashion_mnist-train", 0), ("test", "fashion_mnist-test", -1), ("transfer", "kmnist-test", -8), ("transfer", "usps-test", -4)]
    settings = [("clone", v, g, 70 - 3 * rank - abs(g - 2) * 1.2) for rank, v in enumerate(variants) for g in scales]
    settings += [("real", None, None, 84.0), ("random", None, None, 19.0)]
    return [
        accuracy_row(base + offset + 0.3 * seed, seed, kind, variant, guidance, role, dataset)
        for kind, variant, guidance, base in settings
        for role, dataset, offset in sets
        for seed in seeds
    ]


def write_experiment(root, folder, names=("boot", "bag", "coat"), prompt="a photo of {name}", rows=None, **changes):
    """Write clones, accuracy rows and the sweep row; returns (sweep, rows)."""
    variants = changes.pop("variants", ("name", "multiple"))
    rows = experiment_rows(variants) if rows is None else rows
    sweep = sweep_row(folder, variants, **{"classifiers": sorted({row["classifier"] for row in rows}), **changes})
    for clone in sweep["clones"]:
        write_clone(folder / clone["fingerprint"], list(names), clone["guidance_scale"], prompt=prompt)
    for row in rows:
        write_result(root, "accuracy", row)
    write_result(root, "sweep", sweep)
    return sweep, rows
