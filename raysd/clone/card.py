"""The data set card of a clone, written from its plan."""

import yaml

from raysd.clone.plan import Plan

NUM_EXAMPLES = 3


def dataset_card(plan: Plan, num_black: int) -> str:
    """Markdown with the front matter that Hugging Face reads."""
    spec = plan.spec
    front = {
        "pretty_name": f"Synthetic clone {spec.fingerprint}",
        "task_categories": ["image-classification"],
        "tags": ["synthetic", "raysd"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    facts = {
        "generator": f"{spec.model.name}{'@' + spec.model.revision if spec.model.revision else ''}, weights {spec.model.digest}",
        "prompt variant": spec.variant_name,
        "guidance scale": f"{spec.guidance_scale:g}",
        "sampler": f"{spec.scheduler or 'of the checkpoint'}, {spec.num_inference_steps} steps",
        "pictures": f"{len(plan):,} ({plan.images_per_class:,} for each of {len(spec.table):,} classes), {spec.image_size} px, {spec.codec}, {spec.color}",
        "black pictures": f"{num_black:,} (column `flag`)",
        "seed": str(spec.seed),
    }
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items())
    prompts = "\n".join(f"- {_cell(plan.image(position).prompt)}" for position in range(min(NUM_EXAMPLES, len(plan))))
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n"
        f"# Synthetic clone {spec.fingerprint}\n\n"
        "Every picture here was drawn by a diffusion model from a text prompt; none is a photo. It carries the generator's limits and biases.\n\n"
        f"| what | value |\n|---|---|\n{rows}\n\n"
        f"First prompts:\n\n{prompts}\n\n"
        "Each row holds the exact prompt and the seed of its picture. Made by raysd.\n"
    )


def _cell(text: str) -> str:
    """Text for a Markdown table: one line, with nothing that Markdown or HTML would read."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
