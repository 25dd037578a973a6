"""The result of `caption`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from raysd.storage.location import Location

VARIANT = "captioned"


@dataclass(frozen=True)
class CaptionTable:
    """A table of captions that a language model wrote."""

    folder: "Location" = field(repr=False)
    name: str = field(repr=False)
    num_written: int
    """Captions that are new."""

    @property
    def path(self) -> str:
        """The table, which `variants` may name."""
        return self.folder.child(self.name).uri

    @property
    def variant(self) -> dict[str, Any]:
        """A prompt variant whose prompts are the captions, as it stands under `variants`."""
        return {"templates": ["{caption}"], "fields": {"caption": {"table": self.path, "column": "caption"}}}

    @property
    def captions(self) -> Mapping[str, list[str]]:
        """The captions of each class, by its key."""
        found: dict[str, list[str]] = {}
        for row in self._table.to_pylist():
            found.setdefault(row["key"], []).append(row["caption"])
        return found

    @property
    def about(self) -> dict[str, Any]:
        """Where the captions come from: model, digest, instruction, seed and versions."""
        return dict(self._read[1])

    def to_pandas(self) -> "pd.DataFrame":
        """Return a frame with a line for each caption."""
        frame: pd.DataFrame = self._table.to_pandas()
        return frame

    @property
    def _table(self) -> Any:
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[Any, dict[str, Any]]:
        from raysd.captions.write import read_captions

        return read_captions(self.folder, self.name)
