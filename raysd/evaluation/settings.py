"""Evaluation settings, as they stand in an experiment file."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, WrapSerializer, model_validator

from raysd.clone.settings import Seed
from raysd.renamed import rename_keys
from raysd.settings import Section, Unit

PositiveInt = Annotated[int, Field(ge=1)]
Kind = Literal["lbfgs", "sgd", "knn"]
Scale = Literal["raw", "l2", "standard"]
SCALE_NAMES: dict[Scale, str] = {"raw": "raw", "l2": "L2-normalized", "standard": "standardized"}
USUAL_SCALES: dict[Kind, Scale] = {"lbfgs": "raw", "sgd": "l2", "knn": "l2"}


class ProbeSettings(Section):
    """Settings of a probe of frozen features. A built-in set has its usual kind, which holds where none is named."""

    kind: Kind = "lbfgs"
    """Probe of the frozen features: logistic regression by L-BFGS (`lbfgs`) or by SGD (`sgd`), or nearest neighbors
    (`knn`)."""
    scale: Scale | None = None
    """Scaling of the features: `raw` is none, `l2` unit length, `standard` zero mean and unit variance; when null, none
    for `lbfgs`, and unit length for `sgd` and `knn`."""
    search: Literal["path", "tpe"] = "path"
    """How `lbfgs` tries its strengths: evenly spaced and solved together (`path`), or one by one as Optuna's TPE asks
    (`tpe`). `sgd` always asks TPE."""
    trials: Annotated[PositiveInt, Unit("settings")] = 30
    """Settings that are tried on the validation split; the best one is fitted again on all training images."""
    max_iterations: Annotated[PositiveInt, Unit("iterations")] = 2000
    """Most iterations of L-BFGS for one strength."""
    epochs: Annotated[PositiveInt, Unit("epochs")] = 100
    """Passes of SGD over the features."""
    batch_size: Annotated[PositiveInt, Unit("images")] = 1024
    """Images per step of SGD."""
    neighbors: Annotated[PositiveInt, Field(serialization_alias="neighbours")] = (
        20  # the alias is what fingerprints are made of
    )
    """Nearest training images that vote for the class in `knn`."""

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


class RealSource(Section):
    """A set of real images: a built-in one by name, or your own by path."""

    name: str
    """Name of a built-in set or of a data set of the hub, or path of a Parquet file or of a folder with one folder per
    class."""
    path: str | None = None
    """Folder in which a built-in set lies that cannot be downloaded; null for the others."""


class TestSet(RealSource):
    """Real images of the classifier's own classes."""

    __test__ = False  # pytest takes it for a test

    shared_classes: bool | None = None
    """Leave out the images of classes that the class table does not have; when null, as the built-in set says, else
    not."""
    class_map: str | None = None
    """JSON file that names, for each class of the set, the class of the table, several that count as right, or null for
    none."""


class TransferSet(RealSource):
    """A set of other classes, on which a probe is trained on frozen features."""

    shots: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    """Training images per class, or several such numbers; all when null."""
    probe: ProbeSettings | None = None
    """Probe that is trained on the features; when null, the usual one of the built-in set, else `lbfgs`."""
    seeds: list[Seed] = []
    """Seeds of the splits, of the shots and of SGD, with one result each; the classifier's own seed when empty."""

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


class EvaluationSettings(Section):
    """Sets that a classifier is measured on."""

    test_set: ClassSet | None = None
    """Real test images of the same classes: a built-in set, a data set of the hub, a Parquet file, or a folder with one
    folder per class key; by name, or as a member of `test_sets`. Without it, nothing is tested."""
    test_sets: list[AnyTestSet] = []
    """Further test sets of the same classes, as ImageNet-V2 or ImageNet-R: a name, or a mapping as below."""
    validation_set: ClassSet | None = None
    """Real images on which a sweep chooses, of a built-in set those of its training split; by name, or as a member of
    `test_sets`. The test set is only reported."""
    validation_images_per_class: Annotated[PositiveInt, Unit("images")] | None = 100
    """Validation images of each class, the last ones, away from the first that a comparison with real images trains on;
    all when null."""
    transfer_sets: list[AnyTransferSet] = []
    """Sets of other classes, on which probes of the frozen features are trained and tested: a name, or a mapping as
    below."""
    generated_images_per_class: Annotated[PositiveInt, Unit("images")] = 50
    """Held-out generated images of each class that classifiers are measured on where no real images are named; in a
    sweep so many of each of up to 8 settings."""
    pretrained: list[str] = []
    """Classifiers that are measured beside your own, as folders in timm's format or hub ids, for example
    `timm/resnet50.a1_in1k`."""
    skip_absent: bool = False
    """Name further sets that are not available as skipped and measure the others, instead of stopping."""


class AnalysisSettings(Section):
    """What `raysd analyze` compares the clone and the classifiers' features with."""

    real: ClassSet | None = None
    """Real images of the classes, by name or as a member of `test_sets`; when null, the validation set of `evaluation`,
    else its test set."""
    model: str | None = None
    """Model whose features compare the clone with the real images, as a folder in timm's format or a hub id, as
    `timm/resnet50.a1_in1k`; when null, they are not compared."""
    images_per_class: Annotated[PositiveInt, Unit("images")] = 100
    """Most images of each class to analyze, the first ones, of the clone and of the real images."""
    neighbors: Annotated[PositiveInt, Field(serialization_alias="neighbours")] = (
        5  # the alias is what fingerprints are made of
    )
    """Nearest neighbors that precision, recall, density and coverage are computed with."""

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        return rename_keys(values, {"neighbours": "neighbors"})
