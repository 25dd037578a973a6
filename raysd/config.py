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

from raysd.adaptive.settings import AdaptiveSettings
from raysd.captions.settings import CaptionSettings
from raysd.clone.settings import CostSettings, GenerationSettings
from raysd.cluster.settings import ClusterSettings
from raysd.curation.settings import ScoringSettings
from raysd.errors import UserError
from raysd.evaluation.settings import AnalysisSettings, EvaluationSettings
from raysd.prompts.resolve import built_in_variants
from raysd.prompts.settings import Kind, VariantSettings
from raysd.prompts.table import ClassTable, fill_from_wordnet, load_class_table
from raysd.settings import Section
from raysd.storage.address import check_address, local_path
from raysd.storage.location import Location
from raysd.storage.paths import checked_address, full_path
from raysd.sweep.settings import SweepSettings
from raysd.training.settings import TrainingSettings
from raysd.yaml_text import check_truth_values, children, decode_text, describe_error, fit, read_value, read_yaml

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Experiment(Section):
    """All settings of one experiment."""

    model_config = ConfigDict(ignored_types=(cached_property,))

    name: Slug = "experiment"
    """Name of the experiment, which reports show: letters, digits, `.`, `_` and `-`, at most 64."""
    storage: Annotated[str, Field(min_length=1)] = "runs"
    """Storage root, a folder or a URI as `s3://bucket/runs`; all experiments that use it share its clones."""
    classes: str | list[str] = "fashion_mnist"
    """Classes of the data set: a list of names, a file with a class table, or a built-in table as `imagenet1k`."""
    fill_from_wordnet: bool = False
    """Look up missing definitions, hypernyms and synonyms of the classes in WordNet."""
    variants: dict[Slug, VariantSettings] = {}
    """Prompt variants of your own by name, beside the built-in ones; one under a built-in name changes that one."""
    lint: Literal["warn", "error", "off"] = "warn"
    """What to do about suspect prompts before anything is generated: warn, stop with an error, or look for none."""
    lint_ignore: list[Kind] = []
    """Kinds of findings of the prompt lint that are all right and are not shown."""
    captions: CaptionSettings = CaptionSettings()
    """Captions that `raysd caption` has a language model write for each class."""
    generation: GenerationSettings = GenerationSettings()
    """How the clone is generated: model, prompts, guidance, counts, and how the work is spread over a cluster."""
    scoring: ScoringSettings = ScoringSettings()
    """Scores that `raysd score` measures of each image of the clone."""
    cost: CostSettings = CostSettings()
    """Prices with which `raysd plan` names the cost of a clone."""
    cluster: ClusterSettings = ClusterSettings()
    """Resources that a job requests from a cluster before it begins."""
    training: TrainingSettings = TrainingSettings()
    """Which classifiers are trained, on which images, and how the work is spread over a cluster."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Real data sets that the classifiers are measured on."""
    analysis: AnalysisSettings = AnalysisSettings()
    """Real images and model that `raysd analyze` compares the clone with."""
    adaptive: AdaptiveSettings = AdaptiveSettings()
    """Rounds in which a classifier says what `raysd adapt` generates next."""
    sweep: SweepSettings = SweepSettings()
    """Which settings are compared, at which budgets, and by which score."""

    def __init__(self, **values: Any) -> None:
        """Validate the values of an experiment file. A section without values has its defaults.

        Raises:
            UserError: a key or a value is wrong.
        """
        values = {key: value for key, value in values.items() if value is not None or key not in _SECTIONS}
        check_truth_values(values, [type(self)], "")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError.from_validation(error, values=values, model=type(self)) from None

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
        """Return a local root as a full path, since other processes may work in other folders."""
        check_address("storage", storage)
        return checked_address(storage) if "://" in storage else full_path(storage)

    @field_validator("classes", mode="before")
    @classmethod
    def _in_order(cls, classes: Any) -> Any:
        if isinstance(classes, dict):
            raise ValueError("give the classes as a list in the order of their labels, as [cat, dog], or name a file")
        return classes

    @property
    def root(self) -> Location:
        """The storage root."""
        return Location(self.storage)


_SECTIONS = {
    name for name, field in Experiment.model_fields.items() if isinstance(field.default, BaseModel | dict | list)
}
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
    merged = OmegaConf.merge(_read_source(source), _create(_plain(values)))
    read = [_read_override(override) for override in overrides or []]
    return validate_experiment(_resolve(_merge(merged, read, overrides or [])))


def validate_experiment(values: Any) -> Experiment:
    """Build an experiment from plain values.

    Raises:
        UserError: a key or a value is wrong.
    """
    return Experiment(**{str(key): value for key, value in values.items()})


def _merge(merged: Any, parts: list[Any], overrides: list[str]) -> Any:
    """Return what overrides make of an experiment.

    Raises:
        UserError: an override names a key within a value that has none.
    """
    try:
        return OmegaConf.merge(merged, *parts)
    except (TypeError, OmegaConfBaseException):
        for part, override in zip(parts, overrides, strict=True):
            try:
                merged = OmegaConf.merge(merged, part)
            except (TypeError, OmegaConfBaseException):
                key, _, text = override.partition("=")
                remedy = "the experiment file has a list or a single value further up; override that as a whole"
                raise UserError(key, text, remedy) from None
        return merged


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
    if not equals or not all(names) or any(name != name.strip() for name in names):
        raise UserError("override", override, "write it as key=value")
    if not _is_text(text):
        raise UserError(key, text, "is no UTF-8 text; write it again")
    try:
        value = read_value(text, reduce(children, names, [Experiment]))
    except yaml.YAMLError as error:
        raise UserError(key, text, f"is no valid YAML ({describe_error(error)})") from None
    return _create(reduce(lambda inner, name: {name: inner}, reversed(names), value))


def _is_text(text: str) -> bool:
    """Return whether a word of the command line is text; bytes that are none come as lone surrogates."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


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
    check_address("configuration", path)
    if "://" not in path and local_path("configuration", path).is_dir():
        raise UserError("configuration", path, "is a folder; give the path of an experiment's YAML file")
    folder, _, name = (path if "://" in path else str(local_path("configuration", path).resolve())).rpartition("/")
    location = Location(folder)
    if not location.is_file(name):
        raise UserError("configuration", path, f"no such file; give the path of an experiment's YAML file{_hint(path)}")
    try:
        values = read_yaml(decode_text(location.read(name)))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError("configuration", path, f"is no valid YAML ({describe_error(error)})") from None
    if not isinstance(values, dict):
        raise UserError("configuration", path, "must hold keys and values")
    if dotted := next((key for key in values if "." in key), None):
        section, _, key = dotted.partition(".")
        remedy = f"keys with dots are for the command line; in a file, write sections: {section}: {{{key}: ...}}"
        raise UserError(dotted, getattr(values[dotted], "value", values[dotted]), remedy)
    return fit(values, [Experiment])


def _hint(path: str) -> str:
    """Return what else a word that is no file may have been."""
    return "" if "/" in path or path.endswith((".yaml", ".yml")) else "; overrides are written key=value"


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
