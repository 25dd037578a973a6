"""The experiment file that repeats a clone, from its spec alone."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from raysd.clone.clone import Clone
from raysd.clone.dataset_card import as_cell
from raysd.clone.spec import CloneSpec
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.prompts.resolve import built_in_variants, resolve_variant
from raysd.prompts.variant import PromptVariant
from raysd.resolve import clone_spec_of
from raysd.sharing.repository import HubFile, without_paths

EXPERIMENT, CLASSES = "experiment.yaml", "classes.csv"
COMMAND = f"raysd generate {EXPERIMENT}"
WITH_FILES = "With the files of this repository in one folder, raysd generates it again"


@dataclass(frozen=True)
class Repeat:
    """What a repository holds to generate its clone again."""

    files: tuple[HubFile, ...]
    """An experiment file and a class table; nothing where they would not generate it."""
    text: str
    """How it is generated again, in Markdown."""
    notes: tuple[str, ...] = ()
    """The same for whoever pushes, where something is lacking."""


def repeat_of(clone: Clone, batch_size: int | None) -> Repeat:
    """Return what generates a clone again.

    Nothing does for prompts from tables of the user, and for LoRA files: those are not part of the repository. Where a
    path was cut, as that of a model on this machine, the experiment file has to be told where its like is.
    """
    values = _experiment_values(clone, batch_size)
    if values is None or not _repeats(clone, values):
        return Repeat(
            (),
            "It was generated with tables, LoRA files or a classifier that are not part of this repository.",
            ("no command repeats this clone elsewhere: it needs tables, LoRA files or a classifier of yours",),
        )
    shown = without_paths(values)
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    head, how, notes = f"Generates this clone again: {COMMAND}", f"{WITH_FILES}:\n\n    {COMMAND}", tuple[str, ...]()
    if shown != values:
        generator = " ".join(shown["generation"]["model"].split())
        lacks = f"it needs files that are not in this repository, as the generator {generator}"
        head = f"Does not repeat the clone as it is: {lacks}. Replace the paths that were cut."
        how = f"`{EXPERIMENT}` holds the settings, but does not repeat it as it is: {as_cell(lacks)}."
        notes = (f"no command repeats this clone elsewhere: {lacks}",)
    files = (HubFile.of(EXPERIMENT, f"# {head}\n{text}"), HubFile.of(CLASSES, _classes_csv(clone.spec)))
    return Repeat(files, how, notes)


def _experiment_values(clone: Clone, batch_size: int | None) -> dict[str, Any] | None:
    spec = clone.spec
    variant = _variant_values(spec)
    if variant is None or spec.loras or spec.latent_guide is not None:
        return None
    keys, counts = spec.table.keys, clone.counts
    generation: dict[str, Any] = {
        "model": spec.model.name,
        **({"revision": spec.model.commit or spec.model.revision} if spec.model.commit or spec.model.revision else {}),
        "variant": spec.variant_name,
        "negative_prompt": None if spec.variant.mixture else spec.variant.negative_prompt,
        "guidance_scale": spec.guidance_scale,
        "guidance_interval": list(spec.guidance_interval),
        **({"sampler": "paper"} if spec.scheduler is None else {"scheduler": spec.scheduler}),
        "scheduler_options": dict(spec.scheduler_options),
        "num_inference_steps": spec.num_inference_steps,
        "image_size": spec.image_size,
        "stored_size": spec.stored_size,
        "dtype": spec.dtype,
        "codec": spec.codec,
        "color": spec.color,
        "safety_checker": spec.safety_checker,
        "flagged": spec.flagged,
        "max_redraws": spec.max_redraws,
        "compile": spec.compile,
        **({"step_cache": spec.step_cache.model_dump()} if spec.step_cache is not None else {}),
        **spec.guiding.settings(),
        **({"first_image": spec.first_image} if spec.first_image else {}),
        "seed": spec.seed,
        "images_per_class": max(1, counts.default),
        "class_counts": {keys[label]: count for label, count in counts.own},
        "images_per_shard": clone.images_per_shard,
        **({} if batch_size is None else {"batch_size": batch_size}),
    }
    return {"classes": CLASSES, **({"variants": variant} if variant else {}), "generation": generation}


def _variant_values(spec: CloneSpec) -> dict[str, Any] | None:
    """Return the `variants` that give the clone's prompts: none for a built-in one; None where they cannot be told."""
    name, variant = spec.variant_name, spec.variant
    if name in built_in_variants():
        try:
            known = resolve_variant(name, built_in_variants(), spec.table)
        except UserError:
            known = PromptVariant()
        if known.with_negative_prompt("").identity() == variant.with_negative_prompt("").identity():
            return {}
    if variant.mixture or variant.class_fields or variant.added:
        return None
    values = variant.model_dump(include={"templates", "fields", "weights", "names", "hypernym"}, exclude_defaults=True)
    return {name: values}


def _classes_csv(spec: CloneSpec) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, spec.table.columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(spec.table.rows)
    return text.getvalue()


def _repeats(clone: Clone, values: dict[str, Any]) -> bool:
    """Return whether an experiment has the clone's fingerprint."""
    with TemporaryDirectory() as place:
        table = Path(place, CLASSES)
        table.write_text(_classes_csv(clone.spec))
        try:
            again = clone_spec_of(Experiment(**{**values, "classes": str(table), "storage": place}), fetch=False)
        except UserError:
            return False
        return again.fingerprint == clone.spec.fingerprint
