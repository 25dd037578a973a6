"""One experiment = one YAML file, validated; single values can be overridden as `key=value`."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from raysd.clone.settings import CostSettings, GenerationSettings
from raysd.cluster.settings import ClusterSettings
from raysd.curation.settings import ScoringSettings
from raysd.errors import UserError
from raysd.evaluation.settings import AnalysisSettings, EvaluationSettings
from raysd.prompts.resolve import built_in_variants
from raysd.prompts.settings import Kind, VariantSettings
from raysd.prompts.table import ClassTable, fill_from_wordnet, load_class_table
from raysd.storage.location import Location
from raysd.sweep.settings import SweepSettings
from raysd.training.settings import TrainingSettings

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Experiment(BaseModel):
    """All settings of one experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    name: Slug = "experiment"
    storage: str = "runs"
    """Storage root: a folder, s3:// or gs://. Clones in it are shared by all experiments that use it."""
    classes: str | list[str] = "fashion_mnist"
    """Class table: a built-in one, a file, or a list of names."""
    fill_from_wordnet: bool = False
    """Look up missing definitions, hypernyms and synonyms of the classes in WordNet."""
    variants: dict[Slug, VariantSettings] = {}
    """Prompt variants of your own, beside the built-in ones; one under a built-in name changes that one."""
    lint: Literal["warn", "error", "off"] = "warn"
    """What to do about suspect prompts before anything is generated."""
    lint_ignore: list[Kind] = []
    """Kinds of findings that are all right."""
    generation: GenerationSettings = GenerationSettings()
    scoring: ScoringSettings = ScoringSettings()
    cost: CostSettings = CostSettings()
    cluster: ClusterSettings = ClusterSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    analysis: AnalysisSettings = AnalysisSettings()
    sweep: SweepSettings = SweepSettings()

    def __init__(self, **values: Any) -> None:
        """Validate the values of an experiment file.

        Raises:
            UserError: a key or a value is wrong.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError.from_validation(error, values=values) from None

    @cached_property
    def table(self) -> ClassTable:
        """The class table."""
        table = load_class_table(self.classes)
        return fill_from_wordnet(table) if self.fill_from_wordnet else table

    @property
    def all_variants(self) -> dict[str, VariantSettings]:
        """Built-in variants and the experiment's own, which take precedence where names are equal."""
        return {**built_in_variants(), **self.variants}

    @field_validator("lint", mode="before")
    @classmethod
    def _off(cls, lint: Any) -> Any:
        """Accept a bare `off`, which YAML reads as false."""
        return "off" if lint is False else lint

    @field_validator("storage")
    @classmethod
    def _absolute(cls, storage: str) -> str:
        """Return a local root as a full path, since trials of a sweep run in folders of their own."""
        return storage if "://" in storage else str(Path(storage).expanduser().resolve())

    @property
    def root(self) -> Location:
        """The storage root."""
        return Location(self.storage)


ExperimentLike = Experiment | Mapping[str, Any] | str | Path | None
"""What the functions take for an experiment: one, the path of its file, what such a file holds, or the defaults."""


def load_experiment(
    source: ExperimentLike = None,
    overrides: list[str] | None = None,
    **values: Any,
) -> Experiment:
    """Read and validate an experiment.

    Args:
        source: a YAML file, on a disk or in an object store, a mapping with what such a file holds, or an experiment
            that is to be changed; the defaults when None.
        overrides: `key=value` pairs, as `generation.guidance_scale=4` or
            `sweep.space.generation.variant=[name,attributes]`.
        values: keys of the experiment file, as `generation={"guidance_scale": 4}`; merged into `source`.

    Raises:
        UserError: missing file, malformed YAML or override, unknown key, wrong type or value.
    """
    if isinstance(source, Experiment) and not overrides and not values:
        return source
    try:
        for override in overrides or []:
            if "=" not in override.lstrip("="):
                raise UserError("override", override, "write it as key=value")
        parts = _read_source(source), OmegaConf.create(_plain(values)), OmegaConf.from_dotlist(list(overrides or []))
        merged = OmegaConf.to_container(OmegaConf.merge(*parts), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        field, value = ("override", " ".join(overrides)) if overrides else ("configuration", source or values)
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        raise UserError(field, value, f"cannot be read ({str(error).splitlines()[0]})") from None
    return validate_experiment(merged)


def validate_experiment(values: Any) -> Experiment:
    """Build an experiment from plain values.

    Raises:
        UserError: a key or a value is wrong.
    """
    return Experiment(**{str(key): value for key, value in values.items()})


def _read_source(source: ExperimentLike) -> Any:
    if source is None:
        return OmegaConf.create({})
    if isinstance(source, Experiment | Mapping):
        return OmegaConf.create(_plain(source))
    if not isinstance(source, str | Path):
        raise UserError("configuration", source, "give the path of a YAML file, a mapping, or an Experiment")
    return _read(str(source))


def _plain(value: Any) -> Any:
    """Return values from Python code as a YAML file would hold them."""
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value


def _read(path: str) -> Any:
    folder, _, name = str(Path(path).expanduser().resolve() if "://" not in path else path).rpartition("/")
    location = Location(folder)
    if not location.is_file(name):
        raise UserError("configuration", path, "no such file; give the path of an experiment's YAML file")
    try:
        base = OmegaConf.create(location.read(name).decode())
    except Exception as error:  # YAML parsers raise many kinds; all mean the same to a user
        raise UserError("configuration", path, f"is no valid YAML ({str(error).splitlines()[0]})") from None
    if not OmegaConf.is_dict(base):
        raise UserError("configuration", str(path), "must hold keys and values")
    return base


def experiment_schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}


def repeat_command(name: str, path: str | Path | None, overrides: list[str]) -> str:
    """Return the shell command that repeats a command."""
    import shlex

    words = ["raysd", name, *([os.fspath(path)] if path is not None else []), *overrides]
    return shlex.join(words)
