"""The training job: one classifier per seed from clones, real data sets, or a mixture of both, on Ray Train."""

import contextlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from raysd.classifier.architecture import load_record
from raysd.cluster.resources import check_room, cluster_nodes
from raysd.errors import UserError
from raysd.progress import Progress
from raysd.training.grouping import Grouping
from raysd.training.loader import Ingest, fits_in_memory
from raysd.training.logs import check_logger
from raysd.training.placement import request_workers
from raysd.training.precision import AUTO
from raysd.training.run import STATE, LoopConfig, TrainingRun
from raysd.training.settings import TrainingSettings

MAX_FAILURES = 3  # without a checkpoint in between
POLL_SECONDS = 1.0
# A cold or busy node takes that long. After a death Ray Train waits as long for a whole group, since it learns of the
# death late.
START_SECONDS = "60"
RESIZE_SECONDS = 600.0  # between two checks for room for more workers; each change goes back to the last checkpoint
LEAST_SHARE = 2  # images of a pool in a worker's batch, so that its items never run backwards


def train_classifiers(
    run: TrainingRun, quiet: bool = False, num_concurrent: int = 1, cpus_taken: float = 0.0, gpus_taken: float = 0.0
) -> list[str]:
    """Train the missing classifiers; return the fingerprint of each seed's classifier.

    Ray is started only if classifiers are missing.

    Args:
        run: the training.
        quiet: whether to show no progress lines.
        num_concurrent: number of such calls that share the cluster.
        cpus_taken: CPUs of the cluster that other processes hold meanwhile.
        gpus_taken: GPUs of the cluster that other processes hold meanwhile.

    Raises:
        UserError: fewer images than one batch, a batch that the workers cannot share, or a broken image.
    """
    missing = [seed for seed in run.settings.seeds if not run.is_trained(seed)]
    if missing and not run.pools:
        _save_untrained(run, missing)
    elif missing:
        _fit(run, missing, quiet, num_concurrent, cpus_taken, gpus_taken)
    return [run.fingerprint(seed) for seed in run.settings.seeds]


def train_here(run: TrainingRun) -> list[str]:
    """Train the missing classifiers in this process, as one worker; the weights are those of `train_classifiers`.

    It uses a GPU if this process sees one.

    Raises:
        UserError: fewer images than one batch, or a broken image.
    """
    from raysd.training.loop import train_seeds
    from raysd.training.workers import OneProcess

    missing = [seed for seed in run.settings.seeds if not run.is_trained(seed)]
    if missing and not run.pools:
        _save_untrained(run, missing)
    elif missing:
        workers = OneProcess(run.root.child("runs", run.name))
        _check_run(run, workers.device.type == "cuda")
        train_seeds(_loop_config(run, run.name, missing), workers)
        _check_trained(run, missing)
        workers.close()
    return [run.fingerprint(seed) for seed in run.settings.seeds]


@dataclass(frozen=True)
class TrainingWork:
    """What some trainings have to do."""

    names: tuple[str, ...]
    """The folders of their checkpoints and of their progress."""
    num_missing: int
    """Classifiers that are not there."""
    steps: int
    """Of these."""
    skipped_steps: int
    """Of the classifiers that are there."""


def training_work(runs: Sequence[tuple[int, TrainingRun]]) -> TrainingWork:
    """Return what the trainings of some classifier seeds have to do."""
    missing, steps, skipped = 0, 0, 0
    for seed, run in runs:
        own = 0 if not run.pools else _num_steps(run)
        if not run.is_trained(seed):
            missing, steps = missing + 1, steps + own
        else:
            skipped += own
    return TrainingWork(tuple({run.name for _, run in runs}) if steps else (), missing, steps, skipped)


def _num_steps(run: TrainingRun) -> int:
    return run.settings.num_steps or run.settings.num_epochs * (sum(map(len, run.pools)) // run.settings.batch_size)


def _save_untrained(run: TrainingRun, seeds: list[int]) -> None:
    import torch

    from raysd.classifier.model import build_classifier, save_classifier

    for seed in seeds:
        torch.manual_seed(seed)
        record = {**run.record(), "seed": seed, "fingerprint": run.fingerprint(seed)}
        save_classifier(run.folder(seed), build_classifier(run.architecture), run.architecture, record)


def _check_trained(run: TrainingRun, seeds: list[int]) -> None:
    if absent := [seed for seed in seeds if not run.is_trained(seed)]:
        raise RuntimeError(f"training ended without classifiers for the seeds {absent}")


def _check_run(run: TrainingRun, use_gpu: bool) -> None:
    """Check early what would end the training.

    Raises:
        UserError: an empty pool, a batch that does not fit, a logger that is not installed, float16 without GPUs, or an
            earlier training to go on with whose state is gone.
    """
    for seed, start in run.start_folders().items():
        if not run.is_trained(seed) and not start.exists(STATE):
            remedy = "delete that folder, and the same command trains it again"
            raise UserError("adaptive.training", "continued", f"{start.uri} has no {STATE} any more; {remedy}")
    if run.settings.precision == "float16" and not use_gpu:
        raise UserError(
            "training.precision", "float16", "needs GPUs, and the workers have none; set it to float32 or bfloat16"
        )
    for pool in run.pools:
        if not len(pool):
            raise UserError(
                "training.sources",
                " + ".join(images.name for images in pool.sets),
                "holds no images; loosen its filters, or leave it out",
            )
    if run.recipe.soft_weight and not all(images.soft_labels for images in run.sets):
        raise UserError(
            "training.recipe_options.soft_weight", run.recipe.soft_weight, "the images have no soft labels; set it to 0"
        )
    check_batch(sum(map(len, run.pools)), run.settings, [pool.share for pool in run.pools])
    check_logger(run.settings.logger)


def _fit(
    run: TrainingRun, seeds: list[int], quiet: bool, num_concurrent: int, cpus_taken: float, gpus_taken: float
) -> None:
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from raysd.cluster.session import ensure_ray, kept_interrupts
    from raysd.training.worker import failure_callback, take_error, trainer_that_ends, training_error

    settings, name = run.settings, run.name
    ensure_ray()
    nodes = cluster_nodes()
    request = request_workers(settings, nodes, num_concurrent, cpus_taken, gpus_taken)
    check_room(nodes, [request])
    cpus, use_gpu = request.cpus, bool(request.gpus)
    _check_run(run, use_gpu)
    loop = _loop_config(run, name, seeds)
    if settings.min_workers is not None:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_SECONDS)
    folder = run.root.child("runs", name)
    trainer = trainer_that_ends(
        folder,
        train_loop_config={"loop": ray.put(loop)},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.num_workers
            if settings.min_workers is None
            else (settings.min_workers, settings.num_workers),
            use_gpu=use_gpu,
            resources_per_worker={"CPU": cpus, **({"GPU": 1} if use_gpu else {})},
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=run.root.child("runs").path,
            storage_filesystem=run.root.filesystem,
            failure_config=FailureConfig(max_failures=-1),  # it would count those with progress in between, too
            callbacks=[failure_callback(folder, MAX_FAILURES, settings.checkpoint_steps)],
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    take_error(folder)  # of an earlier run
    try:
        with (
            kept_interrupts(),
            contextlib.nullcontext() if quiet else _ProgressThread(run, name, loop.num_steps * len(seeds)),
        ):
            trainer.fit()
    except TrainingFailedError as failure:
        raise take_error(folder) or training_error(name, failure) from None
    if (error := take_error(folder)) is not None:
        raise error
    _check_trained(run, seeds)


def _loop_config(run: TrainingRun, name: str, seeds: list[int]) -> LoopConfig:
    settings, recipe = run.settings, run.recipe
    steps_per_epoch = sum(map(len, run.pools)) // settings.batch_size
    grouping = Grouping(recipe.contrastive_groups, recipe.contrastive_block) if recipe.contrastive_weight else None
    in_memory = fits_in_memory(run.pools, run.decoded_size)
    return LoopConfig(
        root=run.root.uri if "://" in run.root.uri else run.root.path,
        run=name,
        seeds=seeds,
        fingerprints={seed: run.fingerprint(seed) for seed in seeds},
        architecture=run.architecture,
        recipe=recipe,
        ingest=Ingest(run.pools, run.decoded_size, settings.batch_size, in_memory, grouping),
        record=run.record(),
        num_steps=settings.num_steps or settings.num_epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        precision=_precision(run),
        precision_note=run.precision_note,
        forward_size=settings.forward_size,
        compile=settings.compile,
        checkpoint_steps=settings.checkpoint_steps,
        validation=run.validation,
        validate_epochs=settings.validate_epochs,
        logger=settings.logger,
        num_threads=settings.num_threads,
        starts=run.start_folders(),
        keeps_state=run.keeps_state,
    )


def _precision(run: TrainingRun) -> str:
    """Return the number format as set; for `auto` that of the run's finished classifiers, so that seeds are alike."""
    if run.settings.precision != AUTO:
        return run.settings.precision
    records = (load_record(run.folder(seed)) for seed in run.settings.seeds)
    return next((record["precision"] for record in records if record is not None), AUTO)


def check_batch(num_images: int, settings: TrainingSettings, shares: list[float]) -> None:
    """Check early that a batch fits.

    Raises:
        UserError: fewer images than one batch, a batch that the workers cannot share, or too small a share of it.
    """
    batch_size, per_worker = settings.batch_size, settings.batch_size // settings.num_workers
    if batch_size % settings.num_workers:
        raise UserError("training.batch_size", batch_size, f"use a multiple of the {settings.num_workers} workers")
    if num_images < batch_size:
        raise UserError(
            "training.batch_size",
            batch_size,
            f"there are only {num_images} images; use a smaller batch or generate more",
        )
    if len(shares) > 1 and min(shares) * per_worker < LEAST_SHARE:
        least = f"{LEAST_SHARE / per_worker:.3g} is the least with {per_worker} images per worker"
        raise UserError("training.sources.share", min(shares), f"{least}; use more of it, or a larger batch")


class _ProgressThread(threading.Thread):
    """Thread that shows the progress of the workers, from the file that rank 0 writes."""

    def __init__(self, run: TrainingRun, name: str, num_steps: int) -> None:
        super().__init__(daemon=True)
        self.folder, self.batch_size = run.root.child("runs", name), run.settings.batch_size
        self.progress = Progress("trained", num_steps * self.batch_size)
        self.ended = threading.Event()
        if self.folder.exists("progress.json"):
            self.folder.delete("progress.json")

    def __enter__(self) -> None:
        self.progress.__enter__()
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()
        self._show()
        self.progress.__exit__(None, None, None)

    def run(self) -> None:
        while not self.ended.wait(POLL_SECONDS):
            self._show()

    def _show(self) -> None:
        if not self.folder.exists("progress.json"):
            return
        state = json.loads(self.folder.read("progress.json"))
        last = state["last"][0] if state["last"] else {}
        names = {"loss": ", loss {:.3f}", "validation_top1": ", validation top-1 {:.1f} %"}
        note = "".join(text.format(last[name]) for name, text in names.items() if name in last)
        if (more := state["step"] * self.batch_size - self.progress.done) > 0:
            self.progress.advance(more, note, state["images_per_s"])
