"""What the command line prints of each command's answer, and what to run next."""

import glob
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raysd.commands.held_out import GENERATED, WORTH
from raysd.config import CommandLine
from raysd.errors import UserError
from raysd.formats import byte_size, duration
from raysd.report.text import teacher_words
from raysd.storage.row_types.measured import AnalysisRow, ComparedSide, ComparisonRow, GenerationCost, MeasuredRow
from raysd.storage.row_types.rates import RateRow

if TYPE_CHECKING:
    from raysd.commands.answers.adaptive import AdaptedClone
    from raysd.commands.answers.captions import CaptionTable
    from raysd.commands.answers.classifier import TrainedClassifier
    from raysd.commands.answers.clone import ClonePlan, ExportedClone, GeneratedClone, ScoredClone, VerifiedClone
    from raysd.commands.answers.rows import ResultRows
    from raysd.commands.answers.sweep import SweepAnswer, WrittenReport
    from raysd.commands.listing import StorageListing
    from raysd.commands.share import PushedRepository
    from raysd.commands.start import StartedExperiment
    from raysd.diffusion.checkpoint import Model

NUM_CAPTIONS = 3  # that are shown
LOG_WIDTH = 160  # characters, where the output is no terminal
ROLE_NAMES = {"shift": "test"}
DEFAULT = CommandLine()


def show_shipped(experiments: "Mapping[str, str]") -> None:
    """Print the experiments that ship with raysd."""
    width = max(map(len, experiments))
    for name, what in experiments.items():
        _line(f"{name:<{width}}  {what}")
    _line("next: raysd init --from NAME")


def show_init(started: "StartedExperiment") -> None:
    """Print where the experiment is, and what to run next."""
    classes = "" if started.num_classes is None else f", {started.num_classes:,} classes"
    _line(f"experiment {started.path}{classes}: read it, and change what you like")
    _line(f"next: {CommandLine(started.path).command('plan')}")


def show_plan(plan: "ClonePlan", line: CommandLine = DEFAULT) -> None:
    """Print classes, prompts, counts, shards, size and cost of a clone."""
    clone, spec = plan.clone, plan.clone.spec
    _line(f"classes       {len(spec.table)}: {_shortened(spec.table.names)}")
    _line(f"model         {spec.model.name}, {_weights(spec.model)}, {spec.dtype}")
    _line(
        f"sampler       {spec.scheduler or 'the checkpoint’s own'}, {spec.num_inference_steps} steps, "
        f"guidance scale {spec.guiding.words(spec.guidance_scale)}"
        + ("" if spec.step_cache is None else f", {spec.step_cache}")
        + ("" if spec.latent_guide is None else f", {spec.latent_guide}")
    )
    _line(f"variant       {spec.variant_name}")
    for prompt in plan.prompts:
        _line(f"  prompt      {prompt}")
    for name, example in plan.variants.items():
        _line(f"  {'broken' if isinstance(example, UserError) else 'also  '}      {name}: {example}")
    for finding in plan.findings:
        _line(f"lint          {finding}")
    fewest, most = int(clone.counts.array.min()), int(clone.counts.array.max())
    per_class = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    stored = "" if spec.stored_size == spec.image_size else f", stored at {spec.stored_size} px"
    _line(
        f"images        {plan.num_images:,}: {per_class} per class, {spec.image_size} px{stored}, "
        f"{spec.codec}, {spec.color}"
    )
    if plan.others:
        seeds = ", ".join(str(each.clone.spec.seed) for each in plan.clones)
        _line(f"clone seeds   {seeds}: as many images each; shards, size and cost are those of all")
    num_shards, num_missing = (
        sum(numbers)
        for numbers in zip(*((each.num_shards, each.num_missing_shards) for each in plan.clones), strict=True)
    )
    _line(f"shards        {num_shards:,} of {clone.images_per_shard:,}; {num_missing:,} to be generated")
    _line(f"size on disk  about {byte_size(sum(each.num_bytes for each in plan.clones))}")
    for cost in plan.cost:
        _line(f"cost          {cost}")
    for line_of_sweep in plan.confirmation:
        _line(f"confirm       {line_of_sweep}")
    for line_of_rounds in plan.rounds:
        _line(f"adapt         {line_of_rounds}")
    for each in plan.clones:
        _line(
            f"clone         {each.path if each.clone.spec.is_here else 'its fingerprint is known after the download'}"
        )


def _weights(model: "Model") -> str:
    known = [f"weights {model.digest}"] if model.digest else []
    missing = [f"{byte_size(model.missing_bytes)} to be downloaded"] if model.missing_bytes else []
    return ", ".join([*known, *missing])


def show_caption(table: "CaptionTable", line: CommandLine = DEFAULT) -> None:
    """Print some of the captions, and how to generate with them."""
    from raysd.commands.answers.captions import VARIANT

    captions = table.captions
    each = len(next(iter(captions.values())))
    _line(f"captions      {each:,} for each of {len(captions):,} classes, {table.num_written:,} written now")
    for key, (first, *_) in list(captions.items())[:NUM_CAPTIONS]:
        _line(f"  {key:<11} {first}")
    _line(f"table         {table.path}")
    place = json.dumps(table.path, ensure_ascii=False)
    variant = f'{{templates: ["{{caption}}"], fields: {{caption: {{table: {place}, column: caption}}}}}}'
    _line(f"next: {line.command('plan', f'variants.{VARIANT}={variant}', f'generation.variant={VARIANT}')}")


def show_generate(clone: "GeneratedClone", line: CommandLine = DEFAULT) -> None:
    """Print what was generated, and how to open it."""
    for each in clone.clones:
        _show_generated(each)
    _line(f"next: {line.command('train')}")


def _show_generated(clone: "GeneratedClone") -> None:
    _line(
        f"clone {clone.fingerprint}: {clone.num_images:,} images, {clone.num_generated:,} generated "
        f"now, {clone.num_flagged:,} flagged"
    )
    for key, count in clone.short_classes.items():
        _line(
            f"class {key} is short of {count:,} images: they were still black or flagged after "
            f"{clone.clone.spec.max_redraws} redraws"
        )
    _line(f"stored in {clone.path}")
    files = json.dumps(
        f"{clone.path if '://' in clone.path else glob.escape(clone.path)}/data/*.parquet", ensure_ascii=False
    )
    _line(f'open it with datasets.load_dataset("parquet", data_files={files})')


def show_grow(clone: "GeneratedClone", line: CommandLine = DEFAULT) -> None:
    """Print what was generated, and how to train on it."""
    counts, keys = min((each.clone for each in clone.clones), key=len).counts, clone.clone.spec.table.keys
    for each in clone.clones:
        _line(f"clone {each.fingerprint}: {each.num_images:,} images, {each.num_generated:,} generated now")
        _line(f"stored in {each.path}")
    own = {keys[label]: count for label, count in counts.own}
    changes = [f"generation.images_per_class={counts.default}"]
    changes += [f"generation.class_counts={json.dumps(own, ensure_ascii=False)}"] if own else []
    _line(f"next: {line.command('train', *changes)}")


def show_verify(clone: "VerifiedClone", line: CommandLine = DEFAULT) -> None:
    """Print whether a clone is complete; its broken shards were named when they were found."""
    for each in clone.clones:
        whole = f"all {len(each.clone):,} planned images are as they should be, or listed as dropped"
        broken = f"{len(each.problems)} broken shards; to generate them again: {line.command('verify', '--repair')}"
        _line(f"clone {each.path}: {broken if each.problems else whole}")


def show_score(clone: "ScoredClone", line: CommandLine = DEFAULT) -> None:
    """Print what the scores say, and how to use them."""
    from raysd.curation.scoring import DUPLICATE

    for each in clone.clones:
        _show_scored(each)
    if clone.summary.teacher_agreement is not None:
        taught = line.command("train", "training.recipe_options.soft_weight=0.5")
        _line(f"next: {taught}  # learns from the teachers, too")
    filtered = line.command("train", f"training.filters.max_duplicate={DUPLICATE}")
    _line(f"next: {filtered}  # leaves near-duplicates out")


def _show_scored(clone: "ScoredClone") -> None:
    from raysd.curation.scoring import DUPLICATE

    summary = clone.summary
    _line(f"clone {clone.fingerprint}: {summary.num_images:,} images have scores, {summary.num_scored:,} scored now")
    if summary.agreement is not None:
        worst = ", ".join(f"{key} {share:.0f} %" for key, share in summary.worst_classes.items())
        _line(f"the class that fits best is the image's own for {summary.agreement:.1f} %; lowest: {worst}")
    if summary.teacher_agreement is not None:
        worst = ", ".join(f"{key} {share:.0f} %" for key, share in summary.teacher_worst.items())
        _line(
            f"the teachers' likeliest class is the image's own for {summary.teacher_agreement:.1f} %; lowest: {worst}"
        )
    _line(
        f"near-duplicates of an earlier image of the class (correlation over {DUPLICATE}): {summary.num_duplicates:,}"
    )
    if clone.against:
        _line(f"near-duplicates of a test image (correlation over {DUPLICATE}): {summary.num_test_matches:,}")
    _line(f"the table is {clone.table}")


def show_export(clone: "ExportedClone", line: CommandLine = DEFAULT) -> None:
    """Print how many images were written, and where."""
    _line(f"{clone.num_exported:,} images in {clone.out}")


def show_push(pushed: "PushedRepository", line: CommandLine = DEFAULT) -> None:
    """Print what was pushed; of a dry run the notes, the files and the card."""
    whole = f"{byte_size(pushed.num_bytes)} in {len(pushed.files):,} files"
    if pushed.url is not None:
        _line(f"{pushed.url}: {whole}, {byte_size(pushed.num_bytes_sent)} in {pushed.num_sent:,} files sent now")
        return
    for note in pushed.notes:
        _line(note)
    for path, size in pushed.files.items():
        _line(f"{byte_size(size):>10}  {path}")
    _line(f"{whole}, to {pushed.repository}; nothing was sent. The card, README.md:")
    _line(pushed.card)


def show_benchmark(rates: "ResultRows[RateRow]", line: CommandLine = DEFAULT) -> None:
    """Print how fast the devices generate."""
    for row in rates:
        _line(f"device        {row['device']}")
        _line(
            f"generated     {row['num_images']:,} images of {row['image_size']} px, "
            f"{row['num_inference_steps']} steps at guidance {row['guidance_scale']:g}"
        )
        together = f" each, {row['num_actors']} together" if row["num_actors"] > 1 else ""
        _line(
            f"rate          {row['images_per_second']:.3g} images/s an actor{together}, batches of {row['batch_size']}"
        )
        _line(f"start         {duration(row['start_seconds'])} until an actor generates")
    _line(f"the row is in {rates.path}")
    _line(f"next: {line.command('plan')}  # names hours now")


def show_doctor(failures: Sequence[UserError], line: CommandLine = DEFAULT) -> None:
    """Print the failed checks; passed checks were printed as they were made."""
    for failure in failures:
        _line(f"failed   {failure}")
    _line(f"{len(failures)} failures" if failures else f"all is well; next: {line.command('generate')}")


def show_train(classifiers: "Sequence[TrainedClassifier]", line: CommandLine = DEFAULT) -> None:
    """Print the folders of the classifiers."""
    for classifier in classifiers:
        _line(f"classifier of seed {classifier.seed}: {classifier.path}")
    _line(f"next: {line.command('evaluate')}")


def show_evaluate(results: "ResultRows[MeasuredRow]", line: CommandLine = DEFAULT) -> None:
    """Print each accuracy, and each classifier's mean over the transfer sets."""
    for row in results:
        _line(describe_row(row))
    for classifier in dict.fromkeys(row["classifier"] for row in results):
        rows = [row for row in results if row["classifier"] == classifier and row["role"] == "transfer"]
        _show_means(rows, list(results.skipped))
    _show_worth(results)
    _line(f"the rows are in {results.path}")
    if not results.failed:
        _line(f"next: {line.command('sweep')}  # compares guidance scales and prompts")


def show_compare(results: "ResultRows[ComparisonRow]", line: CommandLine = DEFAULT) -> None:
    """Print the verdict on each set."""
    for row in results:
        gap = f"{row['difference']:+.2f} points ({row['low']:+.2f} to {row['high']:+.2f}), p = {row['p_value']:.2g}"
        _line(f"{_set_name(row)}: top-1 {_top1(row['a'])} against {_top1(row['b'])}, {gap}: {row['verdict']}")
    if results and not results[0]["counts_seeds"]:
        _line(
            "each side has one seed, so what another seed would change is not in the intervals; train with "
            "training.seeds=[0,1,2]"
        )
    if any(row.get("num_clone_seeds") == 1 for row in results):
        _line(
            "for this one clone seed: another seed of the clone could change it; set generation.seeds=[0,1,2], with as "
            "many training.seeds"
        )
    _show_costs(results.rows)
    _show_worth(results)
    _line(f"the rows are in {results.path}")


def _show_worth(results: "ResultRows[Any]") -> None:
    """Say what accuracies on generated images are worth."""
    if any(row["role"] == GENERATED for row in results):
        _line(WORTH)


def _top1(side: ComparedSide) -> str:
    return f"{side['top1']:.2f} %" + (f" ({side['low']:.2f} to {side['high']:.2f})" if "low" in side else "")


def _show_costs(rows: "Sequence[ComparisonRow]") -> None:
    """Print what generating both clones took, and what this cost bought on each set."""
    if not rows or "generation" not in rows[0]["a"]:
        return
    _line(f"generated: {_cost(rows[0]['a']['generation'])}; the other: {_cost(rows[0]['b']['generation'])}")
    for row in rows:
        share, refused = row.get("cost_share"), row.get("refused")
        if share is not None and refused is None:
            _line(f"{_set_name(row)}: {row['verdict']}, at {share:.2f} times the device seconds")
    if refused := rows[0].get("refused"):
        _line(f"no verdict on the cost: {refused}")


def _cost(cost: GenerationCost) -> str:
    images = f"{cost['num_images']:,} images"
    if cost["seconds"] is None or cost["seconds_per_image"] is None:
        return f"{images}, seconds unknown"
    source = "" if cost["source"] == "clone" else ", by a measured rate"
    return (
        f"{images} in {cost['seconds']:,.1f} device seconds, {cost['seconds_per_image']:.3g} each "
        f"({cost['device']}{source})"
    )


def show_analyze(results: "ResultRows[AnalysisRow]", line: CommandLine = DEFAULT) -> None:
    """Print what was measured of the features, and of the clone."""
    for row in results:
        values = ", ".join(
            f"{key.replace('_', ' ')} {value:.4g}" for key, value in row["values"].items() if value is not None
        )
        what = row["trained_on"]["name"] if row["kind"] == "features" else " against ".join(row["datasets"])
        _line(f"{what}, seed {row['seed']}: {values}")
    if all(row["kind"] == "features" for row in results):
        _line("to compare the clone with the real images, name a model in analysis.model")
    _line(f"the rows are in {results.path}")


def show_report(report: "WrittenReport", line: CommandLine = DEFAULT) -> None:
    """Print the main table, the answer in sentences, and the location of the page."""
    from rich.console import Console

    from raysd.report.tables.tables import to_rich

    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(to_rich(report.files.table))
    for sentence in report.summary:
        _line(sentence)
    _line(f"report: {report.path}")


def show_sweep(answer: "SweepAnswer", line: CommandLine = DEFAULT) -> None:
    """Print the report of a sweep, what it cost, and how to use its best setting."""
    show_report(answer.written_report)
    cost, grid = answer.row["cost"], answer.row["cost"]["grid"]
    _line(
        f"cost: {cost['num_images']:,} images and {cost['trainings']} trainings; all settings in full: "
        f"{grid['num_images']:,} and {grid['trainings']}"
    )
    best = CommandLine(answer.best_config)
    _line("the best setting at full size: raise generation.images_per_class in these commands")
    _line(f"next: {' && '.join(best.command(name) for name in ('generate', 'train', 'evaluate'))}")


def show_adapt(answer: "AdaptedClone", line: CommandLine = DEFAULT) -> None:
    """Print what each round had and reached, the accuracies of the last one's classifiers, and how to go on."""
    for row in answer.rounds:
        spent = "" if row["device_seconds"] is None else f", {duration(row['device_seconds'])} of a device"
        _line(
            f"{row['way']}, clone seed {row['clone_seed']}, round {row['number'] + 1}: {row['num_images']:,} images, "
            f"{row['accuracy']:.1f} % on {row['decided_on']}{spent}"
        )
    for (role, name), value in answer.mean_accuracies().items():
        num = len(answer.row["classifiers"])
        _line(f"{ROLE_NAMES.get(role, role):<10} {name}: {value:.2f} %, mean of {num} classifiers")
    if answer.config is None:
        _line(f"the classifiers: {', '.join(classifier.path for classifier in answer.classifiers)}")
        _line(f"next: {line.command('report')}  # what each way reached, side by side")
        return
    _line(f"the images of the first clone seed, for other commands: {answer.config}")
    adapted = CommandLine(answer.config)
    _line(f"next: {adapted.command('train', 'training.backbone=resnet50')}")


def show_list_storage(listing: "StorageListing", line: CommandLine = DEFAULT) -> None:
    """Print a table of the clones, one of the classifiers, and one of the results."""
    for text in listing.lines():
        _line(text)


def show_missing(answer: object) -> bool:
    """Print what an answer lacks because a part of it failed; return whether there is any."""
    failed: Sequence[str] = getattr(answer, "failed", ())
    if not failed:
        return False
    for each in failed:
        _line(f"missing  {each}")
    _line(f"{len(failed)} measurements failed and are missing above; the same command tries them again")
    return True


def describe_row(row: MeasuredRow) -> str:
    """Return an accuracy row as the command prints it."""
    name = row["trained_on"]["name"] if row["trained_on"]["kind"] == "pretrained" else f"seed {row['seed']}"
    start = f"{name}  {ROLE_NAMES.get(row['role'], row['role']):<10} {_set_name(row)}:"
    if row["value"] is None:
        return f"{start} failed: {row['error']}"
    metric = "top-1" if row["metric"] == "top1" else "mean per class"
    text = f"{start} {metric} {row['value']:.2f} % ({row['low']:.2f} to {row['high']:.2f})"
    if row.get("top5") is not None:
        text += f", top-5 {row['top5']:.2f} %"
    if (masked := row.get("masked")) is not None:
        text += f"; over its {masked['num_classes']} classes alone top-1 {masked['value']:.2f} %"
    if row["num_left_out"]:
        text += f"; {row['num_left_out']:,} images of other classes left out"
    return "; ".join([text, *([words] if (words := teacher_words(row["trained_on"])) else [])])


def _set_name(row: MeasuredRow | ComparisonRow) -> str:
    shots = [f"{row['shots']} shots"] if row["shots"] else []
    return ", ".join([row["dataset"], *shots, *([row["probe_label"]] if row["probe_label"] else [])])


show_demo = show_sweep


def _show_means(rows: list[MeasuredRow], skipped: list[str]) -> None:
    from raysd.statistics.means import mean_log_odds, mean_over_sets

    mean = mean_over_sets({**dict.fromkeys(skipped), **{_set_name(row): row["value"] for row in rows}})
    if len(mean.used) < 2 or mean.mean is None:
        return
    good = [row for row in rows if row["value"] is not None]
    odds = mean_log_odds([row["value"] for row in good], [row["num_images"] for row in good])
    missing = f"; not in it: {', '.join(mean.missing)}" if mean.missing else ""
    _line(
        f"seed {good[0]['seed']}  mean over {len(mean.used)} transfer sets: {mean.mean:.2f} %, log-odds "
        f"{odds:.3f}{missing}"
    )


def _shortened(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _line(text: str) -> None:
    print(text, flush=True)
