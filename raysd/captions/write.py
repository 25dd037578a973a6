"""The caption job: a language model writes what is missing of each class, and a table holds all captions."""

import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from raysd.captions.server import Server
from raysd.captions.spec import CaptionSpec, counted
from raysd.captions.writing import Parts
from raysd.clone.settings import GenerationSettings
from raysd.errors import Failure, UserError, try_again
from raysd.generation.placement import TASKS_PER_ACTOR, pool_size
from raysd.progress import Progress, say
from raysd.storage.location import Location
from raysd.storage.tables import read_each, read_table, write_table
from raysd.versions import versions

if TYPE_CHECKING:
    from raysd.captions.local_model import LocalModel

MOST_NAMED = 3  # of the classes that end short
TABLE = pa.schema([("key", pa.string()), ("name", pa.string()), ("caption", pa.string()), ("seed", pa.int64())])
METADATA = b"raysd"


@dataclass(frozen=True)
class Answer:
    """What became of a class."""

    label: int
    num_captions: int
    num_written: int
    problems: str = ""
    """How often each problem came up with the answers that were not taken."""
    failure: str = ""
    error: str = ""
    """A user's error, as JSON."""


def table_name(num_captions: int) -> str:
    """Return the name of the table with so many captions of each class."""
    return f"captions-{num_captions}.parquet"


def write_captions(spec: CaptionSpec, root: Location, settings: GenerationSettings) -> tuple[str, int]:
    """Have the missing captions written; return the name of the table in the folder of `spec`, and the number of
    captions that are new. Ray is started only if a model of this machine writes.

    Args:
        spec: the captions.
        root: the storage root.
        settings: of actors, CPUs and GPUs.

    Raises:
        UserError: a class that ends short of captions, a model or a server that refuses, or no room on the cluster.
        Failure: an exception was raised twice for a class.
    """
    parts, name, num_written = Parts(spec, root), table_name(spec.settings.captions_per_class), 0
    if missing := parts.missing():
        num_written = _fill(spec, parts, missing, root, settings)
    folder = spec.folder(root)
    if not folder.is_file(name):
        write_table(folder, name, _table(spec, parts))
    return name, num_written


def _fill(spec: CaptionSpec, parts: Parts, missing: list[int], root: Location, settings: GenerationSettings) -> int:
    """Have the captions of some classes written; return how many are new."""
    wanted, answers = spec.settings.captions_per_class, list[Answer]()
    by = _by_server(spec, parts, missing) if spec.model is None else _by_actors(spec, root, settings, missing)
    with Progress("written", len(missing), "classes") as progress, closing(by):
        for answer in by:
            if answer.error:
                raise UserError.from_json(answer.error)
            answers.append(answer)
            progress.advance(1)
    if failed := [answer.failure for answer in answers if answer.failure]:
        raise Failure(f"the captions of {len(failed):,} of {len(missing):,} classes could not be written: {failed[0]}")
    if short := [answer for answer in answers if answer.num_captions < wanted]:
        raise _short(spec, sorted(short, key=lambda answer: answer.label))
    return sum(answer.num_written for answer in answers)


def _short(spec: CaptionSpec, short: list[Answer]) -> UserError:
    """Return what names the classes that end short."""
    wanted, keys = spec.settings.captions_per_class, spec.table.keys
    told = [
        f"class {keys[each.label]!r} has {each.num_captions} of {wanted} captions (of the answers, {each.problems})"
        for each in short
    ]
    more = f", and {len(told) - MOST_NAMED} more classes are short" if len(told) > MOST_NAMED else ""
    others = "it or captions.temperature" if spec.settings.temperature else "it, so that another attempt differs"
    remedy = f"what is there is kept; raise {others}, or change captions.instruction"
    message = f"{', '.join(told[:MOST_NAMED])}{more}; {remedy}"
    if spec.settings.temperature:
        return UserError("captions.max_attempts", spec.settings.max_attempts, message)
    return UserError("captions.temperature", spec.settings.temperature, message)


def _answered(spec: CaptionSpec, parts: Parts, label: int, writer: Any) -> Answer:
    """Have the captions of a class written, and return what became of it."""
    before = len(parts.read(label))
    try:
        found = try_again(lambda: parts.complete(label, writer))
    except UserError as error:
        return Answer(label, before, 0, error=error.to_json())
    except Failure as error:  # the other classes go on
        return Answer(label, before, 0, failure=str(error))
    return Answer(label, len(found.rows), len(found.rows) - before, counted(found.problems))


def _by_server(spec: CaptionSpec, parts: Parts, missing: list[int]) -> Generator[Answer]:
    """Yield what became of each class, asked of a server by threads of this process, from which alone a server on
    loopback may be seen."""
    server = Server(spec.settings)
    say(f"{spec.settings.model} at {spec.settings.server} writes captions of {len(missing):,} classes")
    pool = ThreadPoolExecutor(spec.settings.num_requests)
    try:
        for done in as_completed([pool.submit(_answered, spec, parts, label, server) for label in missing]):
            yield done.result()
    finally:
        server.ended.set()
        pool.shutdown(cancel_futures=True)


class CaptionActor:
    """A Ray Data actor that writes the captions of one class after the other."""

    def __init__(self, spec: CaptionSpec, root: Location, num_threads: int) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self.spec, self.parts = spec, Parts(spec, root)

    @cached_property
    def _model(self) -> "LocalModel":
        from raysd.captions.local_model import LocalModel, model_folder

        assert self.spec.model is not None, "a server runs the model"
        return LocalModel(model_folder(self.spec.model), self.spec.settings)

    def write(self, instruction: str, seed: int) -> str:
        """Return the model's answer; it is loaded for the first one, so that what keeps it from that is said there."""
        return self._model.write(instruction, seed)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Write the captions of the classes of column `label`; return what became of them."""
        answers = [vars(_answered(self.spec, self.parts, int(label), self)) for label in batch["label"]]
        return {name: [answer[name] for answer in answers] for name in answers[0]}


def _by_actors(
    spec: CaptionSpec, root: Location, settings: GenerationSettings, missing: list[int]
) -> Generator[Answer]:
    """Yield what became of each class, written by actors of Ray Data, one for each device."""
    import ray.data

    from raysd.cluster.session import ensure_ray

    ensure_ray()
    size = pool_size(settings, len(missing))
    say(f"{spec.settings.model} writes captions of {len(missing):,} classes, in {size}")
    options = {"spec": spec, "root": root, "num_threads": max(1, int(settings.cpus_per_actor))}
    for start in range(0, len(missing), size.wave_shards):
        wave = [{"label": label} for label in missing[start : start + size.wave_shards]]
        stage = ray.data.from_items(wave, override_num_blocks=len(wave)).map_batches(
            CaptionActor,
            fn_constructor_kwargs=options,
            compute=ray.data.ActorPoolStrategy(**size.bounds(len(wave)), max_tasks_in_flight_per_actor=TASKS_PER_ACTOR),
            batch_size=1,
            num_cpus=settings.cpus_per_actor,
            num_gpus=size.gpus_per_actor or None,
        )
        for row in stage.iter_rows():
            yield Answer(**row)


def _table(spec: CaptionSpec, parts: Parts) -> pa.Table:
    """Return the captions of all classes, as many of each; the metadata says where they come from."""
    wanted, rows = spec.settings.captions_per_class, list[dict[str, Any]]()
    there = read_each(lambda label: parts.read(int(label)), map(str, range(len(spec.table))))
    for row, captions in zip(spec.table.rows, there, strict=True):
        of_class = {"key": row["key"], "name": row["name"]}
        rows += [{**of_class, "caption": each["caption"], "seed": each["seed"]} for each in captions[:wanted]]
    about = json.dumps({**spec.describe(), "versions": versions()}, sort_keys=True)
    return pa.Table.from_pylist(rows, TABLE).replace_schema_metadata({METADATA: about})


def read_captions(folder: Location, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """Return a table of captions, and what its metadata says of them."""
    table = read_table(folder, name)
    return table, json.loads(table.schema.metadata[METADATA])
