"""Clones that are sent by reference.

A clone holds the plan with its class table and captions: 15 MB for 130,000 captions. So it is put into Ray's object
store once, and a call that names one of its shards carries a reference. An actor fetches a clone when it first meets
it, and keeps the last few.
"""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from raysd.clone.clone import Clone

NUM_KEPT = 4


@dataclass(frozen=True)
class SentClone:
    """A clone in Ray's object store. It is there as long as the process that put it lives and someone holds this."""

    reference: Any
    """A `ray.ObjectRef`. It stands inside of something, so that Ray hands it over as it is and does not fetch the
    clone for each call."""


def send_clone(clone: Clone) -> SentClone:
    """Put a clone into Ray's object store."""
    import ray

    return SentClone(ray.put(clone))


class KeptClones:
    """The clones that an actor works on; safe to use from several threads."""

    def __init__(self) -> None:
        self.kept: OrderedDict[str, Clone] = OrderedDict()
        self.lock = Lock()

    def fetch(self, sent: SentClone) -> Clone:
        """Return the clone, from the object store unless it is one of the last few.

        Raises:
            ray.exceptions.ObjectLostError: the process or the node that put it is gone.
        """
        import ray

        name = sent.reference.hex()
        with self.lock:
            if name not in self.kept:
                self.kept[name] = ray.get(sent.reference)
            self.kept.move_to_end(name)
            while len(self.kept) > NUM_KEPT:
                self.kept.popitem(last=False)
            return self.kept[name]
