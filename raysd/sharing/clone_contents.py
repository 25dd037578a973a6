"""A clone as a data set repository: its shards as they are, a card, sample images, and how to generate it again."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysd.clone.clone import RECORD, Clone, CloneRecord
from raysd.clone.dataset_card import dataset_card
from raysd.clone.record import with_earlier
from raysd.clone.scan import missing_shards
from raysd.clone.shard import DATA
from raysd.errors import UserError
from raysd.report.plots.grid import GridColumn, sample_grid
from raysd.report.samples.samples import read_samples
from raysd.sharing.licenses import License, Stated, agreed_license, model_licenses
from raysd.sharing.repeat import Repeat, repeat_of
from raysd.sharing.repository import Contents, HubFile, without_paths

GRID = "samples.png"
GRID_IMAGES, GRID_CLASSES = 4, 12
NUM_THREADS = 32  # they wait for an object store
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
SIZE_NAMES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")


def clone_contents(clone: Clone, license: str | None = None) -> Contents:
    """Return what a repository of a clone is to hold: all images of its folder.

    Args:
        clone: the clone; of one that has grown, all that is there is pushed.
        license: of the images; when None, what the card of the generator states.

    Raises:
        UserError: the clone is not complete, or its license is not known.
    """
    clone = with_earlier(clone)
    record = clone.read_record()
    if not record.complete or missing_shards(clone).size:
        raise UserError("clone", clone.folder.uri, "is not complete; run raysd generate first")
    data = clone.folder.child(DATA)
    sizes = data.list_sizes(".parquet")
    shards = [HubFile(f"{DATA}/{name}", size, folder=data) for name, size in sorted(sizes.items())]
    stated = model_licenses(clone.spec.model, [lora.file for lora in clone.spec.loras])
    agreed = agreed_license(stated, license)
    column = GridColumn("", read_samples(clone.folder, GRID_IMAGES, GRID_CLASSES))
    grid = sample_grid("samples", "", [column], GRID_IMAGES)
    repeat = repeat_of(clone, record.batch_size)
    about = json.dumps(without_paths(json.loads(clone.folder.read(RECORD))), indent=2, sort_keys=True) + "\n"
    card = _card(clone, record, shards, agreed, stated, repeat, grid.has_images)
    small = [HubFile.of(RECORD, about), *repeat.files, *([HubFile.of(GRID, grid.png)] if grid.has_images else [])]
    return Contents(
        "dataset", clone.spec.fingerprint, (*small, *shards), card, (f"license {agreed.text}", *repeat.notes)
    )


def _card(
    clone: Clone,
    record: CloneRecord,
    shards: Sequence[HubFile],
    license: License,
    stated: Sequence[Stated],
    repeat: Repeat,
    has_grid: bool,
) -> str:
    info = _dataset_info(shards)
    (split,) = info["splits"]
    front = {
        **license.front,
        "size_categories": [size_category(split["num_examples"])],
        "tags": ["synthetic", "raysd", "image-classification"],
        "dataset_info": info,
    }
    images = f"![Sample images, a row for each]({GRID})\n\n" if has_grid else ""
    return dataset_card(clone, record, front, images, _license_text(license, stated), _how(clone, repeat))


def _license_text(license: License, stated: Sequence[Stated]) -> str:
    parts = "\n".join(f"- {part}" for part in stated)
    return (
        f"`{license.text}`, as {license.why} says. The license of the generator decides what may be done with its "
        f"images:\n\n{parts}\n"
    )


def _how(clone: Clone, repeat: Repeat) -> str:
    fingerprint = f"Fingerprint of all that shapes the images: `{clone.spec.fingerprint}`."
    return f"## How it was generated\n\n{fingerprint} {repeat.text}\n\n"


def _dataset_info(shards: Sequence[HubFile]) -> dict[str, Any]:
    """Return the `dataset_info` of the front matter, which the hub's viewer and `datasets` read."""
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        footers = list(pool.map(_footer, shards))
    num_bytes = sum(each.num_bytes for each in footers)
    split = SplitInfo("train", num_bytes, sum(each.num_rows for each in footers))
    info = DatasetInfo(
        features=Features.from_arrow_schema(footers[0].schema),
        splits=SplitDict({"train": split}),
        download_size=sum(file.size for file in shards),
        dataset_size=num_bytes,
    )
    front = DatasetCardData()
    DatasetInfosDict({"default": info}).to_dataset_card_data(front)
    return dict(front["dataset_info"])


@dataclass(frozen=True)
class _Footer:
    num_rows: int
    num_bytes: int
    schema: pa.Schema


def _footer(file: HubFile) -> _Footer:
    folder = file.folder
    if folder is None:
        raise AssertionError(f"{file.path} is no shard")
    shard = folder.attempt(lambda: pq.ParquetFile(folder.file(file.name), filesystem=folder.filesystem))
    groups = (shard.metadata.row_group(place).total_byte_size for place in range(shard.metadata.num_row_groups))
    return _Footer(shard.metadata.num_rows, sum(groups), shard.schema_arrow)


def size_category(number: int) -> str:
    """Return the hub's name for a number of images."""
    place = sum(number >= size for size in SIZES)
    if place == 0:
        return f"n<{SIZE_NAMES[0]}"
    return f"n>{SIZE_NAMES[-1]}" if place == len(SIZES) else f"{SIZE_NAMES[place - 1]}<n<{SIZE_NAMES[place]}"
