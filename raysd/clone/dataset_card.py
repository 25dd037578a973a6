"""The data set card of a clone, written from its spec and its record."""

import importlib.metadata
from typing import Any

import yaml

from raysd.clone.plan import ImageCounts, Plan

NUM_EXAMPLES = 5
MAX_SHORT = 20
LIMITS = """- Every picture was drawn by a diffusion model from a text prompt; none is a photo.
- The pictures carry the limits and biases of the generator and of what it was trained on.
- Labels are what the prompt asked for. Nobody checked that a picture shows it.
- A name with several senses may have been drawn in the wrong one."""


def dataset_card(plan: Plan, record: dict[str, Any]) -> str:
    """Markdown with the front matter that Hugging Face reads.

    Args:
        plan: the clone's plan; its counts are not used.
        record: `clone.json` of the complete clone.
    """
    spec = plan.spec
    counts = ImageCounts.from_json(record["num_classes"], record["planned"][0])
    front = {
        "pretty_name": f"Synthetic clone {spec.fingerprint}",
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "raysd"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    flags = ", ".join(f"{count:,} {flag}" for flag, count in sorted(record["flags"].items())) or "none"
    short = record["short_classes"]
    named = ", ".join(f"{key} ({count:,} fewer)" for key, count in list(short.items())[:MAX_SHORT])
    size = f"{spec.image_size} px" if spec.stored_size == spec.image_size else f"drawn at {spec.image_size} px, stored at {spec.stored_size} px"
    revision = spec.model.commit or spec.model.revision
    facts = {
        "generator": f"{spec.model.name}{'@' + revision if revision else ''} ({spec.family.pipeline}), weights {spec.model.digest}, {spec.dtype}",
        "LoRA": ", ".join(f"{lora.file.name} x {lora.scale:g}, {lora.digest}" for lora in spec.loras) or "none",
        "prompt variant": spec.variant_name,
        "templates": "; ".join(spec.variant.templates),
        "negative prompt": spec.variant.negative_prompt or "none",
        "guidance scale": f"{spec.guidance_scale:g}" + ("" if spec.guidance_interval == (0.0, 1.0) else f" in the steps {spec.guidance_interval}"),
        "sampler": f"{spec.scheduler or 'of the checkpoint'}, {spec.num_inference_steps} steps",
        "pictures": f"{record['num_images']:,} ({_per_class(counts)} for each of {len(spec.table):,} classes), {size}, {spec.codec}, {spec.color}",
        "flagged pictures": f"{flags} (column `flag`); policy: {spec.flagged}",
        "short classes": f"{len(short):,}: {named}" if short else "none",
        "seed": str(spec.seed),
        "made with": f"raysd {importlib.metadata.version('raysd')}, " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    }
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())
    prompts = "\n".join(f"- {_cell(plan.image(position).prompt)}" for position in range(min(NUM_EXAMPLES, len(spec.table))))
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
        f"# Synthetic clone {spec.fingerprint}\n\n"
        f"| what | value |\n|---|---|\n{rows}\n\n"
        f"First prompts:\n\n{prompts}\n\n"
        "Each row holds the exact prompt, the seed and the SHA-256 of its picture.\n\n"
        f"## Limits\n\n{LIMITS}\n\n"
        "## Licence\n\nThe licence of the generator decides what may be done with its pictures; see its model card.\n"
    )


def _per_class(counts: ImageCounts) -> str:
    fewest, most = int(counts.array.min()), int(counts.array.max())
    return f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _cell(text: str) -> str:
    """Text for a Markdown table: one line, with nothing that Markdown or HTML would read."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
