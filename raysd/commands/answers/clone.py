"""The results of the commands that make a clone: its location, its contents, and what was done."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from raysd.errors import UserError
from raysd.storage.address import AZURE, azure_place

if TYPE_CHECKING:
    import datasets
    import pandas as pd

    from raysd.clone.clone import Clone
    from raysd.commands.share import PushedRepository
    from raysd.curation.scoring import ScoreSummary
    from raysd.generation.generate import CloneSummary
    from raysd.prompts.lint import Finding
    from raysd.storage.location import Location


@dataclass(frozen=True, repr=False)
class CloneHandle:
    """A clone in its folder."""

    clone: "Clone"
    others: "tuple[Self, ...]" = field(default=(), kw_only=True)
    """With several clone seeds (`generation.seeds`), the same of each further clone."""

    @property
    def clones(self) -> "tuple[Self, ...]":
        """This clone and those of the further clone seeds."""
        return (self, *self.others)

    @property
    def path(self) -> str:
        """The folder: a path, or a URI in an object store."""
        return self.clone.folder.uri

    @property
    def fingerprint(self) -> str:
        """Hash of everything that shapes the images; the folder's name."""
        return self.clone.spec.fingerprint

    @property
    def num_images(self) -> int:
        """Images of the clone as it is planned, less those that were dropped."""
        return len(self.clone) - sum(self.clone.read_record().short_classes.values())

    def load(self, **options: Any) -> "datasets.Dataset":
        """Open the clone as a Hugging Face data set, with all images that its folder holds.

        Args:
            options: for `datasets.load_dataset`, as `cache_dir` or `streaming`.

        Raises:
            UserError: nothing was generated yet.
        """
        import datasets

        from raysd.clone.shard import DATA

        folder = self.clone.folder.child(DATA)
        if not folder.list_files(".parquet"):
            raise UserError("clone", self.path, "holds no images yet; generate it with the same experiment first")
        place = _fsspec_place(folder)
        return datasets.load_dataset("parquet", split="train", **{**place, **options})

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        revision: str | None = None,
        license: str | None = None,
        dry_run: bool = False,
    ) -> "PushedRepository":
        """Make a data set repository of the hub hold this clone; the arguments and errors are those of `raysd.push`."""
        from raysd.commands.share import push_clone

        options = {"private": private, "token": token, "revision": revision, "dry_run": dry_run}
        return push_clone(self.clone, repo_id, license, **options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(path={self.path!r}, num_images={self.num_images})"


def _fsspec_place(folder: "Location") -> dict[str, Any]:
    """Return the files of a folder in the form that `datasets.load_dataset` accepts. The URI's own options, such as an
    endpoint, get their fsspec names; credentials come from the environment."""
    if folder.is_local:
        return {"data_files": f"{folder.path}/*.parquet"}
    parts = urlsplit(folder.uri)
    if parts.scheme in AZURE:
        files = f"abfss://{folder.path}/*.parquet"
        return {"data_files": files, "storage_options": {"account_name": azure_place(parts).account, "anon": False}}
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    place: dict[str, Any] = {"data_files": f"{parts.scheme}://{folder.path}/*.parquet"}
    client = {"region_name": options["region"]} if "region" in options else {}
    if endpoint := options.get("endpoint_override"):
        client["endpoint_url"] = endpoint if "://" in endpoint else f"{options.get('scheme', 'https')}://{endpoint}"
    return {**place, "storage_options": {"client_kwargs": client}} if client else place


@dataclass(frozen=True, repr=False)
class ClonePlan(CloneHandle):
    """A clone before it is generated."""

    prompts: tuple[str, ...]
    """Of the first classes."""
    variants: "dict[str, str | UserError]"
    """The first class's prompt in every variant that fits the class table; the error of your own that does not."""
    findings: "tuple[Finding, ...]"
    """What is suspect about the prompts and the steps."""
    num_missing_shards: int
    """To be generated."""
    num_bytes: float
    """On disk: an estimate."""
    cost: tuple[str, ...]
    """A line for each device whose speed is known; with several clone seeds, for all clones."""
    confirmation: tuple[str, ...] = ()
    """What a sweep with `sweep.confirm` generates beside its search, and a line for each device as in `cost`."""
    rounds: tuple[str, ...] = ()
    """What `raysd adapt` generates and trains where the experiment has a section `adaptive`, and a line for each device
    as in `cost`."""

    @property
    def num_images(self) -> int:
        """Images as planned."""
        return len(self.clone)

    @property
    def num_shards(self) -> int:
        """Files of the whole clone."""
        return self.clone.num_shards


@dataclass(frozen=True, repr=False)
class GeneratedClone(CloneHandle):
    """A clone with all its images."""

    summary: "CloneSummary"

    @property
    def num_images(self) -> int:
        """Images of the clone."""
        return self.summary.num_images

    @property
    def num_generated(self) -> int:
        """Images generated by this call; 0 when the clone existed."""
        return self.summary.num_generated

    @property
    def num_flagged(self) -> int:
        """Images with a flag, as `black`."""
        return self.summary.num_flagged

    @property
    def short_classes(self) -> dict[str, int]:
        """How many images each short class lacks, by key."""
        return self.summary.short_classes


@dataclass(frozen=True, repr=False)
class VerifiedClone(CloneHandle):
    """A clone whose images were compared with the plan."""

    problems: dict[int, str]
    """Of each broken shard that is left, by number."""

    @property
    def is_whole(self) -> bool:
        """Whether all images are as they should be, those of further clone seeds too."""
        return not any(clone.problems for clone in self.clones)


@dataclass(frozen=True, repr=False)
class ScoredClone(CloneHandle):
    """A clone with a table of scores."""

    summary: "ScoreSummary"
    against: tuple[str, ...]
    """Names of the test sets that it was compared with."""
    failed: tuple[str, ...] = ()
    """A line for each clone seed whose clone could not be scored."""

    @property
    def table(self) -> str:
        """The folder of the score table."""
        return self.summary.folder.uri

    def scores(self) -> "pd.DataFrame":
        """Read the scores: a row for each image, with its label and its index."""
        import pyarrow as pa

        from raysd.storage.tables import read_table

        folder = self.summary.folder
        names = [name for name in folder.list_files(".parquet") if name.startswith("scores-")]
        return pa.concat_tables([read_table(folder, name) for name in names]).to_pandas()


@dataclass(frozen=True, repr=False)
class ExportedClone(CloneHandle):
    """A clone that was written in another form."""

    out: str
    """Where it was written."""
    num_exported: int
    """Images there."""
