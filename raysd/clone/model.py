"""Which diffusion model: a name in the settings, a folder on disk, a digest of its weights."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from raysd.errors import UserError
from raysd.storage.fingerprint import folder_digest

EMBEDDED = Path(__file__).parent.parent / "assets" / "tiny_sd"
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


@dataclass(frozen=True)
class Model:
    """A text-to-image model on this machine."""

    name: str
    revision: str | None
    folder: Path
    digest: str
    """16 hex digits over weights, configs and tokenizer files."""

    @property
    def is_embedded(self) -> bool:
        """True for the model that ships with raysd."""
        return self.name == "embedded"


@cache
def find_model(name: str, revision: str | None = None) -> Model:
    """Resolve a model to a local folder once; a hub id is fetched (safetensors only) or taken from the hub's cache.

    Raises:
        UserError: not a folder in diffusers format, and not to be had from the hub.
    """
    if name == "embedded":
        folder = EMBEDDED
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError("generation.model", name, "no such folder; use embedded, a folder in diffusers format, or a hub id like owner/name")
    else:
        folder = _fetch(name, revision)
    if not (folder / "model_index.json").is_file():
        raise UserError("generation.model", name, "no model_index.json in it; use a folder in diffusers format")
    if not list(folder.rglob("*.safetensors")):
        raise UserError("generation.model", name, "has no safetensors weights; convert it with save_pretrained(safe_serialization=True)")
    return Model(name, revision, folder, folder_digest(folder, FILES))


def _fetch(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client raises many kinds, none of which a user can act on by type
        reason = type(error).__name__
        raise UserError("generation.model", name, f"cannot be had from the hub ({reason}); check id, revision and network, or give a local folder") from None
