"""The results of the commands that measure: result rows and their location."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd


R = TypeVar("R")


@dataclass(frozen=True)
class ResultRows(Generic[R]):
    """Result rows; iterate over it, or make a table of it with `to_pandas`."""

    rows: tuple[R, ...] = field(repr=False)
    path: str
    """The folder that holds a file for each row."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why each set that was skipped was not available, by name."""
    failed: tuple[str, ...] = ()
    """A line for each measurement that failed."""

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> R:
        return self.rows[place]

    def to_pandas(self) -> "pd.DataFrame":
        """Return a frame with a column for each value, as `trained_on.guidance_scale`."""
        return flat_frame(self.rows)


def flat_frame(rows: Sequence[Any]) -> "pd.DataFrame":
    """Return rows as a frame; the values of a mapping become columns with dotted names."""
    import pandas as pd

    return pd.json_normalize(list(rows))
