"""Diffusion checkpoints: a name in the settings, a folder on disk, a digest of the weights."""

import json
import math
import platform
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from raysd.diffusion.pipeline_files import (
    INDEX,
    choose_variant,
    list_files,
    pipeline_digest,
    pipeline_files,
    read_index,
    small_files,
    unweighted,
    weight_files,
)
from raysd.diffusion.single_file import conversion_command
from raysd.errors import UserError
from raysd.storage.address import local_path
from raysd.storage.fingerprint import file_digest, fingerprint, folder_digest
from raysd.storage.hub import FILES, Repository, cached_repository, fetch_files, fetch_model, find_repository, is_hub_id

FIELD = "generation.model"
ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED = ASSETS / "tiny_sd"
SHIPPED = {"embedded": EMBEDDED, "dummy": ASSETS / "dummy"}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
MAY_LACK_WEIGHTS = "safety_checker"  # which a clone may do without


@dataclass(frozen=True)
class Model:
    """A text-to-image model, or an image-text model, on this machine."""

    field: ClassVar = FIELD
    noun: ClassVar = "model"

    name: str
    revision: str | None
    folder: Path
    digest: str
    """16 hex digits over weights, configs and tokenizer files; empty while weights are missing."""
    commit: str | None = None
    """Commit of a hub model's revision at the time when it was resolved."""
    variant: str | None = None
    """Variant of the weights, as `fp16`; None for the plain ones."""
    files: tuple[str, ...] = ()
    """Files of a hub model that the pipeline loads."""
    missing_bytes: int = 0
    """Bytes of the weights that are still to be fetched from the hub."""
    is_pipeline: bool = True
    """Whether it is in diffusers format."""

    @property
    def is_embedded(self) -> bool:
        """Whether this is the model that ships with raysd."""
        return self.name == "embedded"

    @property
    def is_dummy(self) -> bool:
        """Whether this is the stand-in that needs no weights; see `raysd.generation.dummy`."""
        return self.name == "dummy"

    def find_here(self, field: str = FIELD) -> Path:
        """Return the model's folder on this node, which may differ from the node that resolved the model.

        Raises:
            UserError: this node does not see the folder.
        """
        if self.name in SHIPPED:
            return SHIPPED[self.name]
        if self.folder.is_dir() and self.is_whole_in(self.folder):
            return self.folder
        if self.commit is None:
            raise UserError(field, str(self.folder), "is not on this node; put it where all nodes see it")
        if not self.is_pipeline:
            return fetch_model(field, self.name, self.commit)
        return find_on_hub(self.name, self.commit).fetch(self.variant)

    def is_whole_in(self, folder: Path) -> bool:
        """Return whether a folder has all files of a hub model."""
        return all((folder / name).is_file() for name in self.files)

    def find_configs_here(self) -> Path:
        """Return a folder with the model's configs and tokenizers on this node; fetches no weights.

        Raises:
            UserError: this node does not see the folder.
        """
        return self.folder if self.folder.is_dir() else self.find_here()


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline whose configs and tokenizers are here; of its weights the names are known."""

    name: str
    folder: Path
    repository: Repository | None = None
    """On the hub."""

    @property
    def names(self) -> list[str]:
        """All files of the folder, or of the repository."""
        return list_files(self.folder) if self.repository is None else list(self.repository.sizes)

    def variant(self, dtype: str) -> str | None:
        """Return the variant of the weights to load: on the hub rather the one of `dtype`, which is half as large, in a
        folder rather the plain weights."""
        return choose_variant(read_index(self.folder), self.names, None if self.repository is None else dtype)

    def files(self, variant: str | None) -> list[str]:
        """Return the files that the pipeline loads.

        Raises:
            UserError: a model without safetensors weights.
        """
        index = read_index(self.folder)
        lacking = [component for component in unweighted(index, self.names, variant) if component != MAY_LACK_WEIGHTS]
        if lacking or not weight_files(index, self.names, variant):
            what = f", or not all, of {', '.join(lacking)}" if lacking else ""
            remedy = f"has no safetensors weights{what}; convert it with save_pretrained(safe_serialization=True)"
            raise UserError(FIELD, self.name, remedy)
        return pipeline_files(index, self.names, variant)

    def missing_bytes(self, variant: str | None) -> int:
        """Return the bytes that `fetch` would fetch."""
        repository = self.repository
        return 0 if repository is None else repository.num_bytes(repository.missing(self.files(variant)))

    def fetch(self, variant: str | None) -> Path:
        """Return the folder once the weights are there."""
        return self.folder if self.repository is None else fetch_files(FIELD, self.repository, self.files(variant))


def find_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Resolve a model's name to its configs and tokenizers; of a hub id, only these are fetched.

    Raises:
        UserError: not a folder in diffusers format, and not found on the hub.
    """
    place = local_path(FIELD, name, "a model")
    if name in SHIPPED:
        checkpoint = Checkpoint(name, SHIPPED[name])
    elif place.is_dir():
        checkpoint = Checkpoint(name, place.resolve())
    elif place.suffix == ".safetensors" and place.is_file():
        raise UserError(FIELD, name, f"is a single file; convert it to a folder: {conversion_command(place)}")
    elif place.is_file():
        remedy = "is a single file in a form that is not read; use a folder in diffusers format, or a hub id"
        raise UserError(FIELD, name, remedy)
    elif not is_hub_id(name):
        remedy = "no such folder; use embedded, a folder in diffusers format, or a hub id like owner/name"
        raise UserError(FIELD, name, remedy)
    else:
        checkpoint = find_on_hub(name, revision)
    if not (checkpoint.folder / INDEX).is_file():
        if any(checkpoint.folder.glob("*lora*.safetensors")):
            raise UserError(FIELD, name, "holds LoRA weights; name them in generation.lora, beside a whole model")
        raise _no_index(name)
    try:
        read_index(checkpoint.folder)
    except ValueError:
        raise UserError(FIELD, name, f"its {INDEX} cannot be read; copy or download it again") from None
    check_tokenizers(FIELD, name, checkpoint.folder)
    return checkpoint


@cache
def find_on_hub(name: str, revision: str | None) -> Checkpoint:
    """Resolve a hub id to its configs and tokenizers once, so that all that a process does is done with one commit.

    Raises:
        UserError: not found on the hub, or not in diffusers format.
    """
    repository = find_repository(FIELD, name, revision)
    if INDEX not in repository.sizes:
        raise _no_index(name)
    folder = fetch_files(FIELD, repository, [INDEX])
    fetch_files(FIELD, repository, small_files(read_index(folder), repository.sizes))
    return Checkpoint(name, folder, repository)


def _no_index(name: str) -> UserError:
    return UserError(FIELD, name, f"no {INDEX} in it; use a folder in diffusers format")


@cache
def find_model(name: str, revision: str | None = None, dtype: str = "float32") -> Model:
    """Resolve a model to a local folder once; a hub id is fetched or taken from the hub's cache.

    Args:
        name: `embedded`, `dummy`, a folder in diffusers format or a hub id.
        revision: branch, tag or commit of a hub id.
        dtype: the precision to load: of a hub id, the weights are fetched in this one if it has them.

    Raises:
        UserError: not a folder in diffusers format, not found on the hub, or no safetensors weights.
    """
    checkpoint = find_checkpoint(name, revision)
    if name in SHIPPED:
        return Model(name, revision, checkpoint.folder, folder_digest(checkpoint.folder, FILES))
    variant = checkpoint.variant(dtype)
    files = tuple(checkpoint.files(variant))
    folder = checkpoint.fetch(variant)
    try:
        digest = pipeline_digest(folder, variant)
    except (ValueError, KeyError) as error:
        raise UserError(FIELD, name, f"cannot be read ({error}); repair or fetch it again") from None
    if checkpoint.repository is None:
        return Model(name, revision, folder, digest, None, variant)
    return Model(name, revision, folder, digest, checkpoint.repository.commit, variant, files)


def plan_model(name: str, revision: str | None = None, dtype: str = "float32") -> Model:
    """Return a model as `find_model` does, without a digest if its weights are not here; fetches none.

    Raises:
        UserError: as `find_model`.
    """
    checkpoint = find_checkpoint(name, revision)
    variant = checkpoint.variant(dtype)
    missing = 0 if name in SHIPPED else checkpoint.missing_bytes(variant)
    if not missing or checkpoint.repository is None:
        return find_model(name, revision, dtype)
    commit, files = checkpoint.repository.commit, tuple(checkpoint.files(variant))
    return Model(name, revision, checkpoint.folder, "", commit, variant, files, missing)


def find_pipeline(model: Model) -> Path | None:
    """Return the folder of a pipeline on this node, with all that it loads; None where it is not whole. Does not use
    the network."""
    if model.name in SHIPPED:
        return SHIPPED[model.name]
    here = None if model.commit is None else cached_repository(model.name, model.commit)
    folders = [model.folder, *([here.folder] if here is not None else [])]
    whole = (folder for folder in folders if folder is not None and (folder / INDEX).is_file())
    return next((folder for folder in whole if model.is_whole_in(folder)), None)


def pipeline_mark(model: Model, thorough: bool) -> str | None:
    """Return a mark that is equal where a pipeline is the same; None where it is missing.

    It is a hash of the weights if `thorough`, else of the names and sizes of the files.
    """
    folder = find_pipeline(model)
    if folder is None:
        return None
    if model.name in SHIPPED:
        return folder_digest(folder, FILES)
    if thorough:
        try:
            return pipeline_digest(folder, model.variant)
        except (ValueError, KeyError):
            return "broken"
    names = pipeline_files(read_index(folder), list_files(folder), model.variant)
    return fingerprint([[name, (folder / name).stat().st_size] for name in names])


@dataclass(frozen=True)
class Lora:
    """LoRA weights in one safetensors file."""

    field: ClassVar = "generation.lora.path"
    noun: ClassVar = "file"

    file: Path
    scale: float
    digest: str

    @property
    def name(self) -> str:
        """The file's path, which is the same on all nodes."""
        return str(self.file)

    def digest_here(self) -> str | None:
        """Return the digest of the file under this path on this node; None where it cannot be read."""
        try:
            return file_digest(self.file)
        except OSError:
            return None

    def find_here(self) -> Path:
        """Return the file on this node, which may differ from the node that resolved it.

        Raises:
            UserError: the file is missing or another one here, or the package peft is missing.
        """
        digest, node = self.digest_here(), platform.node()
        if digest is None:
            raise UserError(
                self.field, self.name, f"is not on {node}; put it where all nodes see it, or at the same path on each"
            )
        if digest != self.digest:
            why = f"is another file on {node} than where the job began"
            raise UserError(self.field, self.name, f"{why}; copy that one there, or put it where all nodes see it")
        if not has_peft():
            raise UserError(
                self.field, self.name, f"needs the package peft, which is absent on {node}; pip install peft there"
            )
        return self.file


def has_peft() -> bool:
    """Return whether this machine can load LoRA weights."""
    return find_spec("peft") is not None


def check_tokenizers(field: str, name: str, folder: Path) -> None:
    """Check that the tokenizers in a model's folder can be read here; transformers would name another package.

    Raises:
        UserError: for the setting `field`, when one is only a SentencePiece model and that package is missing.
    """
    if all((path.parent / "tokenizer.json").is_file() for path in folder.rglob("*.model")):
        return
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        raise UserError(
            field, name, "its tokenizer needs the package sentencepiece; pip install 'raysd[models]'"
        ) from None


@cache
def find_lora(path: str, scale: float) -> Lora:
    """Return the LoRA weights of a safetensors file, or of a folder that holds one.

    Raises:
        UserError: no such file, several in a folder, or the package peft is missing.
    """
    place = local_path("generation.lora.path", path, "a LoRA file").resolve()
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        raise UserError("generation.lora.path", path, f"{len(files)} safetensors files there; name one")
    if not has_peft():
        raise UserError("generation.lora.path", path, "needs the package peft; pip install 'raysd[lora]'")
    return Lora(files[0], scale, file_digest(files[0]))


def weight_bytes(folder: Path, dtype: str, variant: str | None = None) -> int:
    """Return the bytes that a pipeline's weights take once loaded as `dtype` (float32, float16, bfloat16).

    Only the headers of the files are read.
    """
    index, names = read_index(folder), list_files(folder)
    files = weight_files(index, names, variant)
    return sum(_loaded_bytes(folder / name, DTYPE_BYTES[dtype]) for chosen in files.values() for name in chosen)


def _loaded_bytes(file: Path, float_bytes: int) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    ends = ((tensor, tensor["data_offsets"][1] - tensor["data_offsets"][0]) for tensor in tensors)
    return sum(math.prod(tensor["shape"]) * float_bytes if "F" in tensor["dtype"] else size for tensor, size in ends)
