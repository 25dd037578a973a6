"""The verbs that make a clone and look after it."""

from typing import TYPE_CHECKING

from raysd.commands.checks import check_generation, check_prompts, findings
from raysd.config import Experiment
from raysd.errors import UserError
from raysd.progress import say

if TYPE_CHECKING:
    from raysd.clone.clone import Clone
    from raysd.clone.plan import ImageCounts

NUM_EXAMPLES = 3


def plan(experiment: Experiment) -> None:
    """Say what `generate` would generate: classes, prompts, counts, shards, size on disk and cost. Generates nothing.

    Raises:
        UserError: what is wrong with the experiment.
    """
    from raysd.clone.scan import missing_shards
    from raysd.commands.cost import cost_lines
    from raysd.generation.cost import num_bytes
    from raysd.prompts.resolve import resolve_variant
    from raysd.resolve import clone_of

    clone = clone_of(experiment)
    spec = clone.spec
    missing = missing_shards(clone)
    say(f"classes       {len(experiment.table)}: {_shortened(experiment.table.names)}")
    say(f"model         {spec.model.name}, weights {spec.model.digest}, {spec.dtype}")
    say(
        f"sampler       {spec.scheduler or 'the checkpoint’s own'}, {spec.num_inference_steps} steps, "
        f"guidance scale {spec.guidance_scale:g}"
    )
    say(f"variant       {spec.variant_name}")
    for position in range(min(NUM_EXAMPLES, len(spec.table))):
        say(f"  prompt      {clone.image(position).prompt}")
    for name in experiment.all_variants:
        try:
            variant = resolve_variant(name, experiment.all_variants, experiment.table)
        except UserError as error:
            if name in experiment.variants:
                say(f"  broken      {name}: {error}")
            continue
        say(f"  also        {name}: {variant.prompt(experiment.table.rows[0], clone.image(0).seed)}")
    for finding in findings(experiment, spec):
        say(f"lint          {finding}")
    fewest, most = int(clone.counts.array.min()), int(clone.counts.array.max())
    per_class = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    stored = "" if spec.stored_size == spec.image_size else f", stored at {spec.stored_size} px"
    say(f"images      {len(clone):,}: {per_class} per class, {spec.image_size} px{stored}, {spec.codec}, {spec.color}")
    say(f"shards        {clone.num_shards:,} of {clone.images_per_shard:,}; {len(missing):,} to be generated")
    say(f"size on disk  about {num_bytes(clone) / 1e6:,.1f} MB")
    for line in cost_lines(experiment, clone):
        say(f"cost          {line}")
    say(f"clone         {clone.folder.uri}")


def generate(experiment: Experiment) -> str:
    """Generate what is missing of the experiment's clone; returns its fingerprint."""
    from raysd.generation.generate import generate_clones
    from raysd.resolve import clone_of

    clone = clone_of(experiment)
    check_prompts(experiment, [clone.spec])
    experiment.root.check_writable()
    check_generation(experiment, clone)
    summary = generate_clones([clone], experiment.generation)[0]
    say(
        f"clone {summary.fingerprint}: {summary.num_images:,} images, {summary.num_generated:,} generated "
        f"now, {summary.num_flagged:,} flagged"
    )
    for key, count in summary.short_classes.items():
        say(
            f"class {key} is short of {count:,} images: they were still black or flagged after "
            f"{clone.spec.max_redraws} redraws"
        )
    say(f"it lies in {summary.folder.uri}")
    say(f'open it with datasets.load_dataset("parquet", data_files="{summary.folder.uri}/data/*.parquet")')
    say("next: raysd train, with the same configuration")
    return summary.fingerprint


def grow(experiment: Experiment, *, to: int, classes: list[str] | None = None) -> str:
    """Generate what is missing until each of the given classes (by key), or each of all, has `to` images; returns
    the clone's fingerprint.

    The target is what the classes have in the end, so the same call again generates nothing, and a call after a kill
    what is still missing. Classes that have more, and classes that are not named, keep what they have.

    Args:
        experiment: validated settings.
        to: images per class in the end.
        classes: keys of the class table; all when None.

    Raises:
        UserError: no positive number, or a class that the table does not have.
    """
    from raysd.generation.generate import generate_clones

    if to < 1:
        raise UserError("to", to, "give the images that each class is to have in all, at least 1")
    clone, there, labels = _growing(experiment, classes)
    keys, counts = experiment.table.keys, there.grown(to, labels)
    check_prompts(experiment, [clone.spec])
    experiment.root.check_writable()
    grown = clone.with_counts(counts)
    check_generation(experiment, grown)
    summary = generate_clones([grown], experiment.generation)[0]
    say(f"clone {summary.fingerprint}: {summary.num_images:,} images, {summary.num_generated:,} generated now")
    say(f"it lies in {summary.folder.uri}")
    if counts.own:
        own = ", ".join(f"{keys[label]}: {count}" for label, count in counts.own)
        say(
            f"next: train on it with generation.images_per_class={counts.default} and generation.class_counts={{{own}}}"
        )
    else:
        say(f"next: train on it with generation.images_per_class={counts.default}")
    return summary.fingerprint


def growth_target(experiment: Experiment, more: int, classes: list[str] | None = None) -> int:
    """What `grow` has to be given as `to` for `more` images of each of the given classes (by key), or of each of
    all, counted from what is there now.

    Raises:
        UserError: no positive number, a class that the table does not have, or classes of several sizes.
    """
    if more < 1:
        raise UserError("images", more, "ask for at least one image more")
    _, there, labels = _growing(experiment, classes)
    fewest, most = int(there.array[labels].min()), int(there.array[labels].max())
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


def _growing(experiment: Experiment, classes: list[str] | None) -> "tuple[Clone, ImageCounts, list[int]]":
    """A clone as it is planned, the images of each class that it has, or else begins with, and the labels of the
    classes that are to grow."""
    from raysd.clone.plan import ImageCounts
    from raysd.clone.record import with_earlier
    from raysd.resolve import clone_of

    keys = experiment.table.keys
    if unknown := [key for key in classes or [] if key not in keys]:
        raise UserError("classes", unknown[0], f"is no key of the class table; use one of {', '.join(keys[:5])}, ...")
    clone = clone_of(experiment)
    complete = with_earlier(clone.with_counts(ImageCounts(len(keys), 0))).counts
    return clone, complete if complete.total else clone.counts, [keys.index(key) for key in classes or keys]


def verify(experiment: Experiment, repair: bool = False) -> dict[int, str]:
    """Read, hash, decode and compare every image with the plan; returns the problem of each broken shard that is left.

    Args:
        experiment: validated settings.
        repair: take out what is broken, and generate it again.
    """
    from raysd.clone.record import with_earlier
    from raysd.clone.verify import mend_shards, verify_clone
    from raysd.generation.generate import generate_clones
    from raysd.resolve import clone_of

    clone = with_earlier(clone_of(experiment))  # a shard that is made anew must not lose what a larger run put there
    problems = verify_clone(clone)
    for number, problem in problems.items():
        say(f"shard {number}: {problem}")
    if problems and repair:
        check_generation(experiment, clone)
        clone = mend_shards(clone, list(problems))
        summary = generate_clones([clone], experiment.generation)[0]
        say(f"clone {summary.fingerprint}: {summary.num_generated:,} images generated again")
        problems = verify_clone(clone)
    whole = f"all {len(clone):,} planned images are as they should be, or listed as dropped"
    say(
        f"clone {clone.folder.uri}: "
        f"{whole if not problems else f'{len(problems)} broken shards; raysd verify --repair generates them again'}"
    )
    return problems


def score(experiment: Experiment) -> str:
    """Measure the quality of each image of the clone; returns the place of the score table.

    Raises:
        UserError: the clone is not complete, or what is wrong with `scoring`.
    """
    from raysd.cluster.preflight import check_cluster
    from raysd.curation.scoring import DUPLICATE
    from raysd.data.real_datasets import check_real_dataset
    from raysd.resolve import clone_of, score_images

    for number, name in enumerate(experiment.scoring.against):
        check_real_dataset(f"scoring.against.{number}", name)
    experiment.root.check_writable()
    check_cluster(experiment.root, experiment.cluster)
    clone = clone_of(experiment)
    summary = score_images(experiment, clone)
    say(f"clone {clone.spec.fingerprint}: {summary.num_images:,} images have scores, {summary.num_scored:,} scored now")
    if summary.agreement is not None:
        worst = ", ".join(f"{key} {share:.0f} %" for key, share in summary.worst_classes.items())
        say(f"the class that fits best is the image's own for {summary.agreement:.1f} %; lowest: {worst}")
    say(f"near-duplicates of an earlier image of the class (correlation over {DUPLICATE}): {summary.num_duplicates:,}")
    if experiment.scoring.against:
        say(f"near-duplicates of a test image (correlation over {DUPLICATE}): {summary.num_test_matches:,}")
    say(f"the table lies in {summary.folder.uri}")
    say(f"next: raysd train with training.filters, as training.filters.max_duplicate={DUPLICATE}")
    return summary.folder.uri


def export(experiment: Experiment, form: str, out: str, flagged: bool = False) -> int:
    """Write the clone as ImageFolder or WebDataset into `out`; returns the number of images."""
    from raysd.clone.export import Form, export_clone
    from raysd.resolve import clone_of

    forms: dict[str, Form] = {"imagefolder": "imagefolder", "webdataset": "webdataset"}
    if form not in forms:
        raise UserError("format", form, f"use {' or '.join(forms)}")
    clone = clone_of(experiment)
    count = export_clone(clone, forms[form], out, flagged)
    say(f"{count:,} images in {out}")
    return count


def _shortened(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
