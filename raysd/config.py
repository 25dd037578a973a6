"""One experiment = one YAML file, validated; single values can be overridden as `key=value`."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import GrammarParseError, InterpolationResolutionError, OmegaConfBaseException
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
from raysd.yaml_text import children, describe_error, fit, read_value, read_yaml

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Experiment(BaseModel):
    """All settings of one experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    name: Slug = "experiment"
    storage: Annotated[str, Field(min_length=1)] = "runs"
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
    parts = [_read_source(source), _create(_plain(values)), *map(_read_override, overrides or [])]
    return validate_experiment(_resolve(OmegaConf.merge(*parts)))


def validate_experiment(values: Any) -> Experiment:
    """Build an experiment from plain values.

    Raises:
        UserError: a key or a value is wrong.
    """
    return Experiment(**{str(key): value for key, value in values.items()})


def _read_source(source: ExperimentLike) -> Any:
    if source is None:
        return _create({})
    if isinstance(source, Experiment | Mapping):
        return _create(_plain(source))
    if not isinstance(source, str | Path):
        raise UserError("configuration", source, "give the path of a YAML file, a mapping, or an Experiment")
    return _create(_read(str(source)))


def _read_override(override: str) -> Any:
    """Return the keys and the value of `key=value`.

    Raises:
        UserError: no key or no value, or YAML in brackets that is malformed.
    """
    key, equals, text = override.partition("=")
    names = key.split(".")
    if not equals or not all(names):
        raise UserError("override", override, "write it as key=value")
    try:
        value = read_value(text, reduce(children, names, [Experiment]))
    except yaml.YAMLError as error:
        raise UserError(key, text, f"is no valid YAML ({describe_error(error)})") from None
    return _create(reduce(lambda inner, name: {name: inner}, reversed(names), value))


def _create(values: Any) -> Any:
    """Return values as OmegaConf has them, which merges them and looks up `${key}` and `${oc.env:NAME}`.

    Raises:
        UserError: a text with `${` is malformed.
    """
    try:
        return OmegaConf.create(values)
    except OmegaConfBaseException as error:
        raise _lookup_error(error, values) from None


def _resolve(merged: Any) -> Any:
    """Return plain values.

    Raises:
        UserError: a text refers to a key or a variable that does not exist.
    """
    try:
        return OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise _lookup_error(error, OmegaConf.to_container(merged, resolve=False)) from None


def _lookup_error(error: OmegaConfBaseException, values: Any) -> UserError:
    is_lookup = isinstance(error, GrammarParseError | InterpolationResolutionError)
    remedy = (
        "; for the characters ${ themselves write \\${" if is_lookup else "; use texts, numbers, lists and mappings"
    )
    key = error.full_key or "configuration"
    return UserError(key, _value_at(values, error.full_key or ""), _first_line(error) + remedy)


def _value_at(values: Any, key: str) -> Any:
    """Return the value under a dotted key, as OmegaConf writes it; the key where it cannot be followed."""
    try:
        for name in re.findall(r"[^.\[\]]+", key):
            values = values[int(name) if isinstance(values, list) else name]
    except (LookupError, TypeError, ValueError):
        return key
    return values


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


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


def _read(path: str) -> dict[str, Any]:
    folder, _, name = str(Path(path).expanduser().resolve() if "://" not in path else path).rpartition("/")
    location = Location(folder)
    if not location.is_file(name):
        raise UserError("configuration", path, "no such file; give the path of an experiment's YAML file")
    try:
        values = read_yaml(location.read(name).decode("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("configuration", path, f"is no valid YAML ({describe_error(error)})") from None
    if not isinstance(values, dict):
        raise UserError("configuration", path, "must hold keys and values")
    return fit(values, [Experiment])


def experiment_schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}


def experiment_keys() -> list[str]:
    """Return the dotted names of an experiment's settings, as `generation.guidance_scale`."""
    keys = []
    for name, field in Experiment.model_fields.items():
        kind = field.annotation
        inner = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
        keys += [f"{name}.{key}" for key in inner] or [name]
    return keys


@dataclass(frozen=True)
class CommandLine:
    """The words of a command line that name an experiment; other commands take the same ones."""

    path: str | None = None
    overrides: tuple[str, ...] = ()

    def command(self, name: str, *more: str) -> str:
        """Return a command with this experiment, to be pasted into a shell.

        Args:
            name: of the command, as `train`.
            more: further overrides and options.
        """
        return shlex.join(["raysd", name, *([] if self.path is None else [self.path]), *self.overrides, *more])
