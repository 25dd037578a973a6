"""One training: its images, classifiers and recipe, and the fingerprints of its results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from raysd.classifier.architecture import Architecture, load_record
from raysd.data.images import ImageSet
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.training.loader import Ingest, Pool
from raysd.training.precision import ANSWERS, ASKED, AUTO, earlier_answer
from raysd.training.recipe import SMALL_IMAGE, Recipe
from raysd.training.settings import TrainingSettings


@dataclass(frozen=True)
class LoopConfig:
    """Configuration of the train loop: all that the workers need."""

    root: str
    run: str
    seeds: list[int]
    """The seeds to be trained, in this order."""
    fingerprints: dict[int, str]
    architecture: Architecture
    recipe: Recipe
    ingest: Ingest
    record: dict[str, Any]
    num_steps: int
    steps_per_epoch: int
    precision: str
    """As the settings say; `auto` is answered by the workers."""
    precision_note: Location | None
    """Folder where the first of several trainings that are compared notes its answer to `auto`."""
    forward_size: int | None
    compile: bool
    checkpoint_steps: int
    validation: ImageSet | None
    validate_epochs: int | None
    logger: str
    num_threads: int
    starts: Mapping[int, Location] = field(default_factory=dict)
    """Folders of the earlier classifiers with whose state seeds begin."""
    keeps_state: bool = False
    """Whether the state at the end is kept beside each classifier."""

    def is_done(self, seed: int) -> bool:
        """Return whether a seed's classifier is there, with its state if that is kept."""
        return is_whole(Location(self.root).child("classifiers", self.fingerprints[seed]), self.keeps_state)


STATE = "training_state.pt"
"""In a classifier's folder: the state at the end of its training."""
DECODING = 2  # version of the resizing of images
DECODED_SHARE = 8 / 7  # of the image size, where crops are taken from an image


@dataclass(frozen=True)
class TrainingRun:
    """A training: a classifier per seed, on the same images."""

    root: Location
    pools: tuple[Pool, ...]
    """The images; empty for classifiers that keep their random weights, as a baseline."""
    num_classes: int
    settings: TrainingSettings
    validation: ImageSet | None = None
    """The images for `validate_epochs`."""
    class_names: tuple[str, ...] = ()
    precision_note: Location | None = None
    """Folder where the first of several trainings that are compared notes its answer to `precision: auto`."""
    starts: Mapping[int, str] = field(default_factory=dict)
    """Fingerprints of the earlier classifiers with whose weights and optimizer seeds begin."""
    keeps_state: bool = False
    """Whether the state at the end is kept beside each classifier, for a training that goes on."""

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its overrides."""
        return self.settings.resolve_recipe()

    @property
    def architecture(self) -> Architecture:
        """The classifier's shape."""
        settings = self.settings
        return Architecture(
            settings.backbone,
            dict(settings.backbone_options),
            self.num_classes,
            settings.image_size,
            settings.stem_stride,
            self.recipe.projector,
        )

    @property
    def sets(self) -> list[ImageSet]:
        """All sets of all pools."""
        return [images for pool in self.pools for images in pool.sets]

    def record(self) -> dict[str, Any]:
        """Return what a result row needs to know about the classifiers."""
        trained_on = {"kind": "random", "name": "random initialization", "fingerprint": None, "images_per_class": None}
        if self.pools:
            trained_on = _describe(self.pools)
        names = {"class_names": list(self.class_names)} if self.class_names else {}
        return {
            "trained_on": trained_on,
            "recipe": self.recipe.model_dump(),
            "num_epochs": self.settings.num_epochs,
            ASKED: self.settings.precision,
            **names,
        }

    def fingerprint(self, seed: int) -> str:
        """Return a hash of everything that shapes the weights. With `precision: auto` the number format is no part of
        it, except for a classifier that an older raysd trained."""
        if seed not in self._fingerprints:
            self._fingerprints[seed] = self._found_fingerprint(seed)
        return self._fingerprints[seed]

    @cached_property
    def _fingerprints(self) -> dict[int, str]:
        return {}

    def _found_fingerprint(self, seed: int) -> str:
        own = self._fingerprint_with(seed, self.settings.precision)
        classifiers = self.root.child("classifiers")
        if self.settings.precision != AUTO or load_record(classifiers.child(own)) is not None:
            return own
        earlier = {answer: self._fingerprint_with(seed, answer) for answer in ANSWERS}
        answer = earlier_answer({answer: classifiers.child(name) for answer, name in earlier.items()})
        return own if answer is None else earlier[answer]

    def _fingerprint_with(self, seed: int, precision: str) -> str:
        settings = self.settings
        return fingerprint(
            {
                "pools": [
                    {"sets": [images.identity() for images in pool.sets], "share": pool.share} for pool in self.pools
                ],
                "architecture": vars(self.architecture),
                "recipe": self.recipe.model_dump(),
                "length": {"steps": settings.num_steps} if settings.num_steps else {"epochs": settings.num_epochs},
                "batch_size": settings.batch_size,
                "forward_size": settings.forward_size,
                "precision": precision,
                "compile": settings.compile,
                "decoding": DECODING,
                "num_workers": settings.num_workers,
                "num_threads": settings.num_threads,
                "seed": seed,
                **({"start": self.starts[seed]} if seed in self.starts else {}),
            }
        )

    def folder(self, seed: int) -> Location:
        """Return the folder of a seed's classifier."""
        return self.root.child("classifiers", self.fingerprint(seed))

    def is_trained(self, seed: int) -> bool:
        """Return whether a seed's classifier is there, with its state if that is kept."""
        return is_whole(self.folder(seed), self.keeps_state)

    def start_folders(self) -> dict[int, Location]:
        """Return the folders of the earlier classifiers with whose state seeds begin."""
        return {seed: self.root.child("classifiers", name) for seed, name in self.starts.items()}

    @property
    def name(self) -> str:
        """Name of the folder that holds the run's checkpoints."""
        return fingerprint([self.fingerprint(seed) for seed in self.settings.seeds])

    @property
    def decoded_size(self) -> int:
        """Side in pixels to which images are decoded; a little larger than crops of a part of an image."""
        size = self.settings.image_size
        return size if size <= SMALL_IMAGE or self.recipe.crop != "random_resized" else round(size * DECODED_SHARE)


def is_whole(folder: Location, keeps_state: bool) -> bool:
    """Return whether a classifier is in a folder, with the state at the end of its training if that is kept."""
    return load_record(folder) is not None and (not keeps_state or folder.exists(STATE))


def distinct_runs(runs: Sequence[tuple[int, TrainingRun]]) -> list[TrainingRun]:
    """Return each training of some classifier seeds once, in order."""
    return list({run.name: run for _, run in runs}.values())


def _describe(pools: tuple[Pool, ...]) -> dict[str, Any]:
    """Return the facts about one set; for a mixture its parts, and the facts about its first clone."""
    given = [
        {"name": images.name, "share": pool.share, **images.identity(), **images.about}
        for pool in pools
        for images in pool.sets
    ]
    if len(given) == 1:
        return {name: value for name, value in given[0].items() if name != "share"}
    parts = [{name: value for name, value in part.items() if name != "at_seed_0"} for part in given]
    at_seed_0 = fingerprint([_at_seed_0(part) for part in given])
    first = next((part for part in parts if part["kind"] == "clone"), parts[0])
    name, counts = " + ".join(part["name"] for part in parts), [part["images_per_class"] for part in parts]
    total = sum(counts) if all(isinstance(count, int) for count in counts) else None
    known = {} if at_seed_0 == fingerprint(parts) else {"at_seed_0": at_seed_0}
    return {
        **first,
        "name": name,
        "fingerprint": fingerprint(parts),
        "images_per_class": total,
        "parts": parts,
        **known,
    }


def _at_seed_0(part: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about a part of a mixture that do not depend on the seed of its clone."""
    own = {"at_seed_0", "left_out", "num_left_out"}
    kept = {name: value for name, value in part.items() if name not in own}
    return {**kept, "fingerprint": part.get("at_seed_0", part["fingerprint"])}
