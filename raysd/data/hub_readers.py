"""Real images that other libraries fetch: data sets of the Hugging Face hub, and the classes of torchvision."""

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from raysd.data.own_name import OnBroken, checked_on_broken
from raysd.data.readers import Columns, Source, checked_labels, encode_png, file_source, image_bytes, missing_column
from raysd.errors import UserError, meant
from raysd.storage.home import can_write

DOWNLOADS = Path("~/.cache/torchvision")
SCHEME = "hf://datasets/"
SAVED_DICT, SAVED = "dataset_dict.json", "state.json"
OPTIONS = ("config", "revision", "image", "label", "train", "test", "on_broken")


class HubSet(BaseModel):
    """A data set that `datasets.load_dataset` opens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """`<owner>/<name>` on the hub, or the absolute path of a folder."""
    config: str | None = None
    revision: str | None = None
    image: str = "image"
    """Name of the column with the images."""
    label: str = "label"
    """Name of the column with the labels."""
    on_broken: OnBroken = "error"
    """What happens to an image that cannot be decoded."""

    @property
    def is_local(self) -> bool:
        """Whether this is a folder; a hub name is never looked for on this machine."""
        return os.path.isabs(self.id)

    @property
    def address(self) -> str:
        """Path or address that `datasets` opens."""
        return self.id if self.is_local else SCHEME + self.id


def parse_hub_name(name: str) -> tuple[HubSet, dict[str, str]]:
    """Return the set that a name of the hub means, and the names of its training and test splits.

    The form is `hf://datasets/<owner>/<name>?config=..&train=..&test=..&image=..&label=..`.

    Raises:
        UserError: the name has another form, or an unknown option.
    """
    parts = urlsplit(name)
    path = name.partition("?")[0].removeprefix(SCHEME).strip("/")
    owner_and_name = path.split("/")
    if (
        not name.startswith(SCHEME)
        or len(owner_and_name) != 2
        or not all(re.fullmatch(r"(?!\.{1,2}$)[\w.-]+", part) for part in owner_and_name)
    ):
        raise UserError(
            "real data set",
            name,
            f"write it as {SCHEME}<owner>/<name>, with ?train=..&test=.. where its splits have other names",
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if wrong := [option for option in options if option not in OPTIONS]:
        raise UserError(
            "real data set", name, f"has no option {wrong[0]}{meant(wrong[0], OPTIONS)}; use {', '.join(OPTIONS)}"
        )
    on_broken = checked_on_broken("real data set", name, options.pop("on_broken", "error"))
    splits = {split: options.pop(split, split).replace(" ", "+") for split in ("train", "test")}
    return HubSet(id=path, on_broken=on_broken, **options), splits


def hub_splits(hub: HubSet) -> list[str]:
    """Return the names of a data set's splits.

    Raises:
        UserError: the data set cannot be opened.
    """
    library = _datasets(hub.id)
    try:
        if _is_saved(hub, SAVED_DICT):
            return [str(split) for split in json.loads(Path(hub.id, SAVED_DICT).read_text(encoding="utf-8"))["splits"]]
        if _is_saved(hub, SAVED):
            return ["train"]
        return list(library.get_dataset_split_names(hub.address, hub.config, revision=hub.revision))
    except Exception as error:  # see hub_source
        raise UserError("real data set", hub.id, f"cannot be opened as a data set ({_reason(error)})") from None


def _is_saved(hub: HubSet, file: str) -> bool:
    return hub.is_local and Path(hub.id, file).is_file()


def _datasets(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("real data set", name, "needs the package datasets; pip install datasets") from None
    return datasets


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def hub_source(hub: HubSet, split: str) -> tuple[Source, str]:
    """Open one split of a data set, or several joined by `+`; return it and a hash of what was opened.

    The library `datasets` keeps the images on disk.

    Raises:
        UserError: the data set cannot be opened, or has no such split or columns.
    """
    datasets = _datasets(hub.id)
    try:
        if _is_saved(hub, SAVED_DICT):
            data = datasets.load_from_disk(hub.id)[split]
        elif _is_saved(hub, SAVED):
            data = datasets.load_from_disk(hub.id)
        else:
            data = datasets.load_dataset(hub.address, hub.config, split=split, revision=hub.revision)
    except Exception as error:  # the library raises many kinds of errors, also those of other libraries
        raise UserError(
            "real data set",
            hub.id,
            f"split {split} cannot be opened ({_reason(error)}); check its name, config and splits, and the connection",
        ) from None
    for column in (hub.image, hub.label):
        if column not in data.column_names:
            raise missing_column(hub.address, column, Columns(hub.image, hub.label), data.column_names)
    names = list(getattr(data.features[hub.label], "names", None) or [])
    labels, names = checked_labels(hub.id, data.select_columns([hub.label]).with_format("arrow")[:][hub.label], names)
    if isinstance(data.features[hub.image], datasets.Image):
        data = data.cast_column(hub.image, datasets.Image(decode=False))
    images = data.select_columns([hub.image])
    return Source(hub.id, labels, names, lambda i: image_bytes(hub.id, i, images[i][hub.image], open_paths=True)), str(
        data._fingerprint
    )


def torchvision_source(name: str, options: dict[str, Any], root: Path | None = None) -> Source:
    """Open a set with a class of `torchvision.datasets`: the bytes of its image files, or its images as PNG.

    Args:
        name: the class's name.
        options: further arguments of the class, as `split`.
        root: the folder that holds the class's own folder; when None, torchvision's usual one, into which the set is
            fetched if it is missing.

    Raises:
        UserError: the set is not in `root`, or cannot be fetched.
    """
    from torchvision import datasets

    build = getattr(datasets, name)
    folder = str(root or _downloads(name))
    try:
        data = build(folder, **options)
    except (RuntimeError, OSError) as error:
        if root is not None:
            reason = _reason(error).split(". You can use")[0]
            raise UserError(
                "path",
                folder,
                f"torchvision's {name} does not find its files there ({reason}); give the folder that holds its own",
            ) from None
        try:
            data = build(folder, **options, download=True)
        except Exception as failure:  # as many kinds as there are ways to fetch
            raise UserError(
                "real data set",
                name,
                f"cannot be fetched into {folder} ({_reason(failure)}); delete the broken files there, or set path",
            ) from None
    labels = _first_there(data, ("_labels", "targets"))
    files = _first_there(data, ("_image_files", "_images"))
    if files is None and hasattr(data, "samples"):
        files = [file for file, _ in data.samples]
    labels = [data[i][1] for i in range(len(data))] if labels is None else labels
    names = [str(class_name) for class_name in getattr(data, "classes", [])]
    if files is not None:
        return file_source(name, [str(file) for file in files], np.asarray(labels), names)
    return Source(
        name,
        checked_labels(name, pa.array(np.asarray(labels)), names)[0],
        names,
        lambda i: encode_png(np.asarray(data[i][0])),
    )


def _downloads(name: str) -> Path:
    """Return torchvision's usual folder, or one beside the other caches if a set is to be fetched and that one cannot
    be written to."""
    usual = DOWNLOADS.expanduser()
    others = os.environ.get("XDG_CACHE_HOME")
    return usual if others is None or (usual / name).is_dir() or can_write(usual) else Path(others, "torchvision")


def _first_there(data: Any, attributes: tuple[str, ...]) -> Any:
    return next(
        (getattr(data, attribute) for attribute in attributes if getattr(data, attribute, None) is not None), None
    )
