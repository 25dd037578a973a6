"""Words of a page: factors, values, objectives, times and file names, as a person reads them."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

Objective = str | Mapping[str, float]

VARIANT, GUIDANCE = "generation.variant", "generation.guidance_scale"
FACTORS = {
    VARIANT: "prompt variant",
    GUIDANCE: "guidance",
    "generation.num_inference_steps": "steps",
    "generation.model": "generator",
}
USUAL_GUIDANCE = 7.5
"""The default of Stable Diffusion's pipelines; the guidance that a best one is compared with."""
METRICS = {"top1": "top-1 accuracy", "mean_per_class": "mean accuracy per class"}
ROLES = {
    "validation": "accuracy on held-out validation images",
    "transfer": "mean transfer accuracy",
    "test": "accuracy on the test images",
    "shift": "accuracy on the further test sets",
    "generated": "mean accuracy on held-out generated images",
}


def factor_words(factor: str) -> str:
    """Return a searched field in words: `training.recipe_options.learning_rate` is `learning rate`."""
    return FACTORS.get(factor) or factor.rpartition(".")[2].replace("_", " ")


def value_words(value: Any) -> str:
    """Return a searched value in words."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def guidance_words(guidance_scale: float | None) -> str:
    """Return `guidance 2`, or `guidance its own` where the prompt variant decides."""
    return f"guidance {'its own' if guidance_scale is None else f'{guidance_scale:g}'}"


def teacher_words(trained_on: Mapping[str, Any]) -> str:
    """Return whether the teachers of soft labels ever saw a real image, in words; empty where there were none."""
    answers = {"no": "saw no real image", "yes": "saw real images", "unknown": "may have seen real images"}
    teacher = trained_on.get("teacher")
    return "" if teacher is None else f"soft labels by a teacher that {answers[teacher['saw_real']]}"


def metric_words(metric: str) -> str:
    """Return the name of a metric in percent, in words."""
    return METRICS.get(metric, metric.replace("_", " "))


def objective_words(objective: Objective) -> str:
    """Return the objective that chose the best setting, in words; a mix names its weights."""
    if isinstance(objective, str):
        return ROLES.get(objective, objective)
    return "a mix: " + " + ".join(f"{weight:g} x {ROLES.get(role, role)}" for role, weight in objective.items())


def counts(objective: Objective, role: str) -> bool:
    """Return whether the sets of a role had a part in the choice."""
    return role in ((objective,) if isinstance(objective, str) else objective)


def duration(seconds: float) -> str:
    """Return a time as `42 s`, `3 min 20 s`, or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def slug(text: str) -> str:
    """Return a file name; where characters are dropped, a hash keeps two names distinct."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60]
    return name if name == text else f"{name or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def short(text: str, limit: int = 32) -> str:
    """Return one line of at most `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
