"""Models of the Hugging Face hub: its cache on this machine, the size of a download, and the download."""

from pathlib import Path

from raysd.errors import UserError

FILES = ("*.safetensors", "*.json", "*.txt", "*.model")

HUB_SECONDS = 10.0  # to wait for the hub's answer


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form `owner/name` and is no folder here."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1 and not Path(name).is_dir()


def cached_model(name: str, revision: str | None) -> Path | None:
    """Return the folder of a hub model in this machine's cache, or None; does not use the network."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES), local_files_only=True))
    except Exception:  # the hub's client raises many kinds; all mean that it is not there
        return None


def hub_bytes(name: str, revision: str | None) -> int | None:
    """Return the bytes that `fetch_model` would download; None when the hub does not say."""
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=HUB_SECONDS).siblings or []
    except Exception:  # as above
        return None
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in FILES))


def fetch_model(field: str, name: str, revision: str | None) -> Path:
    """Return the folder of a hub model in this machine's cache; downloads only the files that are missing.

    `DiffusionPipeline.download` would fetch one variant of the weights and not all. But it asks the hub each time, also
    when all files are here; it fetches Python files of a repository; it needs diffusers, whose import takes seconds,
    and a `model_index.json`, which classifiers and image-text models do not have. And a checkpoint's digest is over the
    files that `FILES` names: with fewer of them, the fingerprints of clones would change.

    Raises:
        UserError: for the setting `field`, when the download fails.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub's client raises many kinds, none of which a user can act on by type
        reason = type(error).__name__
        raise UserError(
            field,
            name,
            f"cannot be fetched from the hub ({reason}); check id, revision and network, or give a local folder",
        ) from None
