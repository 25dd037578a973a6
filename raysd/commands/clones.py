"""The commands that make a clone and look after it."""

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raysd.clone.settings import MOST_IMAGES
from raysd.commands.answers.clone import ClonePlan, ExportedClone, GeneratedClone, ScoredClone, VerifiedClone
from raysd.commands.checks import check_generation, check_options, check_prompts, findings
from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import Failure, UserError
from raysd.progress import say

if TYPE_CHECKING:
    from raysd.clone.clone import Clone
    from raysd.clone.plan import ImageCounts

NUM_EXAMPLES = 3


def plan(experiment: ExperimentLike = None, **values: Any) -> ClonePlan:
    """Return what `generate` would generate: prompts, counts, shards, size on disk and cost. Generates nothing.

    Of a model on the hub that is not in its cache, only configs and tokenizers are fetched. The fingerprint is then
    `unknown`, and all images count as missing.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `generation={"guidance_scale": 4}`; merged into `experiment`.

    Raises:
        UserError: what is wrong with the experiment.
    """
    from raysd.clone.scan import missing_shards
    from raysd.commands.adapting import adapting_lines
    from raysd.commands.cost import confirmation_lines, cost_lines
    from raysd.generation.cost import num_bytes

    experiment = load_experiment(experiment, **values)
    check_options(experiment)
    clones = _clones_of(experiment, fetch=False)
    suspects, cost = tuple(findings(experiment, clones[0].spec)), tuple(cost_lines(experiment, clones))
    confirmation, rounds = tuple(confirmation_lines(experiment)), tuple(adapting_lines(experiment, clones))
    first, *others = (
        ClonePlan(
            clone,
            tuple(clone.image(position).prompt for position in range(min(NUM_EXAMPLES, len(clone.spec.table)))),
            _prompts_by_variant(experiment, clone),
            suspects,
            len(missing_shards(clone)),
            num_bytes(clone),
            cost,
            confirmation,
            rounds,
        )
        for clone in clones
    )
    return replace(first, others=tuple(others))


def _clones_of(experiment: Experiment, fetch: bool = True) -> "list[Clone]":
    """Return the clones of an experiment's clone seeds, and say which seeds no classifier learns from."""
    from raysd.resolve import clones_of

    if unused := experiment.generation.seeds[len(experiment.training.seeds) :]:
        say(f"clone seeds {', '.join(map(str, unused))} are left out: each needs a classifier seed in training.seeds")
    return clones_of(experiment, fetch)


def _prompts_by_variant(experiment: Experiment, clone: "Clone") -> dict[str, str | UserError]:
    from raysd.prompts.resolve import resolve_variant

    prompts: dict[str, str | UserError] = {}
    for name in experiment.all_variants:
        try:
            variant = resolve_variant(name, experiment.all_variants, experiment.table)
        except UserError as error:
            if name in experiment.variants:
                prompts[name] = error
            continue
        prompts[name] = variant.prompt(experiment.table.rows[0], clone.image(0).seed)
    return prompts


def generate(experiment: ExperimentLike = None, **values: Any) -> GeneratedClone:
    """Generate the missing images of the experiment's clone; with `generation.seeds`, of each of its clones.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `generation={"guidance_scale": 4}`; merged into `experiment`.

    Raises:
        UserError: what is wrong with the experiment, the storage or the cluster.
    """
    experiment = load_experiment(experiment, **values)
    return _generate(experiment, _clones_of(experiment))


def _generate(experiment: Experiment, clones: "list[Clone]") -> GeneratedClone:
    from raysd.generation.generate import generate_clones
    from raysd.storage.attempts import Attempt

    check_prompts(experiment, [clones[0].spec])
    experiment.root.check_writable()
    check_generation(experiment, clones)
    with ExitStack() as running:
        for clone in clones:
            if not clone.is_complete():
                running.enter_context(Attempt(experiment.root, f"clone {clone.spec.fingerprint}"))
        summaries = generate_clones(clones, experiment.generation)
    first, *others = (GeneratedClone(clone, summary) for clone, summary in zip(clones, summaries, strict=True))
    return replace(first, others=tuple(others))


def grow(
    experiment: ExperimentLike = None, *, to: int, classes: list[str] | None = None, **values: Any
) -> GeneratedClone:
    """Generate images until each of the given classes (by key), or each of all, has `to` images.

    The target is the final number of images, so the same call again generates nothing, and a call after a kill
    generates the rest. Classes that have more, and classes that are not named, keep what they have.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        to: images per class in the end.
        classes: keys of the class table; all when None.
        values: other keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: no positive number, or a class that the table does not have.
    """
    if not 1 <= to <= MOST_IMAGES:
        remedy = f"give the images that each class is to have in all, at least 1, at most {MOST_IMAGES:,}"
        raise UserError("to", to, remedy)
    from raysd.clone.clone import check_size

    experiment = load_experiment(experiment, **values)
    growing, labels = _growing(experiment, classes)
    clones = [clone.with_counts(there.grown(to, labels)) for clone, there in growing]
    for clone in clones:
        check_size(clone)
    return _generate(experiment, clones)


def growth_target(experiment: Experiment, more: int, classes: list[str] | None = None) -> int:
    """Return the `to` with which `grow` adds `more` images to each of the given classes (by key), or to each of all,
    counted from the images that exist now.

    Raises:
        UserError: no positive number, a class that the table does not have, or classes of several sizes.
    """
    if more < 1:
        raise UserError("images", more, "ask for at least one image more")
    growing, labels = _growing(experiment, classes)
    counts = [count for _, there in growing for count in there.array[labels].tolist()]
    fewest, most = min(counts), max(counts)
    if fewest != most:
        raise UserError(
            "images",
            more,
            (
                f"the classes have from {fewest:,} to {most:,} images; give what each is to have in all, as --to "
                f"{most + more}"
            ),
        )
    return fewest + more


def _growing(experiment: Experiment, classes: list[str] | None) -> "tuple[list[tuple[Clone, ImageCounts]], list[int]]":
    """Return each planned clone with the number of images that each class has now (or the planned number if there are
    none), and the labels of the classes that grow."""
    from raysd.clone.plan import ImageCounts
    from raysd.clone.record import with_earlier

    keys = experiment.table.keys
    if unknown := [key for key in classes or [] if key not in keys]:
        raise UserError("classes", unknown[0], f"is no key of the class table; use one of {', '.join(keys[:5])}, ...")
    growing = []
    for clone in _clones_of(experiment):
        complete = with_earlier(clone.with_counts(ImageCounts(len(keys), 0))).counts
        growing.append((clone, complete if complete.total else clone.counts))
    return growing, [keys.index(key) for key in classes or keys]


def verify(experiment: ExperimentLike = None, repair: bool = False, **values: Any) -> VerifiedClone:
    """Read, hash, decode and compare every image with the plan.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        repair: remove broken shards, and generate them again.
        values: keys of the experiment file, merged into `experiment`.
    """
    experiment = load_experiment(experiment, **values)
    first, *others = (_verify(experiment, clone, repair) for clone in _clones_of(experiment))
    return replace(first, others=tuple(others))


def _verify(experiment: Experiment, clone: "Clone", repair: bool) -> VerifiedClone:
    from raysd.clone.record import with_earlier
    from raysd.clone.verify import mend_shards, verify_clone
    from raysd.generation.generate import generate_clones

    clone = with_earlier(clone)  # a shard that is made anew must not lose what a larger run put there
    problems = verify_clone(clone)
    for number, problem in problems.items():
        say(f"shard {number}: {problem}")
    if problems and repair:
        check_generation(experiment, [clone])
        clone = mend_shards(clone, list(problems))
        summary = generate_clones([clone], experiment.generation)[0]
        say(f"clone {summary.fingerprint}: {summary.num_generated:,} images generated again")
        problems = verify_clone(clone)
    return VerifiedClone(clone, problems)


def score(experiment: ExperimentLike = None, **values: Any) -> ScoredClone:
    """Measure the quality of each image of the clone.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        values: keys of the experiment file, as `scoring={"against": ["fashion_mnist"]}`; merged into `experiment`.

    Raises:
        UserError: the clone is not complete, or what is wrong with `scoring`.
        Failure: no clone could be scored.
    """
    from raysd.cluster.preflight import check_cluster
    from raysd.data.real_datasets import check_real_dataset
    from raysd.resolve import score_images

    experiment = load_experiment(experiment, **values)
    for number, name in enumerate(experiment.scoring.against):
        check_real_dataset(f"scoring.against.{number}", name)
    experiment.root.check_writable()
    check_cluster(experiment.root, experiment.cluster)
    against = tuple(experiment.scoring.against)
    scored, failed = list[ScoredClone](), list[str]()
    for clone in _clones_of(experiment):
        try:
            scored.append(ScoredClone(clone, score_images(experiment, clone), against))
        except Failure as error:
            failed.append(f"clone {clone.spec.fingerprint}: {error}")
    if not scored:
        raise Failure(failed[0])
    return replace(scored[0], others=tuple(scored[1:]), failed=tuple(failed))


def export(
    experiment: ExperimentLike = None,
    form: str = "imagefolder",
    out: str = "export",
    flagged: bool = False,
    **values: Any,
) -> ExportedClone:
    """Write the clone as ImageFolder or WebDataset.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        form: `imagefolder` or `webdataset`.
        out: a folder; for `webdataset` also a URI.
        flagged: also write images with a flag.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: the clone is not complete, there are several, or the folder cannot be written.
    """
    from raysd.clone.export import Form, export_clone

    forms: dict[str, Form] = {"imagefolder": "imagefolder", "webdataset": "webdataset"}
    if form not in forms:
        raise UserError("format", form, f"use {' or '.join(forms)}")
    clone, *others = _clones_of(load_experiment(experiment, **values))
    if others:
        seeds = [each.spec.seed for each in (clone, *others)]
        remedy = f"an export holds one clone; name it, as generation.seeds=[{seeds[0]}]"
        raise UserError("generation.seeds", seeds, remedy)
    return ExportedClone(clone, out, export_clone(clone, forms[form], out, flagged))
