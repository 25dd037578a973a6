"""The verbs as Python functions; the command line and the job scripts call these.

Each checks its input before Ray starts, and ends by saying what was made, where it lies, and what to run next.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from raysd.config import Experiment, load_experiment, repeat_command
from raysd.errors import UserError
from raysd.progress import say
from raysd.storage.results import Row

if TYPE_CHECKING:
    from raysd.clone.spec import CloneSpec
    from raysd.prompts.lint import Finding
    from raysd.training.train import TrainingRun

DEMO = Path(__file__).parent / "assets" / "demo.yaml"
NUM_EXAMPLES = 3
LOG_WIDTH = 160  # characters, where the output is no terminal


def plan(experiment: Experiment) -> None:
    """Say what `generate` would draw: classes, prompts, counts, shards, size on disk and cost. Draws nothing.

    Raises:
        UserError: what is wrong with the experiment.
    """
    from raysd.clone.cost import estimate_cost
    from raysd.clone.generate import plan_clone
    from raysd.clone.scan import missing_shards
    from raysd.clone.spec import resolve_clone_spec
    from raysd.prompts.settings import resolve_variant

    spec = resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)
    job = plan_clone(experiment.root, spec, experiment.generation)
    cost, missing = estimate_cost(job.plan), missing_shards(job)
    say(f"classes       {len(experiment.table)}: {_shortened(experiment.table.names)}")
    say(f"model         {spec.model.name}, weights {spec.model.digest}, {spec.dtype}")
    say(f"sampler       {spec.scheduler or 'the checkpoint’s own'}, {spec.num_inference_steps} steps, guidance scale {spec.guidance_scale:g}")
    say(f"variant       {spec.variant_name}")
    for position in range(min(NUM_EXAMPLES, len(spec.table))):
        say(f"  prompt      {job.plan.image(position).prompt}")
    for name in experiment.all_variants:
        try:
            variant = resolve_variant(name, experiment.all_variants, experiment.table)
        except UserError as error:
            if name in experiment.variants:
                say(f"  broken      {name}: {error}")
            continue
        say(f"  also        {name}: {variant.prompt(experiment.table.rows[0], job.plan.image(0).seed)}")
    for finding in _findings(experiment, spec):
        say(f"lint          {finding}")
    fewest, most = int(job.plan.counts.array.min()), int(job.plan.counts.array.max())
    per_class = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    stored = "" if spec.stored_size == spec.image_size else f", stored at {spec.stored_size} px"
    say(f"pictures      {len(job.plan):,}: {per_class} per class, {spec.image_size} px{stored}, {spec.codec}, {spec.color}")
    say(f"shards        {job.plan.num_shards:,} of {job.plan.images_per_shard:,}; {len(missing):,} to be drawn")
    say(f"size on disk  about {cost.num_bytes / 1e6:,.1f} MB")
    say(f"cost          about {cost.device_seconds / 3600:,.2f} {cost.device} hours for the whole clone (an estimate)")
    say(f"clone         {job.folder.uri}")


def generate(experiment: Experiment) -> str:
    """Draw what is missing of the experiment's clone; returns its fingerprint."""
    from raysd.clone.generate import generate_clones, plan_clone
    from raysd.clone.spec import resolve_clone_spec

    spec = resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)
    _check_prompts(experiment, [spec])
    experiment.root.check_writable()
    summary = generate_clones([plan_clone(experiment.root, spec, experiment.generation)], experiment.generation)[0]
    say(f"clone {summary.fingerprint}: {summary.num_images:,} pictures, {summary.num_drawn:,} drawn now, {summary.num_flagged:,} flagged")
    for key, count in summary.short_classes.items():
        say(f"class {key} is short of {count:,} pictures: they were still black or flagged after {spec.max_redraws} redraws")
    say(f"it lies in {summary.folder.uri}")
    say(f'open it with datasets.load_dataset("parquet", data_files="{summary.folder.uri}/data/*.parquet")')
    say("next: raysd train, with the same configuration")
    return summary.fingerprint


def grow(experiment: Experiment, images: int, classes: list[str] | None = None) -> str:
    """Draw `images` more pictures of the given classes (by key), or of all; returns the clone's fingerprint.

    Raises:
        UserError: no positive number, or a class that the table does not have.
    """
    from raysd.clone.generate import generate_clones, plan_clone
    from raysd.clone.plan import Plan
    from raysd.clone.scan import CloneJob
    from raysd.clone.spec import resolve_clone_spec

    keys = experiment.table.keys
    if images < 1:
        raise UserError("images", images, "ask for at least one picture more")
    if unknown := [key for key in classes or [] if key not in keys]:
        raise UserError("classes", unknown[0], f"is no key of the class table; use one of {', '.join(keys[:5])}, ...")
    spec = resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants)
    _check_prompts(experiment, [spec])
    experiment.root.check_writable()
    job = plan_clone(experiment.root, spec, experiment.generation)
    record = job.read_record()
    there = job.earlier_counts(record)[0] if record.get("complete") else job.plan.counts
    counts = there.grown(images, [keys.index(key) for key in classes or keys])
    grown = CloneJob(Plan(job.plan.spec, counts, job.plan.images_per_shard), job.folder)
    summary = generate_clones([grown], experiment.generation)[0]
    say(f"clone {summary.fingerprint}: {summary.num_images:,} pictures, {summary.num_drawn:,} drawn now")
    say(f"it lies in {summary.folder.uri}")
    if counts.own:
        own = ", ".join(f"{keys[label]}: {count}" for label, count in counts.own)
        say(f"next: train on it with generation.images_per_class={counts.default} and generation.class_counts={{{own}}}")
    else:
        say(f"next: train on it with generation.images_per_class={counts.default}")
    return summary.fingerprint


def verify(experiment: Experiment, repair: bool = False) -> dict[int, str]:
    """Read, hash, decode and compare every picture with the plan; returns the problem of each broken shard that is left.

    Args:
        experiment: validated settings.
        repair: delete broken shards and draw them again.
    """
    from raysd.clone.generate import plan_clone
    from raysd.clone.spec import resolve_clone_spec
    from raysd.clone.verify import delete_shards, verify_clone

    job = plan_clone(experiment.root, resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants), experiment.generation)
    problems = verify_clone(job)
    for number, problem in problems.items():
        say(f"shard {number}: {problem}")
    if problems and repair:
        delete_shards(job, list(problems))
        generate(experiment)
        problems = verify_clone(job)
    whole = f"all {len(job.plan):,} planned pictures are as they should be, or listed as dropped"
    say(f"clone {job.folder.uri}: {whole if not problems else f'{len(problems)} broken shards; raysd verify --repair draws them again'}")
    return problems


def score(experiment: Experiment) -> str:
    """Measure the quality of each picture of the clone; returns the place of the score table.

    Raises:
        UserError: the clone is not complete, or what is wrong with `scoring`.
    """
    from raysd.clone.generate import plan_clone
    from raysd.clone.scoring import DUPLICATE
    from raysd.clone.spec import resolve_clone_spec
    from raysd.sweep.sweep import score_pictures
    from raysd.training.real_sets import check_real_set

    for number, name in enumerate(experiment.scoring.against):
        check_real_set(f"scoring.against.{number}", name)
    experiment.root.check_writable()
    job = plan_clone(experiment.root, resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants), experiment.generation)
    summary = score_pictures(experiment, job)
    say(f"clone {job.plan.spec.fingerprint}: {summary.num_images:,} pictures have scores, {summary.num_scored:,} scored now")
    if summary.agreement is not None:
        worst = ", ".join(f"{key} {share:.0f} %" for key, share in summary.worst_classes.items())
        say(f"the class that fits best is the picture's own for {summary.agreement:.1f} %; lowest: {worst}")
    say(f"near-duplicates of an earlier picture of the class (correlation over {DUPLICATE}): {summary.num_duplicates:,}")
    if experiment.scoring.against:
        say(f"near-duplicates of a test picture (correlation over {DUPLICATE}): {summary.num_test_matches:,}")
    say(f"the table lies in {summary.folder.uri}")
    say(f"next: raysd train with training.filters, as training.filters.max_duplicate={DUPLICATE}")
    return summary.folder.uri


def export(experiment: Experiment, form: str, out: str, flagged: bool = False) -> int:
    """Write the clone as ImageFolder or WebDataset into `out`; returns the number of pictures."""
    from raysd.clone.export import Form, export_clone
    from raysd.clone.generate import plan_clone
    from raysd.clone.spec import resolve_clone_spec

    forms: dict[str, Form] = {"imagefolder": "imagefolder", "webdataset": "webdataset"}
    if form not in forms:
        raise UserError("format", form, f"use {' or '.join(forms)}")
    job = plan_clone(experiment.root, resolve_clone_spec(experiment.generation, experiment.table, experiment.all_variants), experiment.generation)
    count = export_clone(job, forms[form], out, flagged)
    say(f"{count:,} pictures in {out}")
    return count


def train(experiment: Experiment) -> list[str]:
    """Train a classifier per seed on the experiment's clone, or on `training.real`; returns their fingerprints."""
    from raysd.training.train import train_classifiers

    run = _training_run(experiment)
    fingerprints = train_classifiers(run)
    for seed in experiment.training.seeds:
        say(f"classifier of seed {seed}: {run.folder(seed).uri}")
    say("next: raysd evaluate, with the same configuration")
    return fingerprints


def evaluate(experiment: Experiment, command: str = "") -> list[Row]:
    """Measure the experiment's classifiers; returns the result rows."""
    from raysd.evaluation.evaluate import Evaluation
    from raysd.training.classifier import load_record

    settings = experiment.evaluation
    if settings.test_set is None and not settings.transfer_sets and settings.validation_set is None:
        raise UserError("evaluation.test_set", None, "nothing to measure on; name a test set or transfer sets")
    run = _training_run(experiment)
    for seed in experiment.training.seeds:
        if load_record(run.folder(seed)) is None:
            raise UserError("training.seeds", seed, "no classifier of this seed yet; run raysd train with the same configuration first")
    evaluation = Evaluation(experiment.root, settings, experiment.table, command)
    rows = [row for seed in experiment.training.seeds for row in evaluation.measure(run.fingerprint(seed))]
    for row in rows:
        shots = f", {row['shots']} shots" if row["shots"] else ""
        say(f"seed {row['seed']}  {row['role']:<10} {row['dataset']}{shots}: top-1 {row['value']:.2f} % ({row['low']:.2f} to {row['high']:.2f})")
    say(f"rows lie in {experiment.root.child('results', 'accuracy').uri}")
    say("next: raysd sweep, to compare guidance scales and prompts")
    return rows


def sweep(experiment: Experiment, command: str = "") -> Row:
    """Run or continue the sweep, and write its report; returns the sweep's row."""
    from raysd.evaluation.evaluate import Evaluation
    from raysd.sweep.sweep import other_clones, run_sweep, sweep_specs

    _check_training(experiment)
    specs = sweep_specs(experiment)
    _check_prompts(experiment, [*(spec for _, spec in specs), *(job.plan.spec for job in other_clones(experiment, specs))])
    _check_objective(experiment)
    experiment.root.check_writable()
    Evaluation(experiment.root, experiment.evaluation, experiment.table, command)  # all real pictures are there, before anything is drawn
    _check_batch(experiment)
    row = run_sweep(experiment, command)
    report(experiment, row["fingerprint"])
    return row


def report(experiment: Experiment, sweep_fingerprint: str | None = None) -> str:
    """Write the report of a sweep (the newest by default); returns the page's place."""
    from rich.console import Console

    from raysd.report.page import write_report
    from raysd.report.tables import to_rich

    files = write_report(experiment.root, sweep=sweep_fingerprint)
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(to_rich(files.table))
    for line in files.summary:
        say(line)
    say(f"report: {files.html}")
    return files.html


def demo(overrides: list[str] | None = None) -> Row:
    """The whole path on the embedded model and real pictures, on a laptop, in minutes."""
    overrides = overrides or []
    return sweep(load_experiment(DEMO, overrides), repeat_command("demo", None, overrides))


def _findings(experiment: Experiment, spec: "CloneSpec") -> "list[Finding]":
    """What is suspect about a clone's prompts; nothing when lint is off."""
    from raysd.clone.tokens import prompt_tokenizers
    from raysd.prompts.lint import lint_prompts

    if experiment.lint == "off":
        return []
    findings = lint_prompts(spec.variant, spec.table, prompt_tokenizers(spec.model))
    return [finding for finding in findings if finding.kind not in experiment.lint_ignore]


def _check_prompts(experiment: Experiment, specs: "list[CloneSpec]") -> None:
    """Say what is suspect about the prompts of some clones, each variant once with each model.

    Raises:
        UserError: something is, and `lint` is `error`.
    """
    for spec in {(spec.variant_name, spec.model.name): spec for spec in specs}.values():
        for finding in _findings(experiment, spec):
            if experiment.lint == "error":
                raise UserError("generation.variant", spec.variant_name, f"{finding}; or set lint=warn, or lint_ignore=[{finding.kind}]")
            say(f"lint: {spec.variant_name}: {finding}")


def _training_run(experiment: Experiment) -> "TrainingRun":
    from raysd.sources import training_pools, training_run

    _check_training(experiment)
    experiment.root.check_writable()
    return training_run(experiment, training_pools(experiment))


def _check_training(experiment: Experiment) -> None:
    """Backbone, recipe and names of sets, before anything is drawn."""
    from raysd.sources import source_generations
    from raysd.training.classifier import Architecture, check_architecture
    from raysd.training.logs import check_logger
    from raysd.training.real_sets import check_real_set

    training, evaluation = experiment.training, experiment.evaluation
    options, recipe = (training.backbone_options, len(experiment.table), training.image_size, training.stem_stride), training.resolve_recipe()
    check_architecture(Architecture(training.backbone, *options, recipe.projector), recipe.view_sizes(training.image_size))
    check_logger(training.logger)
    named = {
        "training.real": training.real,
        "sweep.real": experiment.sweep.real,
        "evaluation.test_set": evaluation.test_set,
        "evaluation.validation_set": evaluation.validation_set,
    }
    for number, transfer in enumerate(evaluation.transfer_sets):
        named[f"evaluation.transfer_sets.{number}.name"] = transfer.name
    for number, source in enumerate(training.sources):
        named[f"training.sources.{number}.real"] = source.real
    list(source_generations(experiment))
    if training.validate_epochs and evaluation.validation_set is None:
        raise UserError("training.validate_epochs", training.validate_epochs, "there is nothing to measure on; name evaluation.validation_set")
    for field, name in named.items():
        if name is not None:
            check_real_set(field, name)


def _check_batch(experiment: Experiment) -> None:
    from raysd.training.real_sets import real_set
    from raysd.training.train import check_batch

    count = experiment.generation.images_per_class
    shares = [source.share for source in experiment.training.sources if source.share is not None]
    num_images = sys.maxsize if experiment.training.sources else count * len(experiment.table)  # what sources hold is known when they are drawn
    check_batch(num_images, experiment.training, shares)
    if experiment.sweep.real is not None:
        real_set(experiment.sweep.real, "train", experiment.root, count, experiment.table)


def _check_objective(experiment: Experiment) -> None:
    evaluation, objective = experiment.evaluation, experiment.sweep.objective
    there = {"validation": evaluation.validation_set, "test": evaluation.test_set, "transfer": evaluation.transfer_sets}
    if not there[objective]:
        raise UserError("sweep.objective", objective, f"evaluation names no {objective} set; add one or choose another objective")


def _shortened(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
