"""The model card of a classifier, written from its record and its measured accuracies."""

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from raysd.classifier.architecture import SMALL
from raysd.clone.dataset_card import as_cell
from raysd.report.text import teacher_words
from raysd.sharing.licenses import License, Stated
from raysd.sharing.repository import ID, REAL_SET, without_paths
from raysd.sharing.timm_file import FILE
from raysd.storage.row_types.measured import AccuracyRow

METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}
ROLES = {"shift": "test"}


def classifier_card(
    classifier: str,
    record: dict[str, Any],
    config: dict[str, Any],
    rows: Sequence[AccuracyRow],
    license: License,
    stated: Sequence[Stated],
) -> str:
    """Return the card as Markdown, with the front matter that Hugging Face reads.

    Args:
        classifier: its fingerprint.
        record: `record.json`.
        config: `config.json`.
        rows: its accuracies.
        license: of the weights.
        stated: what is stated for each part that it learned from.
    """
    from huggingface_hub import ModelCardData

    is_timms = not config["architecture"].startswith(SMALL)
    has_head = record["architecture"].get("projector") is None
    entries: dict[str, Any] = {
        "library_name": "timm" if is_timms else "raysd",
        "pipeline_tag": "image-classification" if has_head else "image-feature-extraction",
        "tags": ["image-classification", "synthetic", "raysd", *(["timm"] if is_timms else [])],
        **license.front,
    }
    if results := _results(rows):
        entries |= {"model_name": f"Classifier {classifier}", "eval_results": results}
    front = ModelCardData(**entries)
    facts = "\n".join(f"| {name} | {as_cell(value)} |" for name, value in _facts(classifier, record).items())
    parts = "\n".join(f"- {part}" for part in stated)
    return (
        f"---\n{front.to_yaml()}\n---\n\n"
        f"# Classifier {classifier}\n\n"
        f"| what | value |\n|---|---|\n{facts}\n\n"
        f"## Accuracy\n\n{_accuracy_table(rows)}\n\n"
        f"## How to open it\n\n{_opening(is_timms, has_head)}\n\n"
        f"`record.json` holds the whole recipe and the course of the training.\n\n"
        f"## License\n\n`{license.text}`, as {license.why} says. It learned from:\n\n{parts}\n"
    )


def _facts(classifier: str, record: dict[str, Any]) -> dict[str, str]:
    shape, recipe = record["architecture"], record["recipe"]
    trained_on = without_paths(record["trained_on"])
    parts = trained_on.get("parts", [trained_on])
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items() if name != "raysd")
    raysd = f"raysd {importlib.metadata.version('raysd')}"
    return {
        "network": f"{shape['backbone']} {shape['backbone_options'] or ''}, {shape['image_size']} px",
        "classes": f"{shape['num_classes']:,}",
        "trained on": "; ".join(_part(part) for part in parts),
        "recipe": f"{recipe['optimizer']}, {record.get('num_steps', 0):,} steps",
        "seed": str(record["seed"]),
        "fingerprint of all that shapes the weights": classifier,
        "made with": f"{raysd}, {versions}" if versions else raysd,
    }


def _part(part: dict[str, Any]) -> str:
    count = f"{part['images_per_class']} images a class" if part.get("images_per_class") else "all images"
    share = f", {part['share']:.0%} of each batch" if part.get("share") else ""
    if part["kind"] != "clone":
        return f"{part['kind']} {part['name']}, {count}{share}"
    how = f"generator {part['model']}, prompts {part['variant']}, guidance scale {part['guidance_scale']:g}"
    taught = f", {words}" if (words := teacher_words(part)) else ""
    return f"generated images of clone {part['fingerprint']} ({how}), {count}{share}{taught}"


def _accuracy_table(rows: Sequence[AccuracyRow]) -> str:
    if not rows:
        return "Not measured."
    lines = [
        f"| {as_cell(_set_name(row))} | {ROLES.get(row['role'], row['role'])} | {_metric(row)} "
        f"| {row['value']:.2f} | {row['low']:.2f} to {row['high']:.2f} | {row['num_images']:,} |"
        for row in rows
    ]
    head = "| measured on | as | metric | % | 95 % interval over images | images |\n|---|---|---|---:|---:|---:|\n"
    text = "A transfer set is classified by a probe on the frozen features.\n\n" if _is_transfer(rows) else ""
    return text + head + "\n".join(lines)


def _metric(row: AccuracyRow) -> str:
    return METRICS.get(row["metric"], row["metric"])


def _is_transfer(rows: Sequence[AccuracyRow]) -> bool:
    return any(row["role"] == "transfer" for row in rows)


def _set_name(row: AccuracyRow) -> str:
    shots = [f"{row['shots']} shots"] if row["shots"] else []
    probe = [row["probe_label"]] if row["probe_label"] else []
    return ", ".join([str(without_paths(row["dataset"], REAL_SET)), *shots, *probe])


def _results(rows: Sequence[AccuracyRow]) -> list[Any]:
    """Return the accuracies on test sets as the hub lists them."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=str(without_paths(row["dataset"], REAL_SET)),
            dataset_name=_set_name(row),
            metric_type="accuracy",
            metric_name=f"{_metric(row)}, %",
            metric_value=round(row["value"], 2),
        )
        for row in rows
        if row["role"] in ("test", "shift")
    ]


def _opening(is_timms: bool, has_head: bool) -> str:
    what = "" if has_head else " It gives features: the head of its training needs raysd."
    if is_timms:
        code = f'import timm\n\nmodel = timm.create_model("hf-hub:{ID}", pretrained=True).eval()'
        return f"With timm alone.{what}\n\n```python\n{code}\n```"
    code = (
        "import sys\n\nimport timm\nfrom huggingface_hub import snapshot_download\n\n"
        f'sys.path.append(snapshot_download("{ID}", allow_patterns=["{FILE}"]))\n'
        f'import {FILE.removesuffix(".py")}\n\nmodel = timm.create_model("hf-hub:{ID}", pretrained=True).eval()'
    )
    return (
        "timm has no ResNet with a stem for small images, so this is no network of timm's. "
        f"`{FILE}` in this repository adds it; raysd is not needed.{what}\n\n```python\n{code}\n```"
    )
