"""One rung result of a sweep: the clone of a setting grows to a rung's size, is trained on, and its classifiers are
measured.

Each rung result is a row of its own, written last of all. So a restarted sweep knows what exists and what it
cost, and measures nothing twice.
"""

import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from raysd.cluster.resources import cluster_nodes
from raysd.config import Experiment
from raysd.data.real_datasets import real_dataset
from raysd.errors import find_user_error
from raysd.evaluation.evaluate import Evaluation
from raysd.evaluation.shares import Share, measure_by_tasks, measure_here
from raysd.generation.generate import CloneSummary
from raysd.generation.shared_pool import SharedPool, TrialNote
from raysd.resolve import (
    clone_of,
    clones_of,
    replicates,
    runs_by_seed,
    score_images,
    source_generations,
    training_pools,
    training_run,
)
from raysd.statistics.seeds import means_by_clone
from raysd.storage.row_types.measured import MeasuredRow
from raysd.storage.row_types.sweep import PartSeconds, RungResult
from raysd.storage.rows import RUNG_RESULT, find_row, write_row
from raysd.sweep.analysis.ranking import independent_scores
from raysd.sweep.confirm import confirmed_experiment, confirmed_fingerprint
from raysd.sweep.exceptions import Exceptions
from raysd.sweep.placement import Placement
from raysd.sweep.rung_rows import evaluation_at, find_rung_results, is_measured, rung_result_fingerprint, seed_scores
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at
from raysd.training.loader import Pool
from raysd.training.placement import request_workers
from raysd.training.run import TrainingRun, distinct_runs
from raysd.training.train import train_classifiers, train_here, training_work
from raysd.versions import versions

OF_A_SETTING = ("training.", "generation.", "sweep.space")
"""Fields of errors that a setting makes by itself; the others go on without it."""


@dataclass(frozen=True)
class _Found:
    """The measurements of a setting at a rung; none of one that failed."""

    scores: list[float] = field(default_factory=list)
    """Of the seeds, by the objective; empty when one is missing."""
    classifiers: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    clones: list[CloneSummary] = field(default_factory=list)
    num_generated: int = 0
    seconds: PartSeconds = field(default_factory=lambda: PartSeconds(generate=0.0, train=0.0, measure=0.0))
    error: str | None = None
    is_unexplained: bool = False
    """Whether no setting explains the error."""


@dataclass(frozen=True)
class _Job:
    """A setting that is to be measured at a budget."""

    key: str
    """Of its row."""
    setting: Setting
    rung: int
    number: int
    experiment: Experiment
    """At the setting and the budget."""
    is_confirmed: bool = False


@dataclass(frozen=True)
class RungRunner:
    """Takes settings of one sweep to its rungs, in the process of a trial.

    All rungs but the last are measured on the sets of the objective alone, as they are compared by nothing else.

    Args:
        experiment: with the sweep.
        sweep: its fingerprint.
        rungs: its budgets, each with its number of seeds.
        evaluation: knows the real data sets.
        pool: generates.
        shares: the parts of the cluster that trainings may use.
    """

    experiment: Experiment
    sweep: str
    rungs: list[RungSettings]
    evaluation: Evaluation
    pool: SharedPool
    placement: Placement

    @property
    def exceptions(self) -> Exceptions:
        """What the trials raised."""
        return Exceptions(self.experiment.root.child("runs", f"sweep-{self.sweep}-exceptions"))

    def run(self, setting: Setting, rung: int, number: int) -> RungResult:
        """Return the result of a setting at a rung; `number` gives the order in which settings were first tried."""
        evaluation = evaluation_at(self.evaluation, self.experiment, rung, len(self.rungs))
        return self._run(self._job(setting, rung, number), evaluation)

    def _job(self, setting: Setting, rung: int, number: int) -> "_Job":
        key = rung_result_fingerprint(self.sweep, setting, rung)
        return _Job(key, setting, rung, number, experiment_at(self.experiment, setting, self.rungs[rung]))

    def confirm(self, setting: Setting, number: int) -> RungResult:
        """Return the result of a finalist that is measured again, with fresh seeds, on all sets of the last rung."""
        return self._run(self._confirmed_job(setting, number), self.evaluation)

    def is_confirmed(self, setting: Setting, number: int) -> bool:
        """Return whether a finalist was measured again by an earlier run."""
        row = find_row(self.experiment.root, RUNG_RESULT, self._confirmed_job(setting, number).key)
        return row is not None and is_measured(row, self.evaluation)

    def _confirmed_job(self, setting: Setting, number: int) -> "_Job":
        at = confirmed_experiment(self.experiment, setting)
        key = confirmed_fingerprint(self.sweep, setting, at)
        return _Job(key, setting, len(self.rungs) - 1, number, at, True)

    def _run(self, job: "_Job", evaluation: Evaluation) -> RungResult:
        """Measure a setting, unless that was done, and write its row."""
        experiment = job.experiment
        earlier = find_row(self.experiment.root, RUNG_RESULT, job.key)
        if earlier is not None and is_measured(earlier, evaluation):
            return earlier
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.pool.note(TrialNote(job.setting.label, "waits for images"))
        try:
            found = self._measured(experiment, evaluation, job.setting.label)
        except Exception as error:
            self.pool.note(None)  # nothing goes on here any more
            user_error = find_user_error(error)
            if user_error is not None and user_error.field.startswith(OF_A_SETTING):
                found = _Found(error=str(user_error))
            else:
                found = _Found(error=self.exceptions.reason(job.key, error), is_unexplained=True)
        return self._write(job, found, earlier, date)

    def give_up(self, setting: Setting, number: int, rung: int | None, reason: str) -> RungResult:
        """Return the result of a setting whose process died again and again: the first that was not measured, with the
        reason; the last one if all were.

        Args:
            setting: what it was.
            number: of the setting.
            rung: of the trial; None if it was to take the setting to all.
            reason: in one line.
        """
        rungs = range(len(self.rungs)) if rung is None else [rung]
        return self._give_up([self._job(setting, each, number) for each in rungs], reason)

    def give_up_confirming(self, setting: Setting, number: int, reason: str) -> RungResult:
        """Return the result of a finalist whose process died again and again."""
        return self._give_up([self._confirmed_job(setting, number)], reason)

    def _give_up(self, jobs: "list[_Job]", reason: str) -> RungResult:
        date, last = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), None
        for job in jobs:
            last = find_row(self.experiment.root, RUNG_RESULT, job.key)
            if last is None or last["score"] is None:
                return self._write(job, _Found(error=reason, is_unexplained=True), last, date)
        assert last is not None
        return last

    def _write(self, job: "_Job", found: _Found, earlier: RungResult | None, date: str) -> RungResult:
        """Write and return the row of a measurement; what an earlier try took is added."""
        experiment = job.experiment
        clones = clones_of(experiment)
        row: RungResult = {
            "fingerprint": job.key,
            "sweep": self.sweep,
            "number": job.number,
            "setting": dict(job.setting.values),
            "label": job.setting.label,
            "clone": clones[0].spec.fingerprint,
            "rung": job.rung,
            "images_per_class": experiment.generation.images_per_class,
            "seeds": experiment.training.seeds,
            "num_planned": len(clones[0]),
            "proxies": {},
            "command": self.evaluation.command,
            "versions": versions(),
            "date": date,
            "seed_scores": found.scores,
            "score": float(np.mean(means_by_clone(found.scores, len(clones)))) if found.scores else None,
            "classifiers": found.classifiers,
            "rows": found.rows,
            "num_images": sum(clone.num_images for clone in found.clones),
            "num_flagged": sum(clone.num_flagged for clone in found.clones),
            "short_classes": dict(sum((Counter(clone.short_classes) for clone in found.clones), Counter())),
            "num_generated": found.num_generated + (earlier["num_generated"] if earlier else 0),
            "seconds": _added(found.seconds, earlier["seconds"]) if earlier else found.seconds,
        }
        if len(clones) > 1:
            row["clones"] = [clone.spec.fingerprint for clone in clones]
        if job.is_confirmed:
            row["confirmed"] = True
        if found.error is not None:
            row["error"] = found.error
        if found.is_unexplained:
            row["is_unexplained"] = True
        write_row(self.experiment.root, RUNG_RESULT, row)
        return row

    def _measured(self, experiment: Experiment, evaluation: Evaluation, label: str) -> _Found:
        """Generate, train and measure."""
        clones, num_generated, generate_seconds = self._generate(experiment)
        runs = runs_by_seed(experiment, lambda each: training_run(each, training_pools(each)))
        classifiers, train_seconds = self._train(runs, label)
        rows, measure_seconds = self._measure(evaluation, classifiers)
        self.pool.note(None, trainings=len(classifiers))
        return _Found(
            seed_scores(rows, classifiers, evaluation, experiment.sweep.weights),
            classifiers,
            [row["fingerprint"] for row in rows],
            clones,
            num_generated,
            {"generate": generate_seconds, "train": train_seconds, "measure": measure_seconds},
        )

    def known(self, settings: list[Setting]) -> dict[tuple[int, int], list[float]]:
        """Return the independent scores of the existing rung results, by the setting's place and the rung."""
        rows = {row["fingerprint"]: row for row in find_rung_results(self.experiment, self.sweep)}
        found = {}
        for rung in range(len(self.rungs)):
            evaluation = evaluation_at(self.evaluation, self.experiment, rung, len(self.rungs))
            for place, setting in enumerate(settings):
                row = rows.get(rung_result_fingerprint(self.sweep, setting, rung))
                if row is not None and is_measured(row, evaluation):
                    found[place, rung] = independent_scores(row)
        return found

    def is_baseline_measured(self, kind: str) -> bool:
        """Return whether a baseline's classifiers exist with all their rows."""
        run = baseline_run(self.experiment, kind, self.rungs[-1])
        return all(self.evaluation.is_measured(run.fingerprint(seed)) for seed in run.settings.seeds)

    def run_baseline(self, kind: str) -> list[str]:
        """Train and measure the classifiers of real images, as many as the last rung has, or those with random
        weights; return their fingerprints."""
        run = baseline_run(self.experiment, kind, self.rungs[-1])
        classifiers, _ = self._train([(seed, run) for seed in run.settings.seeds], kind)
        self._measure(self.evaluation, classifiers)
        self.pool.note(None, trainings=len(classifiers))
        return classifiers

    def _generate(self, experiment: Experiment) -> tuple[list[CloneSummary], int, float]:
        """Return the clone of each clone seed, the number of images that were generated, those of other clones in the
        training included, and the actors' seconds. Clones with filters or soft labels are scored."""
        training, parts = experiment.training, replicates(experiment)
        has_soft_labels = training.resolve_recipe().soft_weight > 0
        clones = [
            (clone_of(each), bool(training.filters) or (has_soft_labels and not training.sources)) for each in parts
        ]
        for each in parts:
            for number, other in source_generations(each):
                clones.append(
                    (
                        clone_of(each, other),
                        bool(training.sources[number].filters) or has_soft_labels,
                    )
                )
        grown = self.pool.grow_all([clone for clone, _ in clones])
        one_actor = experiment.model_copy(
            update={"generation": experiment.generation.model_copy(update={"num_actors": 1})}
        )
        for clone, is_scored in clones:
            if is_scored:
                score_images(one_actor, clone)
        return grown[: len(parts)], sum(clone.num_generated for clone in grown), sum(clone.seconds for clone in grown)

    def _train(self, runs: list[tuple[int, TrainingRun]], label: str) -> tuple[list[str], float]:
        """Train the missing classifiers of some seeds; return those of all, in their order, and the seconds it took."""
        began, work = time.monotonic(), training_work(runs)
        self.pool.note(TrialNote(label, f"trains {work.num_missing} classifiers", work.names), 0, work.skipped_steps)
        num_trials, placement = self.experiment.sweep.max_concurrent_trials, self.placement
        note = self.experiment.root.child("runs", f"sweep-{self.sweep}")  # all settings compute in one number format
        for run in (replace(each, precision_note=note) for each in distinct_runs(runs)):
            if placement.trains_here:
                train_here(run)
            else:
                train_classifiers(run, True, num_trials, placement.cpus_taken, placement.gpus_taken)
        self.pool.note(TrialNote(label, f"measures {len(runs)} classifiers"), work.steps)
        return [run.fingerprint(seed) for seed, run in runs], time.monotonic() - began

    def _measure(self, evaluation: Evaluation, classifiers: list[str]) -> tuple[list[MeasuredRow], float]:
        """Measure in this process where it trains, since it then holds its share of the cluster already; else by tasks
        with what its workers held."""
        began, placement, training = time.monotonic(), self.placement, self.experiment.training
        if placement.trains_here:
            return measure_here(evaluation, classifiers, placement.trial_cpus), time.monotonic() - began
        request = request_workers(
            training, cluster_nodes(), placement.num_trials, placement.cpus_taken, placement.gpus_taken
        )
        share = Share(training.least_workers, request.cpus, request.gpus)
        return measure_by_tasks(evaluation, classifiers, share), time.monotonic() - began


def baseline_run(experiment: Experiment, kind: str, rung: RungSettings) -> TrainingRun:
    """Return the training of a baseline: `real` or `random`, which have no soft labels and no prompts."""
    training = experiment.training
    absent = ("soft_", "contrastive_") if training.resolve_recipe().contrastive_groups == "prompt" else ("soft_",)
    options = {name: value for name, value in training.recipe_options.items() if not name.startswith(absent)}
    settings = training.model_copy(
        update={"real": None, "seeds": training.seeds[: rung.num_seeds], "recipe_options": options}
    )
    experiment = experiment.model_copy(update={"training": settings})
    pools: tuple[Pool, ...] = ()
    if kind == "real" and experiment.sweep.real is not None:
        pools = (
            Pool(
                (
                    real_dataset(
                        experiment.sweep.real, "train", experiment.root, rung.images_per_class, experiment.table
                    ),
                )
            ),
        )
    return training_run(experiment, pools)


def _added(one: PartSeconds, other: PartSeconds) -> PartSeconds:
    return {
        "generate": one["generate"] + other["generate"],
        "train": one["train"] + other["train"],
        "measure": one["measure"] + other["measure"],
    }
