"""Attempts of a job: how often it was begun, and whether two of them run at the same time.

Two drivers may work on one clone, sweep or training, and neither harms the other. But it is seldom meant: a job that is
submitted again while the first one still runs, or a command that is started twice. Each attempt has a number, and
changes its own count in a small file every few seconds. So another one that is killed and one that runs are told apart
without clocks: only the count of one that runs changes.
"""

import json
import threading
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from raysd.progress import say
from raysd.storage.change import change
from raysd.storage.location import Location

FOLDER = "attempts"
BEAT_SECONDS = 15.0
DEAD_BEATS = 20  # without a change, after which the entry of an attempt is deleted


class Attempt:
    """One attempt, from its `with` to the end of that.

    Args:
        root: the storage root.
        what: the job, as `clone 12ab`; also names the file.
        beat_seconds: between two looks for others.
    """

    def __init__(self, root: Location, what: str, beat_seconds: float = BEAT_SECONDS) -> None:
        self.folder, self.what, self.beat_seconds = root.child("runs", FOLDER), what, beat_seconds
        self.name = f"{what.replace(' ', '-')}.json"
        self.number = 0
        self._seen: dict[str, tuple[int, int]] = {}
        """Of each other attempt, its last count and the looks since that changed."""
        self._told: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._change(self._begun)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with suppress(Exception):  # the work is done, or failed for a reason of its own
            self._change(lambda state: state["running"].pop(str(self.number), None))

    def _change(self, update: Any) -> None:
        def updated(data: bytes | None) -> bytes:
            state = _read(data)
            update(state)
            return json.dumps(state, sort_keys=True).encode() + b"\n"

        change(self.folder, self.name, updated)

    def _begun(self, state: dict[str, Any]) -> None:
        self.number = state["last"] + 1
        self._seen = {name: (beat, 0) for name, beat in state["running"].items()}
        state["last"], state["running"][str(self.number)] = self.number, 0

    def _beat(self) -> None:
        while not self._ended.wait(self.beat_seconds):
            with suppress(Exception):  # the next look may find the storage again
                self._change(self._look)
                for name in sorted({name for name in self._seen if self._seen[name][1] == 0} - self._told, key=int):
                    self._told.add(name)
                    say(
                        f"{self.what}: attempt {name} runs at the same time as this one, attempt {self.number}; both "
                        "go on, and neither harms the other"
                    )

    def _look(self, state: dict[str, Any]) -> None:
        running = state["running"]
        before, self._seen = self._seen, {}
        for name, beat in list(running.items()):
            if name == str(self.number):
                continue
            last, looks = before.get(name, (None, 0))
            self._seen[name] = (beat, 0 if beat != last else looks + 1)
            if self._seen[name][1] >= DEAD_BEATS:
                del running[name]
        running[str(self.number)] = running.get(str(self.number), 0) + 1


def _read(data: bytes | None) -> dict[str, Any]:
    try:
        state = json.loads(data or b"{}")
        return {"last": int(state.get("last", 0)), "running": dict(state.get("running", {}))}
    except (ValueError, AttributeError, TypeError):
        return {"last": 0, "running": {}}
