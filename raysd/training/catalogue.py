"""The built-in real sets: what they are, where they come from, how they are split and judged. They are data; `real_sets.yaml` holds them."""

from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raysd.errors import UserError
from raysd.training.library_sources import HubSet, hub_source, torchvision_source
from raysd.training.offline_sets import OFFLINE_SETS
from raysd.training.real_sources import Source, Split, annotation_source, array_source, folder_source, join_sources

Metric = Literal["top1", "mean_per_class"]
ClassKeys = Literal["imagenet1k", "imagenet_a", "imagenet_r"]
KEY_FILES: dict[ClassKeys, str] = {"imagenet1k": "imagenet_synsets.txt", "imagenet_a": "imagenet_a_synsets.txt", "imagenet_r": "imagenet_r_synsets.txt"}


class TorchvisionSet(BaseModel):
    """A class of `torchvision.datasets`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    class_name: str = Field(alias="class")
    options: dict[str, Any] = {}


class SourceSettings(BaseModel):
    """Where a set comes from: one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    offline: str | None = None
    """With a package; a name in `offline_sets`."""
    hub: HubSet | None = None
    torchvision: TorchvisionSet | None = None
    folder: bool = False
    """A folder of class folders, fetched by hand."""
    annotations: bool = False
    """A folder with pictures and JSON files in COCO's form, fetched by hand."""

    @model_validator(mode="after")
    def _one(self) -> "SourceSettings":
        if sum(map(bool, (self.offline, self.hub, self.torchvision, self.folder, self.annotations))) != 1:
            raise ValueError("a set has one source")
        return self


class BuiltInSet(BaseModel):
    """A built-in set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str
    licence: str
    download: str = ""
    """How much is fetched; empty when nothing is."""
    url: str = ""
    classes: int
    pictures: dict[Split, int] = {}
    """How many each split has."""
    source: SourceSettings
    splits: dict[Split, list[Any]] = {}
    """The official splits that make up each part: names of the hub's splits, arguments of torchvision's class, folders, or JSON files."""
    frozen: str | None = None
    """The committed split of a set that has no official one."""
    probe: Literal["lbfgs", "sgd", "knn"] = "lbfgs"
    """How a transfer set is judged."""
    metric: Metric = "top1"
    shared_classes: bool = False
    """Leave out the pictures of classes that the class table does not have."""
    class_keys: ClassKeys | None = None
    """What its labels mean, as WordNet ids."""
    needs_class_map: bool = False
    """Its class names say nothing of the classes that one has; a class map must."""
    folders: Literal["name", "index"] = "name"
    """What the names of its folders are: class names, or class numbers."""

    @model_validator(mode="after")
    def _split(self) -> "BuiltInSet":
        if bool(self.splits) == (self.frozen is not None) and self.source.offline is None:
            raise ValueError("a set has official splits or a frozen one")
        return self

    @property
    def by_hand(self) -> bool:
        """True when it cannot be fetched, and must be given as `path`."""
        return self.source.folder or self.source.annotations

    def has(self, split: Split) -> bool:
        """True when the set has this part."""
        return split in self.splits or self.frozen is not None or self.source.offline is not None


@cache
def built_in_sets() -> dict[str, BuiltInSet]:
    """The sets that ship with raysd, by name."""
    text = (Path(__file__).parent / "real_sets.yaml").read_text(encoding="utf-8")
    return {name: BuiltInSet(**body) for name, body in yaml.safe_load(text).items()}


def open_built_in(name: str, split: Split, path: Path | None = None) -> Source:
    """The pictures of a built-in set: of one split, or all of them where the split is a frozen one.

    Raises:
        UserError: it cannot be fetched or read, or is not what was published.
    """
    entry = built_in_sets()[name]
    source, parts = entry.source, entry.splits.get(split, [None])
    if source.offline is not None:
        offline = OFFLINE_SETS[source.offline]
        found = array_source(name, *offline.load(split), offline.class_names)
    elif source.hub is not None:
        hub = source.hub if path is None else source.hub.model_copy(update={"id": str(path.absolute()), "config": None, "revision": None})
        found = hub_source(hub, "+".join(parts))[0]
    elif source.torchvision is not None:
        chosen = source.torchvision
        found = join_sources([torchvision_source(chosen.class_name, chosen.options | (part or {}), path) for part in parts])
    else:
        assert path is not None
        read = annotation_source if source.annotations else lambda folder: folder_source(folder, entry.folders == "index")
        found = join_sources([read(path / part) for part in parts])
    names = found.class_names if entry.class_keys is None else translate_names(name, found.class_names, class_keys(entry.class_keys))
    return Source(name, found.labels, names, found.encoded, found.files)


@cache
def class_keys(name: ClassKeys) -> tuple[str, ...]:
    """The WordNet ids of a set's classes in label order, from timm's tables."""
    text = resources.files("timm.data").joinpath("_info", KEY_FILES[name]).read_text(encoding="utf-8")
    return tuple(text.split())


def translate_names(name: str, names: list[str], keys: tuple[str, ...]) -> list[str]:
    """Class names as WordNet ids: those of a set whose classes have no names, or numbers, or such ids already.

    Raises:
        UserError: a class that is none of these.
    """
    if not names:
        return list(keys)
    if set(names) <= set(keys):
        return names
    if all(class_name.isdecimal() and int(class_name) < len(keys) for class_name in names):
        return [keys[int(class_name)] for class_name in names]
    wrong = next(class_name for class_name in names if class_name not in keys)
    raise UserError("real set", name, f"its class {wrong!r} is none of the set's {len(keys)} classes; give the folder that holds the class folders")
