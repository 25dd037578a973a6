"""Made-up result rows and tiny clones."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from row_types import checked

from raysd.statistics.verdict import verdict_of
from raysd.storage.row_types.measured import AccuracyRow
from raysd.storage.row_types.sweep import RungResult, SweepRow
from raysd.storage.rows import ACCURACY, RUNG_RESULT, SWEEP, write_row


def digest(*parts):
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def accuracy_row(
    value, seed=0, kind="clone", variant="name", guidance=2.0, role="test", dataset="fashion_mnist-test", **changes
):
    """One accuracy row; `changes` replace its fields."""
    clone = kind == "clone"
    classifier = digest(kind, variant if clone else "", guidance if clone else "", seed)
    same_class = role != "transfer"
    row = {
        "fingerprint": digest(classifier, role, dataset),
        "version": 2,
        "role": role,
        "dataset": dataset,
        "dataset_fingerprint": digest(dataset),
        "shots": None if same_class else 5,
        "probe_label": "",
        "metric": "top1",
        "value": value,
        "low": None if value is None else value - 1.5,
        "high": None if value is None else value + 1.5,
        "num_images": 10000,
        "per_class": [value] * 3 if same_class else None,
        "confusions": [
            {"label": "coat", "prediction": "bag", "count": 120 + seed},
            {"label": "boot", "prediction": "coat", "count": 31},
        ]
        if same_class
        else None,
        "class_names": ["boot", "bag", "coat"] if same_class else None,
        "classifier": classifier,
        "num_left_out": 0,
        "predictions": f"predictions/{classifier}",
        "seed": seed,
        "backbone": "resnet18",
        "trained_on": {
            "kind": kind,
            "name": {"clone": f"{variant}-{guidance}", "real": "fashion_mnist-train", "random": "random"}[kind],
            "fingerprint": None
            if kind == "random"
            else digest(kind, variant if clone else "", guidance if clone else ""),
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
    return checked({**row, **changes}, AccuracyRow)


def write_clone(folder, class_names, guidance, num_images=4, side=28, prompt="a photo of {name}", first_seed=0):
    """One round-major shard of gray images, in the columns of a real clone."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(num_images):
        for label, name in enumerate(class_names):
            pixels = np.clip(rng.normal(40 + 20 * guidance, 40, (side, side)) + 25 * label, 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            image = {"bytes": buffer.getvalue(), "path": f"{label}-{index}.png"}
            flag = "black" if (label, index) == (1, 1) else ""
            rows.append(
                {
                    "image": image,
                    "label": label,
                    "key": name,
                    "index": index,
                    "prompt": prompt.format(name=name),
                    "seed": first_seed + index,
                    "flag": flag,
                }
            )
    data = folder / "data"
    data.mkdir(parents=True)
    features = {"label": {"names": class_names, "_type": "ClassLabel"}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, data / "train-000000.parquet")


def experiment_rows(variants=("name", "multiple"), scales=(1.0, 2.0, 7.5), seeds=(0, 1, 2)):
    """Rows of a whole small experiment: every clone, real and random, on validation, test and two transfer sets."""
    sets = [
        ("validation", "fashion_mnist-train", 0),
        ("test", "fashion_mnist-test", -1),
        ("transfer", "kmnist-test", -8),
        ("transfer", "usps-test", -4),
    ]
    settings = [("clone", v, g, 70 - 3 * rank - abs(g - 2) * 1.2) for rank, v in enumerate(variants) for g in scales]
    settings += [("real", None, None, 84.0), ("random", None, None, 19.0)]
    return [
        accuracy_row(base + offset + 0.3 * seed, seed, kind, variant, guidance, role, dataset)
        for kind, variant, guidance, base in settings
        for role, dataset, offset in sets
        for seed in seeds
    ]


def setting_of(variant, guidance, **further):
    return {"generation.variant": variant, "generation.guidance_scale": guidance, **further}


def label_of(setting):
    values = list(setting.values())
    return ", ".join(
        [
            values[0],
            f"guidance {values[1]:g}",
            *(f"{name.rpartition('.')[2]} {value}" for name, value in list(setting.items())[2:]),
        ]
    )


def rung_result(number, setting, rung, budget, seeds, scores, classifiers, rows, **changes):
    """A rung result of a sweep; `scores` are of its seeds, by the objective."""
    row = {
        "fingerprint": digest("trial", number, rung),
        "sweep": "5eeb",
        "command": "raysd sweep configs/fashion.yaml",
        "versions": {"torch": "2.13.0"},
        "date": "2026-01-02T03:04:05Z",
        "number": number,
        "setting": setting,
        "label": label_of(setting),
        "clone": digest("clone", setting["generation.variant"], setting["generation.guidance_scale"]),
        "rung": rung,
        "images_per_class": budget,
        "seeds": seeds,
        "seed_scores": scores,
        "score": sum(scores) / len(scores) if scores else None,
        "classifiers": classifiers,
        "rows": rows,
        "num_planned": 3 * budget,
        "num_images": 3 * budget,
        "num_flagged": 1,
        "short_classes": {},
        "num_generated": 3 * budget,
        "seconds": {"generate": 40.0, "train": 50.0, "measure": 3.0},
        "proxies": {"frechet_distance": 12.5},
    }
    return checked({**row, **changes}, RungResult)


def failed_result(setting, number=0, rung=0, budget=25):
    """A rung result that failed for a reason of the setting itself."""
    return rung_result(number, setting, rung, budget, [0, 1], [], [], [], error="the loss is not a number")


def search_results(settings, keep=3, budgets=(25, 100)):
    """The rung results of a search that halves by validation: all settings at the first rung, the best `keep` at each
    further one.

    All rungs but the last have rows of the objective's sets alone, as in a real sweep.
    """
    scores = [
        70 - 4 * (len(setting["generation.variant"]) % 3) - 1.2 * abs(setting["generation.guidance_scale"] - 2)
        for setting in settings
    ]
    order = sorted(range(len(settings)), key=lambda i: -scores[i])
    results = []
    for rung, budget in enumerate(budgets):
        roles = [role for role, *_ in SEARCH_SETS] if rung + 1 == len(budgets) else ["validation"]
        for number in [number for number in range(len(settings)) if not rung or number in order[:keep]]:
            seeds = [0, 1] if rung == 0 else [0, 1, 2]
            classifiers = [digest("classifier", number, rung, seed) for seed in seeds]
            rows = [digest("row", name, role) for name in classifiers for role in roles]
            results.append(
                rung_result(
                    number,
                    settings[number],
                    rung,
                    budget,
                    seeds,
                    [scores[number] + 8 * rung + 0.4 * s - 0.01 * number for s in seeds],
                    classifiers,
                    rows,
                )
            )
    return results


SEARCH_SETS = (
    ("validation", "fashion_mnist-train", 0),
    ("test", "fashion_mnist-test", -1),
    ("transfer", "kmnist-test", -9),
)


def search_accuracy(results):
    """The accuracy rows that rung results name, and those of both baselines."""
    rows = []
    for result in results:
        variant, guidance = result["setting"]["generation.variant"], result["setting"]["generation.guidance_scale"]
        for seed, value, name in zip(result["seeds"], result["seed_scores"], result["classifiers"], strict=False):
            for role, dataset, offset in SEARCH_SETS:
                changes = {"classifier": name, "fingerprint": digest("row", name, role)}
                changes |= {"per_class": [value + offset, value - 30.0, value + 9.0]} if role == "test" else {}
                row = accuracy_row(value + offset, seed, "clone", variant, guidance, role, dataset, **changes)
                row["trained_on"]["images_per_class"] = result["images_per_class"]
                rows += [row] if row["fingerprint"] in result["rows"] else []
    return rows + [row for row in experiment_rows((), ()) if row["dataset"] != "usps-test"]


def search_row(folder, results, rows=(), **changes):
    """The sweep's row of a search, with all keys that a page reads; `rows` are the accuracy rows of its classifiers."""
    last = {result["number"]: result for result in results}
    settings = [last[number] for number in sorted(last)]
    scored = {result["number"]: result for result in results if result["score"] is not None}
    ranked = sorted(scored.values(), key=lambda result: (-result["images_per_class"], -result["score"]))
    best = ranked[0]
    budgets = sorted({result["images_per_class"] for result in results})
    clones = []
    for result in settings:
        rungs = [
            {name: t[name] for name in ("images_per_class", "score", "seed_scores")}
            for t in results
            if t["number"] == result["number"]
        ]
        setting = result["setting"]
        clones.append(
            {
                "fingerprint": result["clone"],
                "folder": str(folder / result["clone"]),
                "variant": setting["generation.variant"],
                "guidance_scale": setting["generation.guidance_scale"],
                "images_per_class": result["images_per_class"],
                "num_images": result["num_planned"],
                "num_flagged": 1,
                "short_classes": {},
                "score": result["score"],
                "setting": setting,
                "label": result["label"],
                "model": "tiny-sd",
                "num_inference_steps": 20,
                "rungs": rungs,
                "proxies": result["proxies"],
            }
        )
    ranking = []
    for rank, result in enumerate(ranked, 1):
        at = min(result["images_per_class"], best["images_per_class"])
        difference = result["score"] - next(
            t["score"] for t in results if t["number"] == best["number"] and t["images_per_class"] == at
        )
        ranking.append(
            {
                "rank": rank,
                "label": result["label"],
                "setting": result["setting"],
                "clone": result["clone"],
                "images_per_class": result["images_per_class"],
                "num_seeds": len(result["seeds"]),
                "score": result["score"],
                "low": result["score"] - 1.1,
                "high": result["score"] + 1.1,
                "difference": difference if rank > 1 else 0.0,
                "difference_low": difference - 0.8 if rank > 1 else None,
                "difference_high": difference + 0.8 if rank > 1 else None,
                "compared_at": at,
                "verdict": "best" if rank == 1 else "within noise" if rank == 2 else "worse",
            }
        )
    factors = {
        name: list(dict.fromkeys(result["setting"][name] for result in settings)) for name in settings[0]["setting"]
    }
    effects = [
        {
            "factor": name,
            "images_per_class": budgets[0],
            "spread": 4.0,
            "values": [
                {
                    "value": value,
                    "mean": 66.0 + i,
                    "difference": i - 1.0,
                    "low": i - 1.8,
                    "high": i - 0.2,
                    "verdict": verdict_of(i - 1.8, i - 0.2),
                    "num_settings": 3,
                }
                for i, value in enumerate(values)
            ],
        }
        for name, values in factors.items()
    ]
    proxy = {"num_settings": 12, "proxy": "frechet_distance", "better": "lower", "images_per_class": budgets[0]}
    proxy |= {"pick": ranked[:2][-1]["label"], "pick_score": 70.1, "best_score": 71.4}
    rivals = [
        (t["clone"], t["label"], t["setting"], best["score"] - t["score"])
        for t in ranked[1:]
        if t["rung"] == best["rung"]
    ]
    rivals += [(kind, kind, None, 0.0) for kind in ("real", "random")]
    about_test = {
        "role": "test",
        "dataset": "fashion_mnist-test",
        "shots": None,
        "probe_label": "",
        "p_value": 0.01,
        "verdict": "better",
    }
    comparisons = [
        {
            "with": name,
            "label": label,
            "setting": setting,
            **about_test,
            "difference": points,
            "low": points - 0.8,
            "high": points + 0.8,
        }
        for name, label, setting, points in rivals
    ]
    row = {
        "fingerprint": "5eeb",
        "name": "fashion",
        "objective": "validation",
        "search": "grid",
        "scheduler": "halving" if len(budgets) > 1 else "none",
        "rungs": [{"images_per_class": budget, "num_seeds": 2 + rung} for rung, budget in enumerate(budgets)],
        "factors": factors,
        "best": {
            "variant": best["setting"]["generation.variant"],
            "guidance_scale": best["setting"]["generation.guidance_scale"],
            "clone": best["clone"],
            "setting": best["setting"],
            "label": best["label"],
            "score": best["score"],
            "low": 1.0,
            "high": 2.0,
            "images_per_class": best["images_per_class"],
        },
        "images_per_class": budgets[-1],
        "num_generated": 1500,
        "seconds": {"generate": 812.0, "train": 1300.5, "measure": 60.0, "total": 721.0},
        "rung_results": [result["fingerprint"] for result in results],
        "rows": sorted(row["fingerprint"] for row in rows),
        "classifiers": sorted(
            {name for result in results for name in result["classifiers"]} | {row["classifier"] for row in rows}
        ),
        "failed": [],
        "skipped_sets": {},
        "comparisons": comparisons,
        "clones": clones,
        "ranking": ranking,
        "effects": effects,
        "proxies": [
            {**proxy, "regret": 1.3, "spearman": 0.82},
            {**proxy, "proxy": "coverage", "better": "higher", "regret": 0.0, "spearman": None},
        ],
        "cost": {
            "num_images": 1500,
            "num_generated": 1500,
            "trainings": 33,
            "generate_seconds": 600.0,
            "train_seconds": 1200.0,
            "measure_seconds": 60.0,
            "grid": {
                "settings": 12,
                "num_images": 3600,
                "trainings": 36,
                "generate_seconds": 1440.0,
                "train_seconds": None,
                "measure_seconds": 140.0,
            },
        },
        "command": "raysd sweep configs/fashion.yaml",
        "versions": {"torch": "2.13.0"},
        "date": "2026-01-02T03:04:05Z",
    }
    return checked({**row, **changes}, SweepRow)


def write_all(root, sweep, results, rows, names, prompt):
    for clone in {clone["fingerprint"]: clone for clone in sweep["clones"]}.values():
        write_clone(Path(clone["folder"]), list(names), clone["guidance_scale"], prompt=prompt)
    for kind, found in ((ACCURACY, rows), (RUNG_RESULT, results), (SWEEP, [sweep])):
        for row in found:
            write_row(root, kind, row)


def write_search(
    root, folder, settings=None, names=("boot", "bag", "coat"), prompt="a photo of {name}", budgets=(25, 100), **changes
):
    """Write a whole search: clones, results, accuracy rows and the sweep's row; returns (sweep, results, accuracy
    rows)."""
    settings = settings or [
        setting_of(variant, scale)
        for variant in ("name", "attributes", "name_definition")
        for scale in (1.0, 2.0, 4.0, 7.5)
    ]
    results = search_results(settings, budgets=budgets)
    rows = search_accuracy(results)
    sweep = search_row(folder, results, rows) | changes
    write_all(root, sweep, results, rows, names, prompt)
    return sweep, results, rows


def write_experiment(
    root,
    folder,
    names=("boot", "bag", "coat"),
    prompt="a photo of {name}",
    rows=None,
    variants=("name", "multiple"),
    own=None,
    **changes,
):
    """Write a sweep without further rungs, whose rows are `rows`; those of `own` kinds are its own. Returns (sweep,
    rows)."""
    rows = experiment_rows(variants) if rows is None else rows
    groups = {}
    for row in [row for row in rows or experiment_rows(variants) if row["trained_on"]["kind"] == "clone"]:
        groups.setdefault((row["trained_on"]["variant"], row["trained_on"]["guidance_scale"]), []).append(row)
    results = []
    for number, ((variant, guidance), members) in enumerate(groups.items()):
        scores = [row["value"] for row in members if row["role"] == "validation"] or [
            row["value"] for row in members if row["role"] == "test"
        ]
        classifiers = list(dict.fromkeys(row["classifier"] for row in members))
        named = [row["fingerprint"] for row in members]
        results.append(
            rung_result(
                number, setting_of(variant, guidance), 0, 100, list(range(len(scores))), scores, classifiers, named
            )
        )
    mine = [row for row in rows if own is None or row["trained_on"]["kind"] in own]
    sweep = search_row(folder, results, mine, **{"fingerprint": digest("sweep", *variants), **changes})
    write_all(root, sweep, results, rows, names, prompt)
    return sweep, rows
