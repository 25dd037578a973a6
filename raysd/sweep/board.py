"""What a sweep shows while it runs: the images, trainings and trials done of all, the time left, and what each trial
does now."""

import json
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from raysd.clone.clone import Clone
from raysd.clone.scan import missing_shards
from raysd.config import Experiment
from raysd.formats import duration
from raysd.generation.cost import CPU, find_rates, guided_steps, own_rates, read_rates
from raysd.generation.shared_pool import Board, SharedPool
from raysd.progress import has_bars, notebook_line, say
from raysd.resolve import clones_of
from raysd.statistics.seeds import num_kept
from raysd.storage.location import Location
from raysd.sweep.forecast import DENOISE, MEASURE, TRAIN, Forecast
from raysd.sweep.placement import Placement
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at, settings_to_check

LOOK_SECONDS = 2.0
LINE_SECONDS = 10.0
SMALL_PIXELS = 32
SMALL_IMAGE_SECONDS = 5e-4
"""Of a CPU core, for an image of a training with a small ResNet, as the demo's; nothing is known of others before the
first one trains."""
SMALL_MEASURE_SECONDS = 3.0
"""Of a CPU core, to measure one such classifier, and to start and end its trial."""


@dataclass(frozen=True)
class SweepWork:
    """All that a sweep has to do, and what a unit of it is expected to cost."""

    num_trials: int
    num_images: int
    num_trainings: int
    units: dict[str, float]
    prior: dict[str, float]
    image_units: Mapping[str, float]
    """Guided steps of an image, by the fingerprint of its clone."""

    def denoised(self, images: Mapping[str, int]) -> float:
        """Return the guided steps of images by clone; those of clones that nobody foresaw count as the others do."""
        usual = sum(self.image_units.values()) / max(1, len(self.image_units))
        return sum(count * self.image_units.get(name, usual) for name, count in images.items())


def plan_work(
    experiment: Experiment,
    settings: Sequence[Setting],
    rungs: Sequence[RungSettings],
    placement: Placement,
    num_trials: int,
    num_baselines: int,
    known: Collection[tuple[int, int]] = (),
) -> SweepWork:
    """Return the work of a sweep. What later rungs hold follows from how many settings go on to them.

    Args:
        experiment: with the sweep.
        settings: of the space; empty where they are not listed.
        rungs: its budgets.
        placement: of the sweep.
        num_trials: all there are, also those that an earlier run finished.
        num_baselines: those that are still to be measured.
        known: rung results of an earlier run, by the setting's place and the rung; they are no work.
    """
    members = list(settings) or settings_to_check(experiment)
    count = len(settings) or experiment.sweep.num_settings or len(members)
    at_first = [experiment_at(experiment, setting, rungs[0]) for setting in members]
    clones = {clone.spec.fingerprint: clone for at in at_first for clone in clones_of(at)}
    image_units = {name: guided_steps(clone.spec) for name, clone in clones.items()}
    missing = {name: _num_missing(clone) for name, clone in clones.items()}
    share = 1.0 if settings else max(0, count - sum(rung == 0 for _, rung in known)) / len(members)
    images, denoised = share * sum(missing.values()), share * sum(missing[name] * image_units[name] for name in clones)
    usual = sum(image_units.values()) / max(1, len(image_units))
    trainings = steps = 0.0
    for number, rung in enumerate(rungs):
        at = experiment_at(experiment, members[0], rung)
        num_new = max(0, count - sum(of == number for _, of in known))
        num_classifiers = num_new * len(at.training.seeds)
        trainings, steps = trainings + num_classifiers, steps + num_classifiers * _num_steps(at)
        if number:
            more = (rung.images_per_class - rungs[number - 1].images_per_class) * len(experiment.table)
            more *= num_new * max(1, len(clones) // len(members))
            images, denoised = images + more, denoised + more * usual
        if number + 1 < len(rungs):
            count = num_kept(count, experiment.sweep.keep)
    trainings += num_baselines * len(experiment.training.seeds)
    units = {DENOISE: denoised, TRAIN: steps, MEASURE: trainings}
    prior = _prior(experiment, next(iter(clones.values())), placement)
    return SweepWork(num_trials, round(images), round(trainings), units, prior, image_units)


def confirmation_work(jobs: Sequence[Experiment], placement: Placement, num_trials: int) -> SweepWork:
    """Return the work of measuring finalists again.

    Args:
        jobs: the experiment of each finalist that no earlier run measured again, with its fresh seeds.
        placement: of the sweep.
        num_trials: the number of all finalists.
    """
    clones = {clone.spec.fingerprint: clone for job in jobs for clone in clones_of(job)}
    image_units = {name: guided_steps(clone.spec) for name, clone in clones.items()}
    missing = {name: _num_missing(clone) for name, clone in clones.items()}
    trainings = sum(len(job.training.seeds) for job in jobs)
    steps = sum(len(job.training.seeds) * _num_steps(job) for job in jobs)
    denoised = sum(missing[name] * image_units[name] for name in clones)
    units = {DENOISE: denoised, TRAIN: float(steps), MEASURE: float(trainings)}
    prior = _prior(jobs[0], next(iter(clones.values())), placement) if jobs else {}
    return SweepWork(num_trials, sum(missing.values()), trainings, units, prior, image_units)


def _num_missing(clone: Clone) -> int:
    """Return the images of the shards that are not there; all where that cannot be told yet."""
    with suppress(OSError, ValueError):
        return int(clone.shard_sizes()[missing_shards(clone)].sum())
    return len(clone)


def _num_steps(experiment: Experiment) -> int:
    training = experiment.training
    images = experiment.generation.images_per_class * len(experiment.table)
    return training.num_steps or training.num_epochs * max(1, images // training.batch_size)


def _prior(experiment: Experiment, clone: Clone, placement: Placement) -> dict[str, float]:
    """Return the expected seconds of a unit of each kind of work, as far as anything is known: as in the plan."""
    spec, training, pool = clone.spec, experiment.training, placement.pool
    if pool.num_gpus:
        rates = list(own_rates(spec, read_rates(experiment.root)).values())
    else:
        rates = [each for each in find_rates(spec, read_rates(experiment.root)) if each.device.startswith(CPU)]
    if not rates:
        return {}
    size = (spec.image_size / rates[0].image_size) ** 2
    found = {DENOISE: rates[0].seconds_per_step * size / (pool.num_actors or 1)}
    if not placement.trial_gpus and spec.model.is_embedded and training.image_size <= SMALL_PIXELS:
        trials = experiment.sweep.max_concurrent_trials
        found[TRAIN] = SMALL_IMAGE_SECONDS * training.batch_size / trials
        found[MEASURE] = SMALL_MEASURE_SECONDS / trials
    return found


class SweepProgress:
    """The progress of a sweep; use it as a context manager.

    Args:
        work: all there is to do.
        root: the storage root.
        before: what the users of the pool had done when this work began.
    """

    def __init__(self, work: SweepWork, root: Location, before: Board | None = None) -> None:
        self.work, self.root, self.before = work, root, before or Board()
        self.trials, self.num_trials, self.note = 0, work.num_trials, ""
        self.board = Board()
        self.forecast = Forecast(dict(work.units), work.prior)
        self.last_line = time.monotonic()
        self._live: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down, and never uses that copy; locks and a terminal cannot be written."""
        return {"work": self.work, "root": self.root}

    def __enter__(self) -> "SweepProgress":
        if has_bars():
            from rich.live import Live

            self._live = Live("", refresh_per_second=2, transient=True)
            self._live.start()
        else:
            self._live = notebook_line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            line = self.line(time.monotonic())
            self._live.update(line)
            self._live.stop()
            say(line)

    def advance(self, amount: int, note: str = "") -> None:
        """Count trials that ended."""
        with self._lock:
            self.trials += amount
            self.num_trials = max(self.num_trials, self.trials)
            self.note = note
        self.show(is_news=amount > 0)

    def look(self, board: Board) -> None:
        """Take note of what the trials and the pool say."""
        board = board.since(self.before)
        now, steps = time.monotonic(), float(board.steps)
        steps += sum(self._steps(name) for trial in board.trials.values() for name in trial.runs)
        done = {DENOISE: self.work.denoised(board.images), TRAIN: steps, MEASURE: float(board.trainings)}
        with self._lock:
            self.board = board
            self.forecast.total[TRAIN] = self.work.units[TRAIN] - board.skipped_steps
            self.forecast.update(done, now)
        self.show()

    def _steps(self, run: str) -> int:
        """Return the steps that a training has done, as it writes them down itself."""
        with suppress(OSError, ValueError, KeyError):
            return int(json.loads(self.root.child("runs", run).read("progress.json"))["step"])
        return 0

    def show(self, is_news: bool = False) -> None:
        """Show where the sweep is: on a terminal at once, in a log when there is news, and now and then."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update("\n".join([self.line(now), *self.doing()]))
        elif is_news or now - self.last_line >= LINE_SECONDS:
            self.last_line = now
            say(self.line(now))

    def line(self, now: float) -> str:
        """Return where the sweep is, in one line."""
        images = sum(self.board.images.values())
        parts = [
            f"measured: {self.trials}/{self.num_trials} trials",
            f"{images:,}/{max(images, self.work.num_images):,} images",
            f"{self.board.trainings:,}/{max(self.board.trainings, self.work.num_trainings):,} trainings",
        ]
        left = self.forecast.seconds_left(now) if self.trials < self.num_trials else None
        return ", ".join(parts) + ("" if left is None else f", about {duration(round(left))} left") + self.note

    def doing(self) -> list[str]:
        """Return a line for each trial: what it does now."""
        return [f"  {trial.label}: {trial.doing}" for trial in self.board.trials.values()]


@contextmanager
def watched(progress: SweepProgress, pool: SharedPool) -> Iterator[SweepProgress]:
    """Show the progress of a sweep while it runs."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            with suppress(Exception):  # the queue may be starting again
                progress.look(pool.board(LOOK_SECONDS))

    watcher = threading.Thread(target=look, daemon=True)
    with progress:
        watcher.start()
        try:
            yield progress
        finally:
            ended.set()
            watcher.join()
            with suppress(Exception):  # what the last trials did after the last look
                progress.look(pool.board(LOOK_SECONDS))
            progress.show(is_news=True)
            sys.stdout.flush()
