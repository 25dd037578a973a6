"""The objects of an experiment: its clone, the images its classifiers learn from, the training, the scoring."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from raysd.classifier.architecture import load_record
from raysd.classifier.exemplars import Exemplars, FeatureModel
from raysd.clone.clone import Clone, plan_clone, spec_as_begun
from raysd.clone.settings import ExemplarGuidanceSettings, GenerationSettings
from raysd.clone.shard import DATA
from raysd.clone.spec import CloneSpec, resolve_clone_spec
from raysd.config import Experiment, load_experiment
from raysd.curation.filters import filter_images
from raysd.curation.near_duplicates import read_reference
from raysd.curation.scores import ScoringSpec, resolve_scoring_spec
from raysd.curation.scoring import ScoreSummary, score_clone
from raysd.curation.settings import TEXTS, FilterSettings, experiment_words
from raysd.curation.soft_labels import with_soft_labels
from raysd.curation.teachers import Teacher
from raysd.data.images import ImageSet
from raysd.data.real_datasets import real_dataset
from raysd.errors import UserError
from raysd.evaluation.tasks import validation_images
from raysd.training.loader import Pool
from raysd.training.run import TrainingRun
from raysd.training.settings import TrainingSettings

OF_GUIDED = {"guidance_range", "guidance_interval", "guidance_schedule", "weak_model", "weak_revision", "skip_blocks"}
OF_GUIDED |= {"cads", "entropy_guidance", "exemplar_guidance", "seeds", "first_image", "class_counts"}
ALWAYS = {"seed", "seeds"}  # of these an experiment with several clones has others
UNGUIDED: dict[str, Any] = {
    "guidance_scale": 1,
    **GenerationSettings().model_dump(mode="json", include=OF_GUIDED),
}
"""What sets the clone that exemplars are chosen from apart from the one that they guide."""


def clone_spec_of(
    experiment: Experiment, generation: GenerationSettings | None = None, fetch: bool = True
) -> CloneSpec:
    """Return the spec of an experiment's clone: the settings that determine its images.

    Args:
        experiment: validated settings.
        generation: of another clone with the same classes and variants, in the place of the experiment's own.
        fetch: whether to fetch the weights of a hub model; if they are missing otherwise, the fingerprint is unknown.

    Raises:
        UserError: a variant or a model that is unknown, or that do not fit.
    """
    generation = generation or experiment.generation
    spec = resolve_clone_spec(
        generation,
        experiment.table,
        experiment.all_variants,
        fetch,
        lambda wanted: _find_exemplars(experiment, generation, wanted),
    )
    return spec_as_begun(experiment.root, spec)


def _find_exemplars(
    experiment: Experiment, generation: GenerationSettings, wanted: ExemplarGuidanceSettings
) -> tuple[Exemplars, FeatureModel]:
    """Return the exemplars that guide a clone.

    Raises:
        UserError: there are none, or the generated images that they are chosen from are not there yet.
    """
    from raysd.evaluation.exemplars import find_exemplars

    def pool() -> ImageSet:
        changes = {**UNGUIDED, "seed": wanted.seed, "images_per_class": wanted.pool}
        own = generation.model_dump(mode="json")
        clone = clone_of(experiment, GenerationSettings(**{**own, **changes}), fetch=False)
        if not clone.is_complete():
            asked = experiment.generation.model_dump(mode="json")
            unlike = {name: value for name, value in own.items() if value != asked[name] and name not in changes}
            needed = {name: value for name, value in changes.items() if name in ALWAYS or own[name] != value}
            words = [f"generation.{name}={json.dumps(value)}" for name, value in {**unlike, **needed}.items()]
            remedy = f"needs the clone without guidance; run raysd generate with {shlex.join(words)} first"
            raise UserError("generation.exemplar_guidance.images", wanted.images, remedy)
        return clone_images(clone)

    return find_exemplars(wanted, experiment.root, experiment.table, pool)


def clone_of(experiment: Experiment, generation: GenerationSettings | None = None, fetch: bool = True) -> Clone:
    """Return an experiment's clone; the arguments and errors are those of `clone_spec_of`."""
    generation = generation or experiment.generation
    return plan_clone(experiment.root, clone_spec_of(experiment, generation, fetch), generation)


def replicates(experiment: Experiment) -> list[Experiment]:
    """Return an experiment with one clone for each of `generation.seeds`, in their order; without them the experiment
    itself.

    Each has the classifier seeds that learn from its clone: classifier seed number k from clone number k modulo the
    number of clone seeds. So a clone seed for which no classifier seed is left is dropped.
    """
    generation, training = experiment.generation, experiment.training
    if not generation.seeds:
        return [experiment]
    found = []
    for number, seed in enumerate(generation.seeds[: len(training.seeds)]):
        own = training.seeds[number :: len(generation.seeds)]
        found.append(
            experiment.model_copy(
                update={
                    "generation": generation.model_copy(update={"seed": seed, "seeds": []}),
                    "training": training.model_copy(update={"seeds": own}),
                }
            )
        )
    return found


def clones_of(experiment: Experiment, fetch: bool = True) -> list[Clone]:
    """Return an experiment's clones, one for each clone seed; `fetch` and the errors are those of `clone_spec_of`."""
    return [clone_of(each, fetch=fetch) for each in replicates(experiment)]


def runs_by_seed(experiment: Experiment, run_of: Callable[[Experiment], TrainingRun]) -> list[tuple[int, TrainingRun]]:
    """Return each classifier seed with its training, in the order of `training.seeds`; classifiers of one clone share
    it.

    Args:
        experiment: validated settings.
        run_of: returns the training of an experiment with one clone.
    """
    parts = [experiment] if experiment.training.real is not None else replicates(experiment)
    by_seed = {seed: run for each in parts for run in [run_of(each)] for seed in each.training.seeds}
    return [(seed, by_seed[seed]) for seed in experiment.training.seeds]


def training_pools(experiment: Experiment) -> tuple[Pool, ...]:
    """Return the images that `training` names, with their shares of a batch.

    Raises:
        UserError: a clone that is not complete, filters on a clone without scores, or a real data set that cannot be
            read.
    """
    training, count = experiment.training, experiment.generation.images_per_class
    if training.real is not None:
        return (Pool((real_dataset(training.real, "train", experiment.root, count, experiment.table),)),)
    if not training.sources:
        return (Pool((_complete_clone(experiment, experiment.generation, training.filters, "generation"),)),)
    clones = dict(source_generations(experiment))
    sets = []
    for number, source in enumerate(training.sources):
        if source.real is not None:
            sets.append(real_dataset(source.real, "train", experiment.root, source.images_per_class, experiment.table))
        else:
            sets.append(_complete_clone(experiment, clones[number], source.filters, f"training.sources.{number}.clone"))
    if training.sources[0].share is None:
        return (Pool(tuple(sets)),)
    return tuple(Pool((images,), source.share or 0.0) for images, source in zip(sets, training.sources, strict=True))


def training_clones(experiment: Experiment) -> list[Clone]:
    """Return the clones whose images the training names; none for real images alone."""
    if experiment.training.real is not None:
        return []
    if not experiment.training.sources:
        return clones_of(experiment)
    return [clone_of(each, generation) for each in replicates(experiment) for _, generation in source_generations(each)]


def training_run(experiment: Experiment, pools: tuple[Pool, ...]) -> TrainingRun:
    """Return the training of the experiment's classifiers on some images."""
    validation, settings = None, experiment.evaluation
    if experiment.training.validate_epochs and settings.validation_set is not None:
        validation = validation_images(experiment.root, settings, settings.validation_set, experiment.table)
    return TrainingRun(
        experiment.root, pools, len(experiment.table), experiment.training, validation, tuple(experiment.table.names)
    )


def source_generations(experiment: Experiment) -> Iterator[tuple[int, GenerationSettings]]:
    """Return the index and the generation settings of each source that is a clone.

    Raises:
        UserError: a setting that `generation` does not have, or a wrong value.
    """
    for number, source in enumerate(experiment.training.sources):
        if source.clone is None:
            continue
        overrides: dict[str, Any] = dict(source.clone)
        field = f"training.sources.{number}.clone"
        if "seeds" in overrides:
            remedy = "is the same for all sources; set generation.seeds"
            raise UserError(f"{field}.seeds", overrides["seeds"], remedy)
        if source.images_per_class is not None:
            overrides |= {"images_per_class": source.images_per_class, "class_counts": {}}
        values = {**experiment.generation.model_dump(), **overrides}
        try:
            generation = GenerationSettings(**values)
        except ValidationError as error:
            raise UserError.from_validation(error, field, values, GenerationSettings) from None
        yield number, generation


def _complete_clone(
    experiment: Experiment, generation: GenerationSettings, filters: FilterSettings, field: str
) -> ImageSet:
    clone = clone_of(experiment, generation)
    if not clone.is_complete():
        count = generation.images_per_class
        same = "the same configuration" if field == "generation" else "these settings"
        raise UserError(
            f"{field}.images_per_class",
            count,
            f"the clone does not have all of them; run raysd generate with {same} first",
        )
    return chosen_images(experiment, clone, filters)


def resolve_scoring(experiment: Experiment) -> tuple[ScoringSpec, list[ImageSet]]:
    """Return the spec of the scoring of each image, and the test sets that the clone is compared with.

    Raises:
        UserError: no such model or set, or a template that the class table cannot fill.
    """
    settings = experiment.scoring
    sets = [real_dataset(name, "test", experiment.root) for name in settings.against]
    references = [(images.name, images.fingerprint) for images in sets]
    return resolve_scoring_spec(settings, experiment.table, references, find_teachers(experiment)), sets


def find_teachers(experiment: Experiment) -> tuple[Teacher, ...]:
    """Return the classifiers among an experiment's teachers.

    Raises:
        UserError: no such classifier or experiment, one that is not trained yet, or one of other classes.
    """
    if not experiment.scoring.teachers:
        return ()
    from raysd.evaluation.teachers import find_teacher, own_teacher

    found: list[Teacher] = []
    for number, name in enumerate(experiment.scoring.teachers):
        field, table = f"scoring.teachers.{number}", experiment.table
        if experiment_words(name):
            found += [own_teacher(field, name, run.folder(seed), table) for seed, run in _runs_of(field, name)]
        elif name != TEXTS:
            found.append(find_teacher(field, name, experiment.root, table))
    return tuple(found)


def with_found_teachers(experiment: Experiment) -> Experiment:
    """Return an experiment that names the folders of classifiers in the place of experiment files that teach: these may
    hold paths that mean something else in the folder of a sweep's trial."""
    names: list[str] = []
    for number, name in enumerate(experiment.scoring.teachers):
        runs = _runs_of(f"scoring.teachers.{number}", name) if experiment_words(name) else []
        names += [run.folder(seed).uri for seed, run in runs] or [name]
    if names == experiment.scoring.teachers:
        return experiment
    return experiment.model_copy(update={"scoring": experiment.scoring.model_copy(update={"teachers": names})})


def _runs_of(field: str, name: str) -> list[tuple[int, TrainingRun]]:
    """Return the trained classifiers of an experiment file that teaches, `name` with its overrides."""
    path, *overrides = experiment_words(name)
    try:
        other = load_experiment(path, overrides)
        if needs_scoring(other.training) and any(map(experiment_words, other.scoring.teachers)):
            remedy = "its classifiers have teachers themselves, by an experiment file; name their folders instead"
            raise UserError(field, name, remedy)
        runs = runs_by_seed(other, lambda each: training_run(each, training_pools(each)))
    except UserError as error:
        if error.field == field:
            raise
        raise UserError(field, name, f"its {error.field}: {error.remedy}") from None
    for seed, run in runs:
        if load_record(run.folder(seed)) is None:
            command = shlex.join(["raysd", "train", path, *overrides])
            raise UserError(field, name, f"its classifier of seed {seed} is not trained yet; run {command} first")
    return runs


def needs_scoring(training: TrainingSettings) -> bool:
    """Return whether classifiers learn from filtered clones, or from soft labels."""
    filters = [training.filters, *(source.filters for source in training.sources)]
    return any(filters) or training.resolve_recipe().soft_weight > 0


def score_images(experiment: Experiment, clone: Clone) -> ScoreSummary:
    """Score the images of a complete clone that have no scores yet."""
    spec, sets = resolve_scoring(experiment)
    return score_clone(
        clone,
        spec,
        lambda: [read_reference(images) for images in sets],
        experiment.generation,
        experiment.scoring.batch_size,
    )


def chosen_images(experiment: Experiment, clone: Clone, filters: FilterSettings) -> ImageSet:
    """Return a clone's images to train on, without those that the filters leave out, and with any soft labels.

    Raises:
        UserError: filters or soft labels, and a clone without scores.
    """
    images, recipe = clone_images(clone), experiment.training.resolve_recipe()
    if not filters and not recipe.soft_weight:
        return images
    spec, _ = resolve_scoring(experiment)
    if filters:
        left_out = filter_images(clone, spec, filters)
        about = {**images.about, "filters": filters.model_dump(exclude_none=True), "num_left_out": len(left_out)}
        images = replace(images, name=f"{images.name}, filtered", left_out=left_out, about=about)
    return with_soft_labels(images, clone, spec, recipe) if recipe.soft_weight else images


def clone_images(clone: Clone) -> ImageSet:
    """Return a clone's images to train on: those that are planned, and not flagged."""
    spec, counts = clone.spec, clone.counts
    about: dict[str, Any] = {
        "kind": "clone",
        "variant": spec.variant_name,
        "guidance_scale": spec.guidance_scale,
        "model": spec.model.name,
        "num_inference_steps": spec.num_inference_steps,
    }
    if spec.seed:
        about["at_seed_0"] = replace(spec, seed=0).fingerprint
    if (guide := spec.exemplar_guide) is not None:
        about |= {"num_real_images": guide.exemplars.num_real_images, "exemplars": guide.describe()}
    per_class = tuple(counts.array.tolist()) if counts.own else counts.default
    if counts.own:
        about["images_per_class"] = round(counts.total / counts.num_classes)
    return ImageSet(
        f"{spec.variant_name}, g={spec.guidance_scale:g}",
        spec.fingerprint,
        clone.folder.child(DATA),
        per_class,
        about=about,
    )
