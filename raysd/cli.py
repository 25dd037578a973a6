"""The `raysd` command. Each verb takes an experiment's YAML file and `key=value` overrides."""

import json
import shlex
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from raysd.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[CONFIG.yaml] [KEY=VALUE]...", help="an experiment file, and overrides of single values"),
]


def _run(verb: str, words: list[str] | None, action: Callable[[Any, str], object]) -> None:
    from raysd.config import load_experiment, repeat_command

    path, overrides = _split(words)
    action(load_experiment(path, overrides), repeat_command(verb, path, overrides))


def _split(words: list[str] | None) -> tuple[str | None, list[str]]:
    """The experiment file, if one is given, and the overrides."""
    paths = [word for word in words or [] if "=" not in word]
    if len(paths) > 1:
        raise UserError("configuration", paths[1], "give one experiment file; overrides are written key=value")
    return paths[0] if paths else None, [word for word in words or [] if "=" in word]


@app.command()
def plan(words: Words = None) -> None:
    """Show what would be generated: classes, prompts, counts, shards, size, cost."""
    from raysd import commands

    _run("plan", words, lambda experiment, _: commands.plan(experiment))


@app.command()
def doctor(words: Words = None) -> None:
    """Check the cluster, or this machine, before a job: room, storage, software, model, memory, disk."""
    from raysd import commands

    failures: list[UserError] = []
    _run("doctor", words, lambda experiment, _: failures.extend(commands.doctor(experiment)))
    if failures:
        raise typer.Exit(1)


@app.command()
def benchmark(words: Words = None) -> None:
    """Measure how fast the devices generate with this experiment's generator; plan then knows."""
    from raysd import commands

    _run("benchmark", words, lambda experiment, _: commands.benchmark(experiment))


@app.command()
def generate(words: Words = None) -> None:
    """Generate the clone, or what is missing of it."""
    from raysd import commands

    _run("generate", words, lambda experiment, _: commands.generate(experiment))


@app.command()
def grow(
    context: typer.Context,
    words: Words = None,
    to: Annotated[
        int | None, typer.Option(help="images that each class has in the end; the same command again adds none")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(help="images more for each class than there are now; for people at a terminal, jobs take --to"),
    ] = None,
    classes: Annotated[str, typer.Option(help="keys of the classes, with commas; all when left out")] = "",
) -> None:
    """Generate more images for a clone, for all classes or for some."""
    from raysd import commands
    from raysd.progress import say

    keys = [key.strip() for key in classes.split(",") if key.strip()] or None

    def run(experiment: Any, command: str) -> None:
        if to is not None and images is None:
            commands.grow(experiment, to=to, classes=keys)
            return
        if images is None or to is not None:
            raise UserError(
                "to",
                to,
                "say what each class has in the end, as --to 300, or at a terminal how many more, as --images 100",
            )
        if not context.obj:
            raise UserError(
                "images",
                images,
                "would be added again by a job that is retried; say what each class has in the end, as --to 300",
            )
        target = commands.growth_target(experiment, images, keys)
        say(f"as often as it is run: {command} --to {target}{f' --classes {shlex.quote(classes)}' if keys else ''}")
        commands.grow(experiment, to=target, classes=keys)

    _run("grow", words, run)


@app.command()
def verify(
    words: Words = None, repair: Annotated[bool, typer.Option(help="generate broken shards again")] = False
) -> None:
    """Check every image of the clone: counts, hashes, decoding, schema, labels, prompts."""
    from raysd import commands

    problems: list[dict[int, str]] = []
    _run("verify", words, lambda experiment, _: problems.append(commands.verify(experiment, repair)))
    if problems[0]:
        raise typer.Exit(1)


@app.command()
def score(words: Words = None) -> None:
    """Score the clone's images: do they fit their class, are they near-duplicates?"""
    from raysd import commands

    _run("score", words, lambda experiment, _: commands.score(experiment))


@app.command()
def export(
    words: Words = None,
    form: Annotated[str, typer.Option("--format", help="imagefolder or webdataset")] = "imagefolder",
    out: Annotated[str, typer.Option(help="a folder; for webdataset also s3:// or gs://")] = "export",
    flagged: Annotated[bool, typer.Option(help="also images with a flag")] = False,
) -> None:
    """Write the clone as ImageFolder or WebDataset."""
    from raysd import commands

    _run("export", words, lambda experiment, _: commands.export(experiment, form, out, flagged))


@app.command()
def train(words: Words = None) -> None:
    """Train classifiers on the clone."""
    from raysd import commands

    _run("train", words, lambda experiment, _: commands.train(experiment))


@app.command()
def evaluate(words: Words = None) -> None:
    """Measure the classifiers on real images."""
    from raysd import commands

    _run("evaluate", words, commands.evaluate)


@app.command()
def compare(
    words: Words = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="KEY=VALUE", help="what is different in the other setting; may stand several times"
        ),
    ] = None,
) -> None:
    """Compare the classifiers of two settings, image by image."""
    from raysd import commands
    from raysd.config import load_experiment

    changes = other or []

    def run(experiment: Any, command: str) -> None:
        if not changes:
            raise UserError("with", "", "say what is different, as --with generation.guidance_scale=7.5")
        path, overrides = _split(words)
        theirs = load_experiment(path, [*overrides, *changes])
        commands.compare(experiment, theirs, " ".join([command, *(f"--with {change}" for change in changes)]))

    _run("compare", words, run)


@app.command()
def analyze(words: Words = None) -> None:
    """Look at the classifiers' features, and at the clone against real images."""
    from raysd import commands

    _run("analyze", words, commands.analyze)


app.command("analyse", hidden=True)(analyze)


@app.command()
def sweep(words: Words = None) -> None:
    """Find the guidance scale, prompts and further settings that transfer best, and report."""
    from raysd import commands

    _run("sweep", words, commands.sweep)


@app.command()
def report(words: Words = None) -> None:
    """Write the report of the newest sweep again, or of all results where there is no sweep."""
    from raysd import commands

    _run("report", words, lambda experiment, _: commands.report(experiment))


@app.command()
def demo(words: Words = None) -> None:
    """All of it, on an embedded model and real images, in minutes."""
    from raysd import commands

    commands.demo(words)


@app.command()
def schema() -> None:
    """Print the JSON schema of an experiment file."""
    from raysd.config import experiment_schema

    print(json.dumps(experiment_schema(), indent=2, sort_keys=True))


def main(is_job: bool = False) -> None:
    """Entry point: bad input gives one line and exit code 2.

    Args:
        is_job: the command may be run again by itself, even if it was started at a terminal.
    """
    is_by_hand = not is_job and sys.stdin is not None and sys.stdin.isatty()
    try:
        app(standalone_mode=True, obj=is_by_hand)
    except UserError as error:
        print(f"error: {getattr(error, 'cause', None) or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
