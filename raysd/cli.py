"""The `raysd` command. Each command takes an experiment's YAML file and `key=value` overrides."""

import codecs
import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from raysd import __version__, terminal
from raysd.command_help import PlainGroup
from raysd.errors import UserError

if TYPE_CHECKING:
    from raysd.config import CommandLine, Experiment

PARTLY_FAILED = 3
"""Exit code of a command whose answer lacks a part."""
app = typer.Typer(cls=PlainGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
F = TypeVar("F", bound=Callable[..., Any])


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG.yaml|KEY=VALUE",
        help="an experiment file, and overrides of single values",
        autocompletion=terminal.complete_word,
    ),
]


def _command(name: str | None = None, has_json: bool = False) -> Callable[[F], F]:
    """Register a command of the command line, with the options that all of them have."""

    def register(function: F) -> F:
        app.command(name)(terminal.with_options(function, has_json))
        return function

    return register


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"raysd {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version, and end")
    ] = False,
) -> None:
    pass


_root.__doc__ = __doc__


def _run(name: str, words: list[str] | None, **options: Any) -> Any:
    """Run a command, print its answer, and return it."""
    return _call(name, _read_words(words), **options)


def _run_recorded(name: str, words: list[str] | None) -> None:
    """Run a command whose result rows name the command line that made them, and print its answer."""
    line = _read_words(words)
    _call(name, line, command=line.command(name))


def _call(name: str, line: "CommandLine", *arguments: Any, **options: Any) -> Any:
    """Call a command's function with the experiment of a command line."""
    from raysd import commands  # not before it is needed, so that the help is quick

    return _show(name, getattr(commands, name)(_load(line), *arguments, **options), line)


def _show(name: str, answer: Any, line: "CommandLine") -> Any:
    """Print the answer of a command, as text or as JSON, and return it.

    Raises:
        typer.Exit: a part of the answer failed and is missing; the exit code is 3.
    """
    from raysd.commands import documents, show

    if terminal.current.out is None:
        getattr(show, f"show_{name}")(answer, line)
    else:
        terminal.current.write(documents.document_of(name, answer))
    if show.show_missing(answer):
        raise typer.Exit(PARTLY_FAILED)
    return answer


def _load(line: "CommandLine", *changes: str) -> "Experiment":
    from raysd.config import load_experiment

    return load_experiment(line.path, [*line.overrides, *changes])


def _read_words(words: list[str] | None) -> "CommandLine":
    """Tell the experiment file from the overrides."""
    from raysd.config import CommandLine

    paths = [word for word in words or [] if _is_path(word)]
    if len(paths) > 1:
        raise UserError("configuration", paths[1], "give one experiment file; overrides are written key=value")
    return CommandLine(paths[0] if paths else None, tuple(word for word in words or [] if word not in paths))


def _is_path(word: str) -> bool:
    """Return whether a word is an experiment file and no override; its folders may have `=` in their names."""
    return "=" not in word or "/" in word.partition("=")[0] or os.path.isfile(word)


@_command()
def init(
    classes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[CLASS]...", help="names of classes; or a built-in table, or a file with a table"),
    ] = None,
    out: Annotated[str | None, typer.Option(help="the file to write; experiment.yaml when left out")] = None,
    shipped: Annotated[str | None, typer.Option("--from", help="an experiment that ships with raysd")] = None,
    listed: Annotated[bool, typer.Option("--list", help="list the experiments that ship with raysd")] = False,
    real: Annotated[str | None, typer.Option(help="a folder of real images, with one folder per class")] = None,
) -> None:
    """Write a commented experiment file: for your classes, or one that ships with raysd."""
    from raysd.commands import show, start

    if listed:
        show.show_shipped(start.shipped_experiments())
    else:
        show.show_init(start.init(classes, out, shipped, real))


@_command(has_json=True)
def plan(words: Words = None) -> None:
    """Show what would be generated: classes, prompts, counts, shards, size, cost."""
    _run("plan", words)


@_command(has_json=True)
def doctor(words: Words = None) -> None:
    """Check the cluster, or this machine, before a job: room, storage, software, model, memory, disk."""
    if _run("doctor", words):
        raise typer.Exit(1)


@_command()
def benchmark(
    words: Words = None,
    search: Annotated[
        bool, typer.Option("--search", help="double the batch size as long as that is faster, and name the best")
    ] = False,
) -> None:
    """Measure how fast the devices generate with this experiment's generator, so that plan can name hours."""
    rates = _run("benchmark", words, search=search)
    if search:
        print(f"set           generation.batch_size={rates[0]['batch_size']}, for a new clone: it shapes the images")


@_command(has_json=True)
def caption(words: Words = None) -> None:
    """Have a language model write captions of each class, for prompts."""
    _run("caption", words)


@_command()
def generate(words: Words = None) -> None:
    """Generate the clone, or the part that is still missing."""
    _run("generate", words)


@_command()
def grow(
    words: Words = None,
    to: Annotated[
        int | None, typer.Option(help="images that each class has in the end; the same command again adds none")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(help="how many more images for each class; only at a terminal, jobs take --to"),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            help='keys of the classes, with commas, in quotes where they hold one: a,"b, c"; all when left out'
        ),
    ] = "",
) -> None:
    """Generate more images for a clone, for all classes or for some."""
    keys = [key for key in next(csv.reader([classes], skipinitialspace=True), []) if key.strip()] or None
    if classes and keys is None:
        raise UserError("classes", classes, "names no class; give keys with commas, or leave it out for all")
    line = _read_words(words)
    if to is None or images is not None:
        to = _growth_target(_load(line), to, images, keys, terminal.current.is_by_hand)
        again = line.command("grow", "--to", str(to), *(["--classes", classes] if keys else []))
        print(f"the same, safe to run again: {again}")
    _call("grow", line, to=to, classes=keys)


def _growth_target(
    experiment: "Experiment", to: int | None, images: int | None, keys: list[str] | None, is_by_hand: bool
) -> int:
    """Return the value of `--to` that adds so many images to each class.

    Raises:
        UserError: not exactly one option is given, or it is `--images` in a job, where a retry would add them again.
    """
    from raysd.commands import growth_target

    if images is None or to is not None:
        remedy = "say what each class has in the end, as --to 300, or at a terminal how many more, as --images 100"
        raise UserError("to", to, remedy)
    if not is_by_hand:
        remedy = "would be added again by a job that is retried; say what each class has in the end, as --to 300"
        raise UserError("images", images, remedy)
    return growth_target(experiment, images, keys)


@_command(has_json=True)
def verify(
    words: Words = None, repair: Annotated[bool, typer.Option(help="generate broken shards again")] = False
) -> None:
    """Check every image of the clone: counts, hashes, decoding, schema, labels, prompts."""
    if not _run("verify", words, repair=repair).is_whole:
        raise typer.Exit(1)


@_command()
def score(words: Words = None) -> None:
    """Score the clone's images: do they fit their class, are they near-duplicates?"""
    _run("score", words)


@_command()
def export(
    words: Words = None,
    form: Annotated[str, typer.Option("--format", help="imagefolder or webdataset")] = "imagefolder",
    out: Annotated[str, typer.Option(help="a folder; for webdataset also s3://, gs:// or abfss://")] = "export",
    flagged: Annotated[bool, typer.Option(help="also images with a flag")] = False,
) -> None:
    """Write the clone as ImageFolder or WebDataset."""
    _run("export", words, form=form, out=out, flagged=flagged)


@_command()
def push(
    words: Words = None,
    to: Annotated[str, typer.Option(help="the repository, as owner/name")] = "",
    what: Annotated[str, typer.Option(help="clone or classifier")] = "clone",
    seed: Annotated[int | None, typer.Option(help="which one, where the experiment has several seeds")] = None,
    private: Annotated[bool, typer.Option("--private", help="make a new repository private")] = False,
    revision: Annotated[str | None, typer.Option(help="a branch of the repository")] = None,
    license: Annotated[str | None, typer.Option(help="as cc-by-4.0; else what the generator's card states")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be sent, and send nothing")] = False,
) -> None:
    """Share the clone or a classifier on the Hugging Face hub, with a card; HF_TOKEN or a login says who you are."""
    options = {"to": to, "what": what, "seed": seed, "private": private, "revision": revision}
    _run("push", words, **options, license=license, dry_run=dry_run)


@_command()
def train(words: Words = None) -> None:
    """Train classifiers on the clone."""
    _run("train", words)


@_command(has_json=True)
def evaluate(words: Words = None) -> None:
    """Measure the classifiers on real images."""
    _run_recorded("evaluate", words)


@_command(has_json=True)
def compare(
    words: Words = None,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="KEY=VALUE", help="what is different in the other setting; may be given several times"
        ),
    ] = None,
) -> None:
    """Compare the classifiers of two settings, image by image."""
    line = _read_words(words)
    theirs = _load(line, *(other or []))
    if not other:
        raise UserError("with", "", "say what is different, as --with generation.guidance_scale=7.5")
    command = line.command("compare", *(word for change in other for word in ("--with", change)))
    _call("compare", line, theirs, command=command)


@_command()
def analyze(words: Words = None) -> None:
    """Measure the classifiers' features, and compare the clone with real images."""
    _run_recorded("analyze", words)


app.command("analyse", hidden=True)(analyze)


@_command(has_json=True)
def adapt(words: Words = None) -> None:
    """Generate a clone in rounds: a classifier of the images so far says what comes next."""
    _run_recorded("adapt", words)


@_command(has_json=True)
def sweep(words: Words = None) -> None:
    """Find the guidance scale, prompts and further settings that transfer best, and report."""
    _run_recorded("sweep", words)


@_command()
def report(words: Words = None) -> None:
    """Write the report of the newest sweep again, or of all results where there is no sweep."""
    _run("report", words)


@_command("list", has_json=True)
def list_storage(words: Words = None) -> None:
    """List what a storage holds: clones, classifiers and results. Takes an experiment, or the storage itself."""
    line = _read_words(words)
    if line.path is not None and not line.path.endswith((".yaml", ".yml")):
        line = replace(line, path=None, overrides=(*line.overrides, f"storage={line.path}"))
    _call("list_storage", line)


@_command("demo", has_json=True)
def run_demo(words: Words = None) -> None:
    """Run the whole path with the embedded model and real images, in minutes."""
    from raysd.commands import demo

    _show("demo", demo(words), _read_words(words))


@_command()
def schema() -> None:
    """Print the JSON schema of an experiment file."""
    from raysd.config import experiment_schema

    print(json.dumps(experiment_schema(), indent=2, sort_keys=True))


@app.command("explain")
def explain_setting(
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="a setting or section, as generation.guidance_scale", show_default=False),
    ] = "",
) -> None:
    """Explain a setting: what it means, its type, default, range and unit."""
    from raysd.explain.text import explain

    print(explain(key))


def main(is_job: bool = False) -> None:
    """Run the command line; bad input prints one line and exits with code 2, an answer that lacks a part with 3,
    and one where all failed with 1.

    Args:
        is_job: whether the command may be retried without a user, even if it was started at a terminal.
    """
    from raysd.progress import log, shown_lines, take_any_text
    from raysd.storage import home

    _use_utf8()
    take_any_text()
    is_by_hand = not is_job and sys.stdin is not None and sys.stdin.isatty()
    with terminal.opened(is_by_hand, sys.argv[1:]) as session, shown_lines():
        if home.NOTICE is not None:
            log.warning("%s", home.NOTICE)
        sys.exit(terminal.run(app, session))


def _use_utf8() -> None:
    """Start anew in Python's UTF-8 mode where file names are ASCII, as a locale of C and an old setting may have it."""
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.environ.pop("PYTHONIOENCODING", None)
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})


def run_job(name: str) -> None:
    """Run a command as a script of `ray job submit`, with the words that the script was given."""
    sys.argv.insert(1, name)
    main(is_job=True)


if __name__ == "__main__":
    main()
