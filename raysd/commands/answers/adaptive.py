"""The result of `adapt`."""

from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING

from raysd.commands.answers.classifier import TrainedClassifier
from raysd.storage.row_types.adaptive import AdaptiveRow, RoundRow
from raysd.storage.row_types.measured import AccuracyRow

if TYPE_CHECKING:
    import pandas as pd

    from raysd.storage.location import Location


@dataclass(frozen=True)
class AdaptedClone:
    """A clone that was generated in rounds, and the classifiers of the last one."""

    row: AdaptiveRow = field(repr=False)
    """The result row."""
    rounds: tuple[RoundRow, ...] = field(repr=False)
    """A row for each round of each clone seed."""
    accuracies: tuple[AccuracyRow, ...] = field(repr=False)
    """Of the classifiers of the last rounds, on all sets."""
    root: "Location" = field(repr=False)
    config: str | None
    """An experiment file whose training learns from the images of the first clone seed; None where these were chosen
    from a pool."""
    failed: tuple[str, ...] = ()
    """A line for each measurement that failed and is missing."""

    @property
    def num_images(self) -> int:
        """Images of all clone seeds."""
        return self.row["num_images"]

    @property
    def classifiers(self) -> list[TrainedClassifier]:
        """The classifiers of the last rounds."""
        from raysd.classifier.architecture import load_record

        found = []
        for name in self.row["classifiers"]:
            folder = self.root.child("classifiers", name)
            found.append(TrainedClassifier((load_record(folder) or {})["seed"], name, folder, self.root))
        return found

    def to_pandas(self) -> "pd.DataFrame":
        """Return a frame with a line for each round of each clone seed; `grew` says which had new images."""
        import pandas as pd

        names = ("way", "clone_seed", "number", "num_images", "accuracy", "decided_on", "device_seconds")
        lines = [{name: row[name] for name in names} for row in self.rounds]  # type: ignore[literal-required]
        grew = [row.get("grew", True) for row in self.rounds]
        return pd.DataFrame(lines).assign(grew=grew)

    def mean_accuracies(self) -> dict[tuple[str, str], float]:
        """Return the mean accuracy over the classifiers in percent, by role and set."""
        values: dict[tuple[str, str], list[float]] = {}
        for row in self.accuracies:
            values.setdefault((row["role"], row["dataset"]), []).append(row["value"])
        return {key: mean(each) for key, each in values.items()}
