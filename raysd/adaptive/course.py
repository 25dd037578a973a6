"""When an adaptive clone grows, and when its rounds end.

It grows in `num_rounds - 1` steps. Without `patience`, each round takes one, and the last one is the last round. With
it, a round whose accuracy is no better than the best so far is a stall. After so many stalls in a row, a number that
may change as the clone grows, the next round takes a growth step; when there is none left, it is the last one. The
round number `max_rounds` is the last one in any case, and takes all steps that are left, so that the clone ends with
the images that were asked for.

Worked example: patience 1, 2 growth steps. Accuracies of 60, 65, 64, 70, 70, 69 and 71: the third round stalls, so the
fourth has more images; the fifth stalls, so the sixth has all; the sixth stalls, so the seventh is the last one.
"""

import math
from dataclasses import dataclass

from raysd.adaptive.settings import AdaptiveSettings

WARM = {"warmup_share": 0.0, "smallest_size_share": 1.0}
"""Options of the recipe for rounds after the first: neither the rate nor the size of the images rises again."""


@dataclass(frozen=True)
class Course:
    """Where a round is among the rounds of its clone seed."""

    number: int = 0
    """Of the round."""
    step: int = 0
    """Growth steps before its images were there."""
    grew: bool = True
    """Whether it has images that the round before did not have."""
    is_last: bool = False
    stalls: int = 0
    """Rounds in a row before it that were no better than the best, since the clone grew."""
    best: float = -math.inf
    """Accuracy of the best round before it, in percent."""

    @property
    def rates(self) -> dict[str, float]:
        """Options of the recipe for a training that goes on: it warms up in the first round and decays in the last."""
        return {**(WARM if self.number else {}), **({} if self.is_last else {"decay_share": 0.0})}

    def stalls_after(self, accuracy: float) -> int:
        """Return the stalls in a row when this round has come to an accuracy."""
        return 0 if accuracy > self.best else self.stalls + 1

    def after(self, accuracy: float, settings: AdaptiveSettings) -> "Course":
        """Return the next round, when this one has come to an accuracy; after the last one there is none."""
        number, last_step, best = self.number + 1, settings.num_rounds - 1, max(self.best, accuracy)
        patience = settings.patience_after(self.step)
        if patience is None:
            return Course(number, self.step + 1, True, number == last_step, 0, best)
        if number >= settings.max_rounds - 1:
            return Course(number, last_step, self.step < last_step, True, 0, best)
        stalls = self.stalls_after(accuracy)
        if stalls < patience:
            return Course(number, self.step, False, False, stalls, best)
        grows = self.step < last_step
        return Course(number, self.step + grows, grows, not grows, 0, best)
