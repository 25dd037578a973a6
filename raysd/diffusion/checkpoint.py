"""Diffusion checkpoints: a name in the settings, a folder on disk, a digest of the weights."""

import json
import math
import platform
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from raysd.errors import UserError
from raysd.storage.fingerprint import file_digest, folder_digest
from raysd.storage.hub import FILES, fetch_model, is_hub_id

ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED = ASSETS / "tiny_sd"
SHIPPED = {"embedded": EMBEDDED, "dummy": ASSETS / "dummy"}
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Model:
    """A text-to-image model on this machine."""

    field: ClassVar = "generation.model"
    noun: ClassVar = "model"

    name: str
    revision: str | None
    folder: Path
    digest: str
    """16 hex digits over weights, configs and tokenizer files."""
    commit: str | None = None
    """Commit of a hub model's revision at the time when it was resolved."""

    @property
    def is_embedded(self) -> bool:
        """Whether this is the model that ships with raysd."""
        return self.name == "embedded"

    @property
    def is_dummy(self) -> bool:
        """Whether this is the stand-in that needs no weights; see `raysd.generation.dummy`."""
        return self.name == "dummy"

    def find_here(self, field: str = "generation.model") -> Path:
        """Return the model's folder on this node, which may differ from the node that resolved the model.

        Raises:
            UserError: this node does not see the folder.
        """
        if self.name in SHIPPED:
            return SHIPPED[self.name]
        if self.folder.is_dir():
            return self.folder
        if self.commit is None:
            raise UserError(field, str(self.folder), "is not on this node; put it where all nodes see it")
        return fetch_model(field, self.name, self.commit)


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


@cache
def find_model(name: str, revision: str | None = None) -> Model:
    """Resolve a model to a local folder once; a hub id is fetched (safetensors only) or taken from the hub's cache.

    Raises:
        UserError: not a folder in diffusers format, and not found on the hub.
    """
    commit = None
    if name in SHIPPED:
        folder = SHIPPED[name]
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
    elif not is_hub_id(name):
        raise UserError(
            "generation.model",
            name,
            "no such folder; use embedded, a folder in diffusers format, or a hub id like owner/name",
        )
    else:
        folder = fetch_model("generation.model", name, revision)
        commit = folder.name  # the hub's cache keeps each commit in a folder of its name
    if not (folder / "model_index.json").is_file():
        raise UserError("generation.model", name, "no model_index.json in it; use a folder in diffusers format")
    if name != "dummy" and not list(folder.rglob("*.safetensors")):
        raise UserError(
            "generation.model",
            name,
            "has no safetensors weights; convert it with save_pretrained(safe_serialization=True)",
        )
    check_tokenizers("generation.model", name, folder)
    return Model(name, revision, folder, folder_digest(folder, FILES), commit)


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
            field, name, "its tokenizer needs the package sentencepiece; pip install sentencepiece"
        ) from None


@cache
def find_lora(path: str, scale: float) -> Lora:
    """Return the LoRA weights of a safetensors file, or of a folder that holds one.

    Raises:
        UserError: no such file, several in a folder, or the package peft is missing.
    """
    place = Path(path).expanduser().resolve()
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        raise UserError("generation.lora.path", path, f"{len(files)} safetensors files there; name one")
    if not has_peft():
        raise UserError("generation.lora.path", path, "needs the package peft; pip install peft")
    return Lora(files[0], scale, file_digest(files[0]))


def weight_bytes(folder: Path, dtype: str) -> int:
    """Return the bytes that a pipeline's weights take once loaded as `dtype` (float32, float16, bfloat16).

    Only the headers of the files are read.
    """
    total = 0
    for component in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = list(component.glob("*.safetensors"))
        plain = [file for file in files if "." not in file.stem]  # without variants, as model.fp16.safetensors
        total += sum(_loaded_bytes(file, DTYPE_BYTES[dtype]) for file in plain or files)
    return total


def _loaded_bytes(file: Path, float_bytes: int) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    ends = ((tensor, tensor["data_offsets"][1] - tensor["data_offsets"][0]) for tensor in tensors)
    return sum(math.prod(tensor["shape"]) * float_bytes if "F" in tensor["dtype"] else size for tensor, size in ends)
