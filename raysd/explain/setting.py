"""What each setting of an experiment file means, from the descriptions in the JSON schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from raysd.config import Experiment
from raysd.errors import UserError
from raysd.explain.words import default_in_words, range_in_words, type_in_words, unit_of
from raysd.training.recipe import Recipe
from raysd.yaml_text import Kind, members

REPOSITORY = "https://github.com/raysd/raysd"
PAGE = f"{REPOSITORY}/blob/main/docs/settings.md"
NAME = "<name>"  # stands for a key that users choose, as that of a prompt variant
SAME = {
    "training.sources.clone": "generation",
    "sweep.space.generation": "generation",
    "sweep.space.training": "training",
}
"""Keys below which the settings of another section stand."""
OTHER_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "epochs": "num_epochs",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "prompt": "variant",
}
"""Names that people look for, and the setting's own."""
CLONE, SCORES, CLASSIFIER = "of the clone", "of the scores", "of the classifiers"
CAPTIONS = "of the captions"
RESULTS, SWEEP, NONE = "of the result rows", "of the sweep", "in none"
ROUNDS = "of the rounds"
ENTERS = {
    "": NONE,
    "classes": CLONE,
    "fill_from_wordnet": CLONE,
    "variants": CLONE,
    "captions": CAPTIONS,
    "captions.key_variable": NONE,
    "captions.num_requests": NONE,
    "captions.captions_per_class": NONE,
    "captions.max_attempts": NONE,
    "generation": CLONE,
    "generation.images_per_class": CLASSIFIER,
    "generation.class_counts": CLASSIFIER,
    "generation.max_dropped_share": NONE,
    "generation.images_per_shard": NONE,
    "generation.batch_size": NONE,
    "generation.num_actors": NONE,
    "generation.min_actors": NONE,
    "generation.cpus_per_actor": NONE,
    "generation.gpus_per_actor": NONE,
    "scoring": SCORES,
    "scoring.batch_size": NONE,
    "training": CLASSIFIER,
    "training.min_workers": NONE,
    "training.checkpoint_steps": NONE,
    "training.validate_epochs": NONE,
    "training.logger": NONE,
    "evaluation": RESULTS,
    "evaluation.skip_absent": NONE,
    "analysis": RESULTS,
    "adaptive": ROUNDS,
    "adaptive.weight": CLONE,
    "adaptive.every": CLONE,
    "adaptive.through_denoiser": CLONE,
    "sweep": SWEEP,
    "sweep.max_concurrent_trials": NONE,
    "sweep.extra_trials": NONE,
}
"""The first fingerprint that a setting enters, by key; what is not named is as the section above it."""


@dataclass(frozen=True)
class Setting:
    """A key of an experiment file."""

    path: tuple[str, ...]
    owner: type[BaseModel]
    """The section that has it."""
    sections: tuple[type[BaseModel], ...]
    """The sections that its value may be."""

    @property
    def key(self) -> str:
        """The dotted key, as in an override."""
        return ".".join(self.path)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return _schema_of(self.owner)["properties"][self.path[-1]]

    @property
    def description(self) -> str:
        """What it means, in a sentence or two."""
        return " ".join(self._schema.get("description", "").split())

    @property
    def type(self) -> str:
        """What its value is, in words."""
        return type_in_words(self._schema)

    @property
    def range(self) -> str:
        """Least and largest value, in words; empty where there is no limit."""
        return range_in_words(self._schema)

    @property
    def unit(self) -> str:
        """What the number counts; empty where it is none."""
        return unit_of(self._schema)

    @property
    def default(self) -> str:
        """The default as it would stand in the file; empty for a section, whose settings have their own."""
        return default_in_words(self.owner.model_fields[self.path[-1]])

    @property
    def enters(self) -> str:
        """The first fingerprint that the setting enters; what is made from the named thing has another one, too."""
        parts = [".".join(self.path[:end]) for end in range(len(self.path), -1, -1)]
        return next(ENTERS[part] for part in parts if part in ENTERS)

    @property
    def link(self) -> str:
        """Address of its section in the documentation."""
        return f"{PAGE}#{anchor(self.path if self.sections else self.path[:-1])}"


def anchor(path: tuple[str, ...]) -> str:
    """Return the anchor of a section on the page docs/settings.md."""
    return "".join(part for part in path if part != NAME) or "the-whole-file"


@cache
def all_settings() -> tuple[Setting, ...]:
    """Return each setting of an experiment file, in the order of the file, those of recipes too."""
    return tuple(_settings_below(Experiment, ()))


def find_setting(key: str) -> Setting:
    """Return the setting under a key, as `generation.guidance_scale`.

    Raises:
        UserError: there is none; the error names the nearest one.
    """
    parts = tuple(part for part in key.split(".") if not part.isdecimal())
    for path in (_same(parts), parts):
        for setting in all_settings():
            if _fits(setting.path, path):
                return setting
    raise UserError("setting", key, f"unknown; {_nearest(key)}")


def settings_of(path: tuple[str, ...]) -> list[Setting]:
    """Return the settings of a section, without those of the sections in it."""
    return [
        setting
        for setting in all_settings()
        if setting.path[: len(path)] == path and len([part for part in setting.path[len(path) :] if part != NAME]) == 1
    ]


def _settings_below(section: type[BaseModel], path: tuple[str, ...]) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        inner = [(Recipe, ())] if name == "recipe_options" else _sections_in(field.annotation)
        yield Setting((*path, name), section, tuple(each for each, _ in inner))
        for each, hop in inner:
            yield from _settings_below(each, (*path, name, *hop))


def _sections_in(annotation: Kind) -> list[tuple[type[BaseModel], tuple[str, ...]]]:
    """Return the sections that a value may be or hold, each with the keys in between that users choose."""
    found: list[tuple[type[BaseModel], tuple[str, ...]]] = []
    for kind in members(annotation):
        origin: Any = get_origin(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found.append((kind, ()))
        elif origin in (list, dict):
            hop = (NAME,) if origin is dict else ()
            found += [(section, (*hop, *more)) for section, more in _sections_in(get_args(kind)[-1])]
    return found


def _same(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the path of the section whose settings also stand at this place."""
    key = ".".join(parts)
    for here, there in SAME.items():
        if key.startswith(here + "."):
            return tuple((there + key.removeprefix(here)).split("."))
    return parts


def _fits(path: tuple[str, ...], given: tuple[str, ...]) -> bool:
    return len(path) == len(given) and all(part in (NAME, own) for part, own in zip(path, given, strict=True))


def _nearest(key: str) -> str:
    """Return which keys may be meant: those with the same last part, else a similar key, else similar last parts."""
    names = {setting.key: setting.path[-1] for setting in all_settings()}
    given = key.rpartition(".")[2]
    name = OTHER_NAMES.get(given, given)
    close = [each for each, last in names.items() if last == name]
    close = close or get_close_matches(key, names, 1, 0.8)
    close = close or [each for each, last in names.items() if last in get_close_matches(name, names.values(), 1, 0.75)]
    return f"did you mean {' or '.join(close[:3])}?" if close else "raysd explain lists all sections"


@cache
def _schema_of(section: type[BaseModel]) -> dict[str, Any]:
    return section.model_json_schema(by_alias=False)
