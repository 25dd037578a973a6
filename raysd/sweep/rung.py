"""One step of a sweep: a setting at a rung is generated, trained on and measured. A step that was done is not done
again.

A step writes its own row (kind `trial`), last of all; so a sweep that is killed knows what is done, and what it cost.
"""

import time
from dataclasses import dataclass

import numpy as np

from raysd.config import Experiment
from raysd.data.real_datasets import real_dataset
from raysd.errors import find_user_error
from raysd.evaluation.evaluate import Evaluation
from raysd.generation.generate import CloneSummary
from raysd.generation.shared_pool import SharedPool
from raysd.resolve import clone_of, clone_spec_of, score_images, source_generations, training_pools, training_run
from raysd.storage.fingerprint import fingerprint
from raysd.storage.results import Row, find_result, read_results, write_result
from raysd.sweep.placement import Placement
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.training.train import train_classifiers, train_here
from raysd.versions import versions

KIND = "trial"
OF_A_SETTING = ("training.", "generation.", "sweep.space")
"""Fields of errors that a setting makes by itself; the others go on without it."""
NOTHING: Row = {
    "seed_scores": [],
    "score": None,
    "classifiers": [],
    "rows": [],
    "num_images": 0,
    "num_flagged": 0,
    "short_classes": {},
    "num_generated": 0,
}
NOTHING["seconds"] = {"generate": 0.0, "train": 0.0, "measure": 0.0}


@dataclass(frozen=True)
class Steps:
    """Does the steps of one sweep, in the process of a trial.

    All rungs but the last are measured on the sets of the objective alone, which is all that they are compared by.

    Args:
        experiment: with the sweep.
        sweep: its fingerprint.
        rungs: its budgets, each with its number of seeds.
        evaluation: knows the real data sets.
        pool: generates.
        shares: what trainings may hold of the cluster.
    """

    experiment: Experiment
    sweep: str
    rungs: list[RungSettings]
    evaluation: Evaluation
    pool: SharedPool
    placement: Placement

    def run(self, setting: Setting, rung: int, number: int) -> Row:
        """The row of a setting at a rung; `number` says when the setting was first tried."""
        key = step_fingerprint(self.sweep, setting, rung)
        evaluation = evaluation_at(self.evaluation, self.experiment, rung, len(self.rungs))
        if (row := find_result(self.experiment.root, KIND, key)) is not None and is_measured(row, evaluation):
            return row
        experiment = experiment_at(self.experiment, setting, self.rungs[rung])
        earlier = row or {"num_generated": 0, "seconds": {}}
        row = {
            "fingerprint": key,
            "sweep": self.sweep,
            "number": number,
            "setting": dict(setting.values),
            "label": setting.label,
            "clone": clone_spec_of(experiment).fingerprint,
            "rung": rung,
            "images_per_class": self.rungs[rung].images_per_class,
            "seeds": experiment.training.seeds,
            "num_planned": len(clone_of(experiment)),
            "proxies": {},
            "command": self.evaluation.command,
            "versions": versions(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        try:
            row |= self._measured(experiment, evaluation)
        except Exception as error:
            found = find_user_error(error)
            if found is None or not found.field.startswith(OF_A_SETTING):
                raise
            row |= {**NOTHING, "error": str(found)}
        row["num_generated"] += earlier["num_generated"]
        row["seconds"] = {part: seconds + earlier["seconds"].get(part, 0.0) for part, seconds in row["seconds"].items()}
        write_result(self.experiment.root, KIND, row)
        return row

    def _measured(self, experiment: Experiment, evaluation: Evaluation) -> Row:
        """What a step finds."""
        clone, num_generated, generate_seconds = self._generate(experiment)
        run = training_run(experiment, training_pools(experiment))
        classifiers, train_seconds = self._train(run)
        rows, measure_seconds = self._measure(evaluation, classifiers)
        scores = seed_scores(rows, classifiers, evaluation, experiment.sweep.weights)
        return {
            "seed_scores": scores,
            "score": float(np.mean(scores)) if scores else None,
            "classifiers": classifiers,
            "rows": [found["fingerprint"] for found in rows],
            "num_images": clone.num_images,
            "num_flagged": clone.num_flagged,
            "short_classes": clone.short_classes,
            "num_generated": num_generated,
            "seconds": {"generate": generate_seconds, "train": train_seconds, "measure": measure_seconds},
        }

    def known(self, settings: list[Setting]) -> dict[tuple[int, int], list[float]]:
        """The seeds' scores of the steps that were done and measured, by the setting's place and the rung."""
        rows = {row["fingerprint"]: row for row in find_steps(self.experiment, self.sweep)}
        found = {}
        for rung in range(len(self.rungs)):
            evaluation = evaluation_at(self.evaluation, self.experiment, rung, len(self.rungs))
            for place, setting in enumerate(settings):
                row = rows.get(step_fingerprint(self.sweep, setting, rung))
                if row is not None and is_measured(row, evaluation):
                    found[place, rung] = list(row["seed_scores"])
        return found

    def is_baseline_measured(self, kind: str) -> bool:
        """True when a baseline's classifiers are there with all their rows."""
        run = baseline_run(self.experiment, kind, self.rungs[-1])
        return all(self.evaluation.is_measured(run.fingerprint(seed)) for seed in run.settings.seeds)

    def run_baseline(self, kind: str) -> list[str]:
        """Train and measure the classifiers of real images, as many as the last rung has, or those with random
        weights; returns their fingerprints."""
        run = baseline_run(self.experiment, kind, self.rungs[-1])
        classifiers, _ = self._train(run)
        self._measure(self.evaluation, classifiers)
        return classifiers

    def _generate(self, experiment: Experiment) -> tuple[CloneSummary, int, float]:
        """The clone, images that were generated, of other clones in the training too, and the actors' seconds. Those
        with filters are scored."""
        training = experiment.training
        clones = [(clone_of(experiment), bool(training.filters))]
        for number, other in source_generations(experiment):
            clones.append(
                (
                    clone_of(experiment, other),
                    bool(training.sources[number].filters),
                )
            )
        grown = [self.pool.grow(clone) for clone, _ in clones]
        one_actor = experiment.model_copy(
            update={"generation": experiment.generation.model_copy(update={"num_actors": 1})}
        )
        for clone, is_filtered in clones:
            if is_filtered:
                score_images(one_actor, clone)
        return grown[0], sum(clone.num_generated for clone in grown), sum(clone.seconds for clone in grown)

    def _train(self, run: TrainingRun) -> tuple[list[str], float]:
        began = time.monotonic()
        if self.placement.trains_here:
            return train_here(run), time.monotonic() - began
        num_trials, placement = self.experiment.sweep.max_concurrent_trials, self.placement
        return train_classifiers(
            run, True, num_trials, placement.cpus_taken, placement.gpus_taken
        ), time.monotonic() - began

    def _measure(self, evaluation: Evaluation, classifiers: list[str]) -> tuple[list[Row], float]:
        """In this process where it trains, since it then holds its share of the cluster already."""
        began = time.monotonic()
        rows = [row for classifier in classifiers for row in evaluation.measure(classifier, self.placement.trains_here)]
        return rows, time.monotonic() - began


def evaluation_at(evaluation: Evaluation, experiment: Experiment, rung: int, num_rungs: int) -> Evaluation:
    """The sets that a rung is measured on."""
    return evaluation if rung + 1 == num_rungs else evaluation.confined(experiment.sweep.weights)


def is_measured(row: Row, evaluation: Evaluation) -> bool:
    """True when a step and all rows of its classifiers are there."""
    return row["score"] is not None and all(evaluation.is_measured(classifier) for classifier in row["classifiers"])


def baseline_run(experiment: Experiment, kind: str, rung: RungSettings) -> TrainingRun:
    """The training of a baseline: `real` or `random`."""
    settings = experiment.training.model_copy(
        update={"real": None, "seeds": experiment.training.seeds[: rung.num_seeds]}
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


def step_fingerprint(sweep: str, setting: Setting, rung: int) -> str:
    """Names the row of a step."""
    return fingerprint({"sweep": sweep, "setting": dict(setting.values), "rung": rung})


def seed_scores(
    rows: list[Row], classifiers: list[str], evaluation: Evaluation, weights: dict[str, float]
) -> list[float]:
    """The objective of each classifier in percent; nothing when a value of any is missing, so that means stay
    comparable.

    Args:
        rows: accuracy rows.
        classifiers: their fingerprints, in the order of their seeds.
        evaluation: knows the sets.
        weights: what each role counts; within a role all sets count the same.
    """
    scores = []
    for classifier in classifiers:
        own = [row for row in rows if row["classifier"] == classifier and row["value"] is not None]
        score = 0.0
        for role, weight in weights.items():
            values = [row["value"] for row in own if row["role"] == role]
            if not values or len(values) < sum(measured.role == role for measured in evaluation.sets):
                return []
            score += weight * float(np.mean(values))
        scores.append(score)
    return scores


def find_steps(experiment: Experiment, sweep: str, fingerprints: set[str] | None = None) -> list[Row]:
    """The rows of a sweep's steps, in the order of their settings and rungs; only those that are named, if any are."""
    rows = [row for row in read_results(experiment.root, KIND) if row["sweep"] == sweep]
    chosen = [row for row in rows if fingerprints is None or row["fingerprint"] in fingerprints]
    return sorted(chosen, key=lambda row: (row["number"], row["rung"]))
