"""The command that shares a clone or a classifier on the Hugging Face hub."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from raysd.config import Experiment, ExperimentLike, load_experiment
from raysd.errors import UserError
from raysd.progress import say

if TYPE_CHECKING:
    from raysd.clone.clone import Clone
    from raysd.sharing.repository import Contents
    from raysd.storage.location import Location

T = TypeVar("T")
WHAT = ("clone", "classifier")


@dataclass(frozen=True)
class PushedRepository:
    """What was pushed, or with `dry_run` what would be."""

    repository: str
    files: dict[str, int]
    """Bytes of each file, by its path."""
    card: str
    """The content of `README.md`."""
    notes: tuple[str, ...]
    """What whoever pushes should know, a line each."""
    url: str | None = None
    """Of the repository; None after a dry run."""
    num_sent: int = 0
    """Files that were sent; the others were there."""
    num_bytes_sent: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def push(
    experiment: ExperimentLike = None,
    *,
    to: str,
    what: str = "clone",
    seed: int | None = None,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    license: str | None = None,
    dry_run: bool = False,
    **values: Any,
) -> PushedRepository:
    """Make a repository of the Hugging Face hub hold the experiment's clone or a classifier.

    Args:
        experiment: an experiment, the path of its file, or a mapping; the defaults when None.
        to: the repository's id, `owner/name`; it is made when it is missing.
        what: `clone` or `classifier`.
        seed: of the classifier, where the experiment has several; of the clone likewise.
        private: whether a new repository is private.
        token: of the hub; when None, that of the login, or `HF_TOKEN`.
        revision: a branch; the main one when None.
        license: as `cc-by-4.0`; when None, what the generator's card states.
        dry_run: say what would be sent, and send nothing.
        values: keys of the experiment file, merged into `experiment`.

    Raises:
        UserError: what is to be pushed is missing, its license is not known, or the hub refuses.
    """
    if what not in WHAT:
        raise UserError("what", what, f"use {' or '.join(WHAT)}")
    experiment = load_experiment(experiment, **values)
    options: dict[str, Any] = {
        "private": private,
        "token": token,
        "revision": revision,
        "license": license,
        "dry_run": dry_run,
    }
    if what == "clone":
        return push_clone(_chosen_clone(experiment, seed), to, **options)
    return push_classifier(experiment.root, _chosen_classifier(experiment, seed), to, **options)


def _chosen_clone(experiment: Experiment, seed: int | None) -> "Clone":
    from raysd.resolve import clones_of

    clones = clones_of(experiment)
    return _chosen({clone.spec.seed: clone for clone in clones}, seed, "generation.seeds")


def _chosen_classifier(experiment: Experiment, seed: int | None) -> str:
    from raysd.commands.checks import checked_runs

    return _chosen({own: run.fingerprint(own) for own, run in checked_runs(experiment)}, seed, "training.seeds")


def _chosen(found: dict[int, T], seed: int | None, field: str) -> T:
    if seed is None and len(found) == 1:
        return next(iter(found.values()))
    if seed not in found:
        seeds = ", ".join(map(str, found))
        raise UserError("seed", seed, f"a repository holds one; choose it with --seed, of {field}: {seeds}")
    return found[seed]


def push_clone(clone: "Clone", repository: str, license: str | None = None, **options: Any) -> PushedRepository:
    """Push a clone; the options are those of `push`."""
    from raysd.sharing.clone_contents import clone_contents
    from raysd.sharing.upload import Target, check_target

    check_target(Target(repository))
    return _push(clone_contents(clone, license), repository, **options)


def push_classifier(
    root: "Location", classifier: str, repository: str, license: str | None = None, **options: Any
) -> PushedRepository:
    """Push a classifier, by its fingerprint; the options are those of `push`."""
    from raysd.sharing.classifier_contents import classifier_contents
    from raysd.sharing.upload import Target, check_target

    check_target(Target(repository))
    return _push(classifier_contents(root, classifier, license), repository, **options)


def _push(
    contents: "Contents", repository: str, *, private: bool, token: str | None, revision: str | None, dry_run: bool
) -> PushedRepository:
    from raysd.sharing.upload import Target, push

    contents = contents.named(repository)
    files = {file.path: file.size for file in contents.all_files}
    if dry_run:
        return PushedRepository(repository, files, contents.card, contents.notes)
    for note in contents.notes:
        say(note)
    sent = push(contents, Target(repository, private, revision, token))
    return PushedRepository(repository, files, contents.card, contents.notes, sent.url, sent.num_sent, sent.num_bytes)
