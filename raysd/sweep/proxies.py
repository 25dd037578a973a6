"""Proxies of transfer that need no training: how near a clone is to real images, and how well its images fit their
texts."""

from dataclasses import replace
from functools import partial

import numpy as np

from raysd.clone.clone import Clone
from raysd.config import Experiment
from raysd.curation.scores import read_scores
from raysd.data.images import ImageSet
from raysd.errors import Failure, try_again
from raysd.evaluation.analyze import compare_clone
from raysd.evaluation.models import EvaluatedModel, own_model, pretrained_model
from raysd.evaluation.settings import TestSet
from raysd.evaluation.tasks import class_images
from raysd.progress import Progress, say
from raysd.resolve import clone_images, clone_of, replicates, resolve_scoring, score_images
from raysd.storage.row_types.sweep import RungResult
from raysd.storage.rows import RUNG_RESULT, write_row
from raysd.sweep.rung import baseline_run
from raysd.sweep.settings import RungSettings
from raysd.sweep.space import Setting, experiment_at


def note_proxies(experiment: Experiment, results: list[RungResult], rungs: list[RungSettings], command: str) -> None:
    """Measure the proxies of each setting's clone of the first rung, of several clones the first one's, and write them
    to the rung result; proxies that it has already are not measured again.

    Frechet distance, precision, recall, density and coverage are in the features of `analysis.model`, or without one of
    the first classifier that was trained on real images. The mean similarity of images and texts needs `scoring.model`.
    """
    first = [result for result in results if result["rung"] == 0 and not result["proxies"] and "error" not in result]
    if not first:
        return
    try:
        model = _evaluated_model(experiment, rungs[-1])
    except FileNotFoundError:  # the baseline failed
        say("no proxies: they use the features of a classifier of real images, and that baseline failed")
        return
    real = _real_images(experiment)
    with Progress("compared with real images", len(first), "clones") as progress:
        for result in first:
            at = replicates(experiment_at(experiment, Setting(result["setting"]), rungs[0]))[0]
            clone = clone_of(at)
            compare = partial(
                compare_clone, experiment.root, model, clone_images(clone), real, experiment.analysis, command
            )
            try:
                values = try_again(compare)["values"]
                proxies = {name: value for name, value in values.items() if not name.startswith("num_")}
                if experiment.scoring.model is not None:
                    proxies["image_text_similarity"] = try_again(partial(_similarity, at, clone))
            except Failure as error:
                say(f"no proxies of {result['label']}: {error}")
            else:
                result["proxies"] = proxies
                write_row(experiment.root, RUNG_RESULT, result)
            progress.advance(1)


def _evaluated_model(experiment: Experiment, last: RungSettings) -> EvaluatedModel:
    if experiment.analysis.model is not None:
        return pretrained_model(experiment.analysis.model, experiment.table, needs_classes=False)
    run = baseline_run(experiment, "real", last)
    return own_model(experiment.root, run.fingerprint(run.settings.seeds[0]))


def _real_images(experiment: Experiment) -> ImageSet:
    """Return the images that `raysd analyze` uses, or without any the last ones of each class of `sweep.real`, apart
    from those that are trained on."""
    root, table, analysis = experiment.root, experiment.table, experiment.analysis
    if analysis.real is not None:
        return replace(
            class_images(root, analysis.real, "test", table),
            images_per_class=analysis.images_per_class,
        )
    wanted = experiment.evaluation.validation_set or TestSet(name=experiment.sweep.real or "")
    return replace(
        class_images(root, wanted, "train", table),
        images_per_class=analysis.images_per_class,
        from_end=True,
    )


def _similarity(experiment: Experiment, clone: Clone) -> float:
    """Return the mean cosine similarity of the planned images with their class's text."""
    score_images(experiment, clone)
    spec, _ = resolve_scoring(experiment)
    scores = read_scores(clone, spec)
    planned = clone.is_planned(scores["label"].to_numpy(), scores["index"].to_numpy())
    return float(np.mean(scores["similarity"].to_numpy()[planned]))
