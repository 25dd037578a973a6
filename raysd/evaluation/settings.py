"""Evaluation settings, as they stand in an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_validator,
)

from raysd.clone.settings import Seed
from raysd.renamed import rename_keys

PositiveInt = Annotated[int, Field(ge=1)]
Kind = Literal["lbfgs", "sgd", "knn"]
Scale = Literal["raw", "l2", "standard"]
SCALE_NAMES: dict[Scale, str] = {"raw": "raw", "l2": "L2-normalized", "standard": "standardized"}
USUAL_SCALES: dict[Kind, Scale] = {"lbfgs": "raw", "sgd": "l2", "knn": "l2"}


class ProbeSettings(BaseModel):
    """Settings of a probe of frozen features. A built-in set has its usual kind, which holds where none is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "lbfgs"
    """Logistic regression by L-BFGS or by SGD, or nearest neighbors."""
    scale: Scale | None = None
    """Scaling of the features; when empty, nothing for `lbfgs`, and unit length for `sgd` and `knn`."""
    search: Literal["path", "tpe"] = "path"
    """How `lbfgs` tries its strengths: evenly spaced and solved together, or one by one as Optuna's TPE asks. `sgd`
    always asks TPE."""
    trials: PositiveInt = 30
    """Settings that are tried on the validation split; the best one is fitted again on all training images."""
    max_iterations: PositiveInt = 2000
    """Of L-BFGS."""
    epochs: PositiveInt = 100
    """Of SGD."""
    batch_size: PositiveInt = 1024
    """Of SGD."""
    neighbors: Annotated[PositiveInt, Field(serialization_alias="neighbours")] = (
        20  # the alias is what fingerprints are made of
    )
    """That vote for the class, in `knn`."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        return rename_keys(values, {"neighbours": "neighbors"})

    @property
    def used_scale(self) -> Scale:
        """The scale, or the usual one of this kind."""
        return self.scale or USUAL_SCALES[self.kind]

    @property
    def label(self) -> str:
        """Settings that are not the usual ones, in a few words; empty for L-BFGS with its defaults."""
        usual = ProbeSettings(kind=self.kind)
        own = {name: value for name, value in self if name not in ("kind", "scale") and value != getattr(usual, name)}
        scale = [f"{SCALE_NAMES[self.used_scale]} features"] if self.used_scale != usual.used_scale else []
        return ", ".join(
            [
                *([self.kind] if self.kind != "lbfgs" else []),
                *scale,
                *(f"{name} {value}" for name, value in own.items()),
            ]
        )


class RealSource(BaseModel):
    """A set of real images: a built-in one by name, or your own by path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """A built-in set, a Parquet file, or a folder with one folder per class."""
    path: str | None = None
    """Folder of a built-in set that cannot be downloaded."""


class TestSet(RealSource):
    """Real images of the classifier's own classes."""

    __test__ = False  # pytest takes it for a test

    shared_classes: bool | None = None
    """Leave out the images of classes that the class table does not have; when empty, as the built-in set says, else
    not."""
    class_map: str | None = None
    """A JSON file: for each class of the set the class of the table, several that count as right, or null for none."""


class TransferSet(RealSource):
    """A set of other classes, on which a probe is trained on frozen features."""

    shots: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Training images per class, or several such numbers; all when empty."""
    probe: ProbeSettings | None = None
    """The built-in set's usual one when empty."""
    seeds: list[Seed] = []
    """Seeds of the splits, the shots and SGD; the classifier's own seed when empty."""

    @property
    def all_shots(self) -> list[int | None]:
        """Each number of shots that is measured."""
        return list(self.shots) if isinstance(self.shots, list) else [self.shots]


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _short(wanted: "TestSet", dump: SerializerFunctionWrapHandler) -> Any:
    """Return the name of a set that has nothing else: files and fingerprints keep the form that they always had."""
    return wanted.name if wanted == TestSet(name=wanted.name) else dump(wanted)


AnyTestSet = Annotated[TestSet, BeforeValidator(_named, json_schema_input_type=TestSet | str)]
AnyTransferSet = Annotated[TransferSet, BeforeValidator(_named, json_schema_input_type=TransferSet | str)]
ClassSet = Annotated[AnyTestSet, WrapSerializer(_short)]
"""Real images of the classifier's own classes, by name or with all that a test set takes."""


class EvaluationSettings(BaseModel):
    """Sets that a classifier is measured on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_set: ClassSet | None = None
    """Real images of the same classes: a built-in set, a Parquet file, or a folder with one folder per class key. By
    name, or as a member of `test_sets`."""
    test_sets: list[AnyTestSet] = []
    """Further ones, as ImageNet-V2 or ImageNet-R."""
    validation_set: ClassSet | None = None
    """Real images on which a sweep chooses; the training split of a built-in set. The test set is only reported. By
    name, or as a member of `test_sets`."""
    validation_images_per_class: PositiveInt | None = 100
    """The last so many of each class, away from the first ones that a comparison with real images trains on; all
    when empty."""
    transfer_sets: list[AnyTransferSet] = []
    pretrained: list[str] = []
    """Classifiers that are measured beside your own: folders in timm's format, or hub ids as
    `timm/resnet50.a1_in1k`."""
    skip_absent: bool = False
    """List sets that are not available as skipped, and measure the others, instead of stopping."""


class AnalysisSettings(BaseModel):
    """Settings of `analyze`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    real: ClassSet | None = None
    """Real images of the classes, by name or as a member of `test_sets`; the evaluation's validation set when empty,
    else its test set."""
    model: str | None = None
    """Whose features compare the clone with the real images: a folder in timm's format, or a hub id as
    `timm/resnet50.a1_in1k`."""
    images_per_class: PositiveInt = 100
    """At most so many of each class, the first ones, of the clone and of the real images."""
    neighbors: Annotated[PositiveInt, Field(serialization_alias="neighbours")] = (
        5  # the alias is what fingerprints are made of
    )
    """Of precision, recall, density and coverage."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        return rename_keys(values, {"neighbours": "neighbors"})
