"""Progress of long work: a bar on a terminal and below a notebook's cell, a plain line now and then in a job log.

Lines go to the logger `raysd`. The command line and the job scripts show them, and so do Ray's worker processes, whose
output Ray collects; in a program of your own they show when it configures logging.
"""

import codecs
import contextlib
import importlib
import io
import logging
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from raysd.formats import duration

LINE_SECONDS = 10.0
NOTEBOOK_SECONDS = 0.5
BAR_WIDTH = 30

log = logging.getLogger("raysd")
_has_bars = True


def be_quiet() -> None:
    """Show warnings and errors alone while the command runs, and no bars."""
    global _has_bars
    _has_bars = False
    log.setLevel(logging.WARNING)


def has_bars() -> bool:
    """Return whether progress is shown as bars: on a terminal, unless the command is quiet."""
    return _has_bars and sys.stdout.isatty()


class NotebookLine:
    """Text below a notebook's cell that is replaced as work goes on, from any thread; needs no widgets."""

    def __init__(self) -> None:
        display = importlib.import_module("IPython.display").display  # a notebook's kernel brings it
        self._handle: Any = display({"text/plain": ""}, raw=True, display_id=True)

    def update(self, text: str) -> None:
        """Show a text in the place of the one before."""
        self._handle.update({"text/plain": text}, raw=True)

    def stop(self) -> None:
        """Leave the last text where it is."""


def notebook_line() -> NotebookLine | None:
    """Return a new line below the cell that runs; None where this is no notebook, or the command is quiet."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    has_cells = getattr(shell, "kernel", None) is not None
    return NotebookLine() if has_cells and _has_bars else None


def be_verbose() -> None:
    """Show also what is only of use to find an error, while the command runs."""
    log.setLevel(logging.DEBUG)


IN_ASCII = {"±": "+/-", "–": "-", "…": "...", "’": "'", "“": '"', "”": '"'}
ESCAPED = 0xDC00  # where Python keeps the bytes of a file name that are no text, as characters


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return what stands for a character that an output's encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, end = error.object[error.start], error.start + 1
    if 0x80 <= ord(character) - ESCAPED <= 0xFF:
        return bytes([ord(character) - ESCAPED]), end
    return IN_ASCII.get(character) or ascii(character)[1:-1], end


codecs.register_error("raysd", _spell)


def take_any_text() -> None:
    """Let the output and the error stream of this process take any text, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="raysd")


class PlainLines(logging.Handler):
    """Writes each record as its text alone: notices to the output, warnings to the error stream."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        print(self.format(record), file=sys.stdout if record.levelno <= logging.INFO else sys.stderr, flush=True)


@contextlib.contextmanager
def shown_lines() -> Iterator[None]:
    """Show the lines of this process while a command runs."""
    global _has_bars
    handler, level, propagate = PlainLines(), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False  # a handler of another package would show them again
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate
        _has_bars = True


def say(text: str) -> None:
    """Tell the user something in one line."""
    if log.isEnabledFor(logging.INFO) or not _is_ray_worker():
        log.info("%s", text)
    else:
        print(text, flush=True)


def _is_ray_worker() -> bool:
    """Return whether Ray started this process for tasks and actors."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


class Progress:
    """Counts work done; use it as a context manager.

    Args:
        title: what is being done.
        total: how much there is to do.
        unit: the plural of what is counted.
    """

    def __init__(self, title: str, total: int, unit: str = "images") -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.began = self.last_line = time.monotonic()
        self.own_rate: float | None = None
        self._bar: RichProgress | None = None
        self._notebook: NotebookLine | None = None

    def __enter__(self) -> "Progress":
        if has_bars():
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = RichProgress(TextColumn("{task.description}"), *columns, console=Console())
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, rate="")
        else:
            self._notebook = notebook_line()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units per second: what the workers say, else since the start."""
        return self.own_rate or self.done / max(time.monotonic() - self.began, 1e-9)

    @property
    def _speed(self) -> str:
        return f"{self.rate:.1f} {self.unit}/s" if self.rate >= 1 else f"{60 * self.rate:.1f} {self.unit}/min"

    def advance(self, amount: int, note: str = "", rate: float | None = None) -> None:
        """Count `amount` more.

        Args:
            amount: how much more is done.
            note: shown behind the rate.
            rate: units per second, where the work says it itself.
        """
        self.done += amount
        self.total = max(self.total, self.done)  # a clone may hold more than was planned
        self.own_rate = rate
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=self.total, rate=f"{self._speed}{note}")
        elif self._notebook is not None:
            if self._is_due(NOTEBOOK_SECONDS):
                filled = BAR_WIDTH * self.done // max(self.total, 1)
                bar = "\u2588" * filled + "\u2591" * (BAR_WIDTH - filled)
                self._notebook.update(f"{bar} {self._line(note)}")
        elif self._is_due(LINE_SECONDS):
            say(self._line(note))

    def _is_due(self, seconds: float) -> bool:
        """Return whether to show where the work is: now and then, and at its end."""
        now = time.monotonic()
        if now - self.last_line < seconds and self.done < self.total:
            return False
        self.last_line = now
        return True

    def _line(self, note: str) -> str:
        left = f", {self._speed}, {duration((self.total - self.done) / self.rate)} left" if self.rate else ""
        return f"{self.title}: {self.done}/{self.total} {self.unit}{left}{note}"  # no rate while nothing is done
