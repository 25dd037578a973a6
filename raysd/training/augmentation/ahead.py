"""Work that is ready before it is needed: on a GPU the next batch is prepared while this one is trained on."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch

T = TypeVar("T")


class Prepared(NamedTuple):
    """A batch on the device: views of the images, and what belongs to each image."""

    views: list[torch.Tensor]
    labels: torch.Tensor
    soft: torch.Tensor | None = None
    """Soft labels [B, K], where the training has some."""
    groups: torch.Tensor | None = None
    """Groups int64 [B], where the training has some."""


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; a copy to a GPU does not wait for what the GPU does."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def one_ahead(items: Iterable[T], prepare: Callable[[T], Prepared], device: torch.device) -> Iterator[Prepared]:
    """Yield what `prepare` returns for each item.

    On a GPU that of the next item is on its way by then, in a stream of its own, beside the work of the caller.
    """
    if device.type != "cuda":
        yield from map(prepare, items)
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    waiting: tuple[Prepared, torch.cuda.Event] | None = None
    for item in items:
        with torch.cuda.stream(stream):
            following = prepare(item), stream.record_event()
        if waiting is not None:
            yield _received(*waiting)
        waiting = following
    if waiting is not None:
        yield _received(*waiting)


def _received(prepared: Prepared, done: torch.cuda.Event) -> Prepared:
    """Let the caller's stream wait until the tensors are there, and keep their memory until it has used them."""
    views, *others = prepared
    current = torch.cuda.current_stream(views[0].device)
    current.wait_event(done)
    for tensor in (*views, *others):
        if tensor is not None:
            tensor.record_stream(current)
    return prepared
