"""The loop of an adaptive clone: generate, train, measure, choose, and again.

Each clone seed has a loop of its own, since its noise leads to other classifiers, which ask for other images. A round

1. generates what is missing of its parts (`raysd.adaptive.parts`); actors stay up from round to round where the cluster
   has room for them beside the training, and else end before it begins;
2. trains classifiers on all images so far: the first seed's, in the last round those of all seeds; where training
   goes on from round to round, those of all seeds in each;
3. measures its first classifier on the images that decide: real ones that are kept for validation, else held-out
   generated ones, and never a test set;
4. chooses what the next round adds (`raysd.adaptive.ways`) if it adds anything (`raysd.adaptive.course`), and writes
   its row.

Clones, classifiers and rows are named by what shapes them, and a round's row says what comes next. So a loop that is
killed goes on with the phase in which it died, and nothing is generated, trained or decided twice.
"""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from raysd.adaptive.actors import Actors
from raysd.adaptive.clock import Clock, added
from raysd.adaptive.course import Course
from raysd.adaptive.parts import Part, total
from raysd.adaptive.select import ask, choose
from raysd.adaptive.ways import first_parts, next_parts, pool_slice
from raysd.clone.plan import ImageCounts
from raysd.config import Experiment
from raysd.data.images import LeftOut
from raysd.errors import Failure, UserError
from raysd.evaluation.evaluate import Evaluation
from raysd.generation.cost import clones_cost, read_rates
from raysd.progress import say
from raysd.resolve import replicates, training_run
from raysd.storage.fingerprint import fingerprint
from raysd.storage.location import Location
from raysd.storage.row_types.adaptive import AdaptiveRow, RoundRow
from raysd.storage.row_types.measured import MeasuredRow
from raysd.storage.rows import ADAPTIVE, ROUND, find_row, write_row
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.versions import versions

DECIDES = ("validation", "generated")
"""Roles of the images that decide, the first that is there."""


def run_adaptive(experiment: Experiment, evaluation: Evaluation) -> tuple[AdaptiveRow, list[MeasuredRow]]:
    """Run or continue the loops of an experiment, measure the classifiers of the last rounds on all sets, and return
    the result row and all measurements, also those that failed.

    Args:
        experiment: validated settings.
        evaluation: knows the sets; one of them decides.

    Raises:
        UserError: what is wrong with the settings, the cluster, the storage or an image.
    """
    root, clock = experiment.root, Clock()
    loops = [Loop(each, evaluation, clock, number) for number, each in enumerate(replicates(experiment))]
    key = fingerprint([loop.fingerprint for loop in loops])
    with Actors(experiment) as actors:
        rounds = [row for loop in loops for row in loop.run(actors)]
    classifiers = [name for row in rounds if row["is_last"] for name in row["classifiers"]]
    rows, before = list[MeasuredRow](), dict(clock.seconds)
    with clock.phase("measure"):
        for name in classifiers:
            rows += evaluation.measure(name)
    row: AdaptiveRow = {
        "fingerprint": key,
        "name": experiment.name,
        "way": experiment.adaptive.way,
        "settings": experiment.adaptive.model_dump(mode="json"),
        "images_per_class": experiment.generation.images_per_class,
        "num_images": sum(row["num_images"] for row in rounds if row["is_last"]),
        "rounds": [row["fingerprint"] for row in rounds],
        "classifiers": classifiers,
        "rows": [row["fingerprint"] for row in rows if row["value"] is not None],
        "seconds": added([*(row["seconds"] for row in rounds), clock.since(before)]),
        "command": evaluation.command,
        "versions": versions(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    earlier = find_row(root, ADAPTIVE, key)
    if earlier is None or (earlier["rows"], earlier["rounds"]) != (row["rows"], row["rounds"]):
        write_row(root, ADAPTIVE, row)
        return row, rows
    return earlier, rows


@dataclass
class Loop:
    """The loop of one clone seed."""

    experiment: Experiment
    evaluation: Evaluation
    clock: Clock
    number: int
    """Of the clone seed."""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the rounds."""
        experiment, settings = self.experiment, self.experiment.adaptive
        (first,) = first_parts(settings, experiment.generation.images_per_class, len(experiment.table))
        run, last = (self._run([first], Course(is_last=is_last), []) for is_last in (False, True))
        return fingerprint(
            {
                "first": first.images(experiment).identity(),
                "images_per_class": experiment.generation.images_per_class,
                "settings": settings.identity(),
                "training": [run.fingerprint(run.settings.seeds[0]), last.fingerprint(last.settings.seeds[0])],
                "seeds": experiment.training.seeds,
                "decides": [measured.identity() for measured in self._deciding().sets],
            }
        )

    def run(self, actors: Actors) -> list[RoundRow]:
        """Run the rounds that are missing, and return the rows of all."""
        settings, rows = self.experiment.adaptive, list[RoundRow]()
        parts = first_parts(settings, self.experiment.generation.images_per_class, len(self.experiment.table))
        course, starts = Course(), list[str]()
        while True:
            clones = [part.clone(self.experiment).spec.fingerprint for part in parts]
            key = fingerprint([self.fingerprint, course.number, clones, [part.to_json() for part in parts]])
            row = find_row(self.experiment.root, ROUND, key)
            if row is None or not self._is_there(row):
                row = self._round(key, course, parts, starts, actors)
                write_row(self.experiment.root, ROUND, row)
            rows.append(row)
            if course.is_last:
                return rows
            parts, starts = [Part.from_json(part) for part in row["next"]], row["classifiers"]
            course = course.after(row["accuracy"], settings)

    def _is_there(self, row: RoundRow) -> bool:
        """Return whether the classifiers of a round exist; rows alone are no use without them."""
        from raysd.classifier.architecture import load_record

        classifiers = self.experiment.root.child("classifiers")
        return all(load_record(classifiers.child(name)) is not None for name in row["classifiers"])

    def _round(self, key: str, course: Course, parts: list[Part], starts: list[str], actors: Actors) -> RoundRow:
        experiment, settings, name = self.experiment, self.experiment.adaptive, self._name(course.number)
        began, before = time.monotonic(), dict(self.clock.seconds)
        say(f"{name}: {total(parts):,} images")
        clones = [part.clone(experiment) for part in parts]
        with self.clock.phase("generate"):
            actors.grow(clones)
        run = self._run(parts, course, starts)
        with self.clock.phase("train"):
            classifiers = actors.train(run)
        with self.clock.phase("measure"):
            measured = self._measure(classifiers[0])
        accuracies = measured["per_class"] or [None] * len(experiment.table)
        coming = self._coming(course, measured["value"], accuracies, parts, classifiers[0], actors)
        say(f"{name}: {measured['value']:.1f} % on {measured['dataset']}")
        row: RoundRow = {
            "fingerprint": key,
            "loop": self.fingerprint,
            "way": settings.way,
            "number": course.number,
            "is_last": course.is_last,
            "grew": course.grew,
            "clone_seed": experiment.generation.seed,
            "num_images": total(parts),
            "class_names": list(experiment.table.names),
            "counts": np.sum([part.chosen for part in parts], axis=0).tolist(),
            "parts": [part.to_json() for part in parts],
            "clones": [clone.spec.fingerprint for clone in clones],
            "classifiers": classifiers,
            "decided_on": measured["dataset"],
            "decided_by": measured["role"],
            "accuracy": measured["value"],
            "per_class": accuracies,
            "next": [part.to_json() for part in coming],
            "device_seconds": clones_cost(clones, read_rates(experiment.root))["seconds"],
            "seconds": self.clock.since(before, began),
            "training": fingerprint(experiment.training.model_dump(mode="json", exclude={"seeds"})),
            "versions": versions(),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if settings.patience is None:
            return row
        return {**row, "stalls": course.stalls_after(row["accuracy"]), "step": course.step}

    def _coming(
        self,
        course: Course,
        accuracy: float,
        accuracies: list[float | None],
        parts: list[Part],
        classifier: str,
        actors: Actors,
    ) -> list[Part]:
        """Return what there is to be after the next round; nothing after the last."""
        settings, budget = self.experiment.adaptive, self.experiment.generation.images_per_class
        if course.is_last:
            return []
        coming = course.after(accuracy, settings)
        if not coming.grew:
            return parts
        if settings.way != "select":
            return next_parts(settings, budget, coming.step, parts, accuracies, classifier)
        folder = self.experiment.root.child("classifiers", classifier)
        return self._select(pool_slice(settings, budget, course.step, coming.step), parts, folder, actors)

    def _select(
        self, pool_part: tuple[int, tuple[int, int]], parts: list[Part], classifier: Location, actors: Actors
    ) -> list[Part]:
        """Generate the pool of a growth step, ask a classifier about it, and return what is chosen."""
        settings, (part,), (first, count) = self.experiment.adaptive, parts, pool_part
        counts = ImageCounts(part.counts.num_classes, first + count[1])
        pool = Part(part.changes, counts).clone(self.experiment)
        with self.clock.phase("generate"):
            actors.grow([pool])
        with self.clock.phase("measure"):
            answers = ask(self.experiment, pool, classifier)
        earlier = part.left_out or LeftOut(counts.num_classes, b"")
        return [Part(part.changes, counts, choose(answers, earlier, counts.default, first, count[0], settings))]

    def _name(self, number: int) -> str:
        seed = f", clone seed {self.experiment.generation.seed}" if self.number else ""
        settings = self.experiment.adaptive
        most = f" of {settings.num_rounds}" if settings.patience is None else ""
        return f"{settings.way}, round {number + 1}{most}{seed}"

    def _run(self, parts: list[Part], course: Course, starts: list[str]) -> TrainingRun:
        """Return the training of a round.

        Args:
            parts: the images.
            course: where the round is.
            starts: the classifiers of the round before, for a training that goes on.
        """
        training, settings = self.experiment.training, self.experiment.adaptive
        changes = dict[str, Any]()
        if not course.is_last and settings.round_epochs is not None:
            changes = {"num_epochs": settings.round_epochs, "num_steps": None}
        goes_on = settings.training == "continued"
        if goes_on:
            changes["recipe_options"] = {**training.recipe_options, **course.rates}
        elif not course.is_last:
            changes["seeds"] = training.seeds[:1]
        experiment = self.experiment.model_copy(update={"training": training.model_copy(update=changes)})
        run = training_run(experiment, (Pool(tuple(part.images(experiment) for part in parts)),))
        if not goes_on:
            return run
        chains = dict(zip(training.seeds, starts, strict=True)) if starts else {}
        return replace(run, starts=chains, keeps_state=not course.is_last)

    def _deciding(self) -> Evaluation:
        """Return the evaluation on the images that decide."""
        for role in DECIDES:
            chosen = self.evaluation.confined([role])
            if chosen.sets:
                return chosen
        raise UserError("evaluation.validation_set", None, "name the images that decide what is generated next")

    def _measure(self, classifier: str) -> Any:
        """Return the row of a classifier on the images that decide; the first set where there are several.

        Raises:
            Failure: it could not be measured.
        """
        row = self._deciding().measure(classifier, here=True)[0]
        if row["value"] is None:
            raise Failure(str(row["error"]))
        return row
