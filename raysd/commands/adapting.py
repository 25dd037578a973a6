"""The command that grows a clone by what its classifier does not know yet."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from raysd.commands.answers.adaptive import AdaptedClone
from raysd.commands.apart import check_apart
from raysd.commands.checks import check_classes, check_generation, check_prompts, check_training
from raysd.commands.held_out import generate_held_out, held_out_clones, held_out_sets
from raysd.commands.show import describe_row
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import UserError
from raysd.progress import say
from raysd.storage.row_types.adaptive import AdaptiveRow, RoundRow
from raysd.storage.rows import ACCURACY, ROUND, find_row

if TYPE_CHECKING:
    from raysd.clone.clone import Clone

CONFIG = "adapted.yaml"

DECIDES = (
    "no evaluation.validation_set is named, so accuracies on held-out generated images decide what is generated next"
)


def adapt(experiment: ExperimentLike = None, command: str = "", **values: Any) -> AdaptedClone:
    """Generate a clone in rounds: train on what is there, measure, and let that say what is generated next.

    Run again after a kill, it goes on with the phase in which it died.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        command: what the rows name as the command that made them.
        values: keys of the experiment file, as `adaptive={"way": "entropy"}`; merged into `experiment`.

    Raises:
        UserError: what is wrong with the settings, the cluster, the storage or an image.
    """
    from raysd.adaptive.forecast import images_to_generate
    from raysd.adaptive.loop import run_adaptive
    from raysd.adaptive.ways import first_parts
    from raysd.clone.plan import ImageCounts
    from raysd.evaluation.evaluate import Evaluation
    from raysd.resolve import replicates
    from raysd.storage.attempts import Attempt
    from raysd.tracking.evaluation_log import log_evaluation
    from raysd.training.train import check_batch

    experiment = load_experiment(experiment, **values)
    _check_settings(experiment)
    check_training(experiment)
    first = first_parts(experiment.adaptive, experiment.generation.images_per_class, len(experiment.table))
    check_batch(first[0].counts.total, experiment.training, [])
    experiment.root.check_writable()
    evaluation = Evaluation(experiment.root, experiment.evaluation, experiment.table, command)
    parts = replicates(experiment)
    clones = [part.clone(each) for each in parts for part in first]
    check_apart(experiment, [], [clone.spec for clone in clones])
    check_prompts(experiment, [clones[0].spec])
    whole = images_to_generate(experiment.adaptive, experiment.generation.images_per_class)
    check_generation(experiment, [clone.with_counts(ImageCounts(len(experiment.table), whole)) for clone in clones])
    if experiment.evaluation.validation_set is None:
        say(DECIDES)
        held_out = held_out_clones(parts[:1])
        generate_held_out(experiment, held_out)
        evaluation = evaluation.with_sets(held_out_sets(held_out))
    with Attempt(experiment.root, f"adaptive {clones[0].spec.fingerprint}-{experiment.adaptive.way}"):
        row, measured = run_adaptive(experiment, evaluation)
    found = [find_row(experiment.root, ACCURACY, key) for key in row["rows"]]
    accuracies = [each for each in found if each is not None]
    log_evaluation(experiment.training.logger, experiment.root, accuracies)
    rounds = [find_row(experiment.root, ROUND, key) for key in row["rounds"]]
    there = tuple(each for each in rounds if each is not None)
    config = _write_config(experiment, row, there, command)
    failed = tuple(describe_row(each) for each in measured if each["value"] is None)
    return AdaptedClone(row, there, tuple(accuracies), experiment.root, config, failed)


def _write_config(experiment: Experiment, row: AdaptiveRow, rounds: tuple[RoundRow, ...], command: str) -> str | None:
    """Write the experiment file of the images of the first clone seed, and return its place; None for chosen images,
    which such a file cannot name."""
    from raysd.adaptive.config_file import adapted_config
    from raysd.adaptive.parts import Part
    from raysd.resolve import replicates

    last = next(each for each in rounds if each["is_last"])
    parts = [Part.from_json(part) for part in last["parts"]]
    if any(part.left_out is not None for part in parts):
        return None
    folder = experiment.root.child("reports", row["fingerprint"])
    text = adapted_config(replicates(experiment)[0], parts, f"{last['num_images']:,} images. {command}")
    folder.write(CONFIG, text.encode())
    return folder.child(CONFIG).uri


def adapting_lines(experiment: Experiment, clones: "Sequence[Clone]") -> list[str]:
    """Return what the rounds of an experiment generate and train, and what that costs; nothing where its file has no
    section `adaptive`, and what stands against it where something does.

    Args:
        experiment: validated settings.
        clones: the plain clone of each clone seed.
    """
    from raysd.adaptive.forecast import clones_to_generate, num_trainings
    from raysd.adaptive.ways import first_parts
    from raysd.commands.cost import cost_lines
    from raysd.resolve import replicates
    from raysd.training.train import check_batch

    if "adaptive" not in experiment.model_fields_set:
        return []
    settings, images = experiment.adaptive, experiment.generation.images_per_class
    try:
        _check_settings(experiment, fetch=False)
        check_classes(experiment)
        check_batch(first_parts(settings, images, len(experiment.table))[0].counts.total, experiment.training, [])
    except UserError as error:
        return [f"refused: {error}"]
    parts, seeds = clones_to_generate(settings, images, clones), replicates(experiment)
    trainings = sum(num_trainings(settings, len(each.training.seeds)) for each in seeds)
    rounds = f"{settings.num_rounds} rounds" if settings.patience is None else f"up to {settings.max_rounds} rounds"
    what = f"{settings.way}: {sum(map(len, parts)):,} images and {trainings} trainings in {rounds}"
    if experiment.evaluation.validation_set is None:
        held_out = held_out_clones(seeds[:1], fetch=False)
        parts += held_out
        what += f", and {sum(map(len, held_out)):,} held-out images that decide"
    return [what, *cost_lines(experiment, parts, with_time=False)]


def _check_settings(experiment: Experiment, fetch: bool = True) -> None:
    """Refuse settings that the rounds would overrule.

    Args:
        experiment: validated settings.
        fetch: whether to fetch the weights of a hub model.

    Raises:
        UserError: one of them is set.
    """
    training, generation = experiment.training, experiment.generation
    overruled: dict[str, object] = {
        "training.real": training.real,
        "training.sources": training.sources,
        "training.filters": training.filters or None,
        "generation.class_counts": generation.class_counts,
        "generation.entropy_guidance": generation.entropy_guidance,
        "generation.first_image": generation.first_image,
    }
    for field, value in overruled.items():
        if value:
            shown = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
            raise UserError(field, shown, "is what the rounds of raysd adapt decide; leave it out")
    if training.resolve_recipe().soft_weight:
        remedy = "needs scores of all images, which rounds do not make; set it to 0"
        raise UserError("training.recipe_options.soft_weight", training.recipe_options.get("soft_weight"), remedy)
    if experiment.adaptive.way == "select" and generation.flagged == "keep":
        raise UserError("generation.flagged", "keep", "has flagged images chosen and then not trained on; use redraw")
    if experiment.adaptive.way == "entropy":
        _check_entropy(experiment, fetch)
    least = images_of_a_round(experiment)
    if least < 1:
        remedy = f"leaves rounds without images at {generation.images_per_class} images per class; use fewer rounds"
        raise UserError("adaptive.num_rounds", experiment.adaptive.num_rounds, remedy)


def _check_entropy(experiment: Experiment, fetch: bool) -> None:
    """Refuse what the rounds after the first could not be guided with.

    Raises:
        UserError: a pipeline or a setting that hands out no gradient, or too few steps.
    """
    from raysd.diffusion.conventions import STEPPED
    from raysd.resolve import clone_spec_of

    settings, generation = experiment.adaptive, experiment.generation
    if (exemplars := generation.exemplar_guidance) is not None:
        remedy = "and the way entropy both move the latents; leave it out, or use another way"
        raise UserError("generation.exemplar_guidance", exemplars.model_dump(), remedy)
    spec = clone_spec_of(experiment, fetch=fetch)
    if spec.family.pipeline not in STEPPED:
        why = f"{spec.family.pipeline} does not hand out its latents after each step as {', '.join(STEPPED)} do"
        raise UserError("adaptive.way", "entropy", f"{why}; use budgets")
    if settings.through_denoiser and (generation.compile or spec.step_cache is not None):
        name = "generation.compile" if generation.compile else "generation.step_cache"
        raise UserError("adaptive.through_denoiser", True, f"needs a gradient, which {name} has none of; leave one out")
    if settings.weight and settings.every >= spec.num_inference_steps:
        remedy = f"guides no step of {spec.num_inference_steps}, of which the last never is; lower it"
        raise UserError("adaptive.every", settings.every, remedy)


def images_of_a_round(experiment: Experiment) -> int:
    """Return the fewest images that a round adds to a class, on average."""
    from raysd.adaptive.budget import all_goals

    settings = experiment.adaptive
    goals = all_goals(experiment.generation.images_per_class, settings.num_rounds, settings.first_share)
    return min(after - before for before, after in pairwise([0, *goals]))
