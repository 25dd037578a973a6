"""The training job: one classifier per seed from a clone or a real set, on Ray Train."""

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from raysd.errors import UserError
from raysd.progress import say
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.training.classifier import Architecture, load_record
from raysd.training.pictures import PictureSet, count_pictures
from raysd.training.settings import TrainingSettings, resolve_precision

MAX_FAILURES = 3
MIN_WORKER_CPUS = 0.1
SPARE_CPUS = 1.0  # left for Ray Data's tasks
TRIAL_CPUS = 0.1  # held by the process of each trial of a sweep
LINE_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingRun:
    """What is trained: a classifier per seed, on the same pictures."""

    root: Location
    pictures: PictureSet | None
    """None for classifiers that keep their random weights, as a baseline."""
    num_classes: int
    settings: TrainingSettings

    @property
    def architecture(self) -> Architecture:
        """The classifier's shape."""
        settings = self.settings
        return Architecture(settings.backbone, dict(settings.backbone_options), self.num_classes, settings.image_size, settings.stem_stride)

    def record(self) -> dict[str, Any]:
        """What a result row needs to know about the classifiers."""
        pictures = self.pictures
        untrained = {"kind": "random", "name": "random initialisation", "fingerprint": None, "images_per_class": None}
        trained_on = untrained if pictures is None else {"name": pictures.name, **pictures.identity(), **pictures.about}
        return {"trained_on": trained_on, "recipe": self.settings.resolve_recipe().model_dump(), "num_epochs": self.settings.num_epochs}

    def fingerprint(self, seed: int) -> str:
        """Hash of everything that shapes the weights."""
        settings = self.settings
        return fingerprint(
            {
                "pictures": None if self.pictures is None else self.pictures.identity(),
                "architecture": vars(self.architecture),
                "recipe": settings.resolve_recipe().model_dump(),
                "num_epochs": settings.num_epochs,
                "batch_size": settings.batch_size,
                "precision": resolve_precision(settings.precision),
                "num_workers": settings.num_workers,
                "seed": seed,
            }
        )

    def folder(self, seed: int) -> Location:
        """Where the classifier of a seed lies."""
        return self.root.child("classifiers", self.fingerprint(seed))


def train_classifiers(run: TrainingRun, quiet: bool = False, num_concurrent: int = 1) -> list[str]:
    """Train what is missing; returns the fingerprint of each seed's classifier. Ray is started only if there is something to train.

    Args:
        run: what is trained.
        quiet: no progress lines.
        num_concurrent: how many such calls share the cluster.

    Raises:
        UserError: fewer pictures than one batch, or a batch that the workers cannot share.
    """
    missing = [seed for seed in run.settings.seeds if load_record(run.folder(seed)) is None]
    if missing and run.pictures is None:
        _save_untrained(run, missing)
    elif missing and run.pictures is not None:
        _fit(run, run.pictures, missing, quiet, num_concurrent)
    return [run.fingerprint(seed) for seed in run.settings.seeds]


def _save_untrained(run: TrainingRun, seeds: list[int]) -> None:
    import torch

    from raysd.training.classifier import build_classifier, save_classifier

    for seed in seeds:
        torch.manual_seed(seed)
        record = {**run.record(), "seed": seed, "fingerprint": run.fingerprint(seed)}
        save_classifier(run.folder(seed), build_classifier(run.architecture), run.architecture, record)


def _fit(run: TrainingRun, pictures: PictureSet, seeds: list[int], quiet: bool, num_concurrent: int) -> None:
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from raysd.session import cluster_cpus, cluster_gpus, ensure_ray
    from raysd.training.ingest import fits_in_memory, picture_dataset
    from raysd.training.loop import train_worker

    ensure_ray()
    settings = run.settings
    steps_per_epoch = _steps_per_epoch(pictures, settings)
    in_memory = fits_in_memory([pictures], settings.image_size)
    name = fingerprint([run.fingerprint(seed) for seed in seeds])
    cpus = _cpus_per_worker(settings, cluster_cpus(), num_concurrent)
    use_gpu = _uses_gpus(settings, cluster_gpus(), num_concurrent)
    num_steps = steps_per_epoch * settings.num_epochs
    config = {
        "root": run.root.uri if "://" in run.root.uri else run.root.path,
        "run": name,
        "seeds": seeds,
        "fingerprints": [run.fingerprint(seed) for seed in seeds],
        "architecture": vars(run.architecture),
        "recipe": settings.resolve_recipe().model_dump(),
        "record": run.record(),
        "num_steps": num_steps,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": settings.batch_size,
        "bfloat16": resolve_precision(settings.precision) == "bfloat16",
        "in_memory": in_memory,
        "num_threads": max(1, int(settings.cpus_per_worker)),
    }
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=config,
        datasets={"train": picture_dataset([pictures], settings.image_size)},
        dataset_config=DataConfig(datasets_to_split=[] if in_memory else "all"),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=settings.num_workers, use_gpu=use_gpu, resources_per_worker={"CPU": cpus, **({"GPU": 1} if use_gpu else {})}),
        run_config=RunConfig(
            name=name,
            storage_path=run.root.child("runs").path,
            storage_filesystem=run.root.filesystem,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    with _ProgressLine(run, name, num_steps * len(seeds), quiet):
        trainer.fit()
    if absent := [seed for seed in seeds if load_record(run.folder(seed)) is None]:
        raise RuntimeError(f"training ended without classifiers for the seeds {absent}")


def check_batch(num_images: int, settings: TrainingSettings) -> None:
    """Say early that a batch does not fit.

    Raises:
        UserError: more pictures in a batch than there are, or a batch that the workers cannot share.
    """
    if settings.batch_size % settings.num_workers:
        raise UserError("training.batch_size", settings.batch_size, f"use a multiple of the {settings.num_workers} workers")
    if num_images < settings.batch_size:
        raise UserError("training.batch_size", settings.batch_size, f"there are only {num_images} pictures; use a smaller batch or draw more")


def _steps_per_epoch(pictures: PictureSet, settings: TrainingSettings) -> int:
    count = count_pictures(pictures)
    if pictures.images_per_class is not None:
        count = sum(len(pictures.read_rows(file)) for file in pictures.files())
    check_batch(count, settings)
    return count // settings.batch_size


def _uses_gpus(settings: TrainingSettings, gpus: float, num_concurrent: int) -> bool:
    """A GPU for each worker, or none on a cluster without any."""
    needed = settings.num_workers * num_concurrent
    if 0 < gpus < needed:
        raise UserError("training.num_workers", settings.num_workers, f"{num_concurrent} at a time need {needed} GPUs, the cluster has {gpus:g}; ask for fewer")
    return gpus >= needed


def _cpus_per_worker(settings: TrainingSettings, cpus: float, num_concurrent: int) -> float:
    """What is asked for, or on a small machine what leaves room for reading the pictures; less would wait for ever."""
    room = (cpus - SPARE_CPUS - TRIAL_CPUS * num_concurrent) / (settings.num_workers * num_concurrent)
    if room < MIN_WORKER_CPUS:
        need = f"{num_concurrent} trainings of {settings.num_workers} workers"
        raise UserError("training.num_workers", settings.num_workers, f"the cluster has {cpus:g} CPUs, too few for {need} and {SPARE_CPUS:g} to read pictures")
    return min(settings.cpus_per_worker, int(room * 100) / 100)


class _ProgressLine(threading.Thread):
    """Prints how far the workers are, from the file that rank 0 writes."""

    def __init__(self, run: TrainingRun, name: str, num_steps: int, quiet: bool) -> None:
        super().__init__(daemon=True)
        self.folder, self.num_steps, self.quiet = run.root.child("runs", name), num_steps, quiet
        self.batch_size = run.settings.batch_size
        self.ended = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        began = time.monotonic()
        while not self.ended.wait(LINE_SECONDS):
            if self.quiet or not self.folder.exists("progress.json"):
                continue
            progress = json.loads(self.folder.read("progress.json"))
            left = (self.num_steps - progress["step"]) * self.batch_size / max(progress["images_per_s"], 1e-9)
            done = f"step {progress['step']}/{self.num_steps}, loss {progress['loss']:.3f}, {progress['images_per_s']:.0f} images/s"
            say(f"training: {done}, {time.monotonic() - began:.0f} s gone, {left:.0f} s left")
