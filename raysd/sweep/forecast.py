"""The time that a sweep still takes, from units of work and what each has cost so far.

Work is counted in guided denoising steps of images, in steps of trainings, and in classifiers that are measured. An
interval of the clock in which several kinds advanced is shared among them by what they would have cost; so the costs
add up to the time that went by, whether kinds of work run one after the other or beside each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Units = Mapping[str, float]
"""An amount of each kind of work."""
DENOISE, TRAIN, MEASURE = "denoise", "train", "measure"
TRUST = 0.04
"""How much a prior counts: as much as this share of the whole work of its kind, once it is measured."""


@dataclass
class Forecast:
    """The time left of work that goes on.

    Args:
        total: all work.
        prior: seconds for a unit of each kind, on this machine as it is expected; kinds that nothing is known of are
            left out.
    """

    total: dict[str, float]
    prior: Units
    done: dict[str, float] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)
    _measured: dict[str, float] = field(default_factory=dict)
    _since: float | None = None
    """When work advanced last; None before it began."""

    def update(self, done: Units, now: float) -> None:
        """Note how much is done by now; work that was there before it began costs nothing."""
        grown = {kind: amount - self.done.get(kind, 0.0) for kind, amount in done.items()}
        if not any(amount > 0 for amount in grown.values()):
            return
        if self._since is not None:
            self._share(max(0.0, now - self._since), grown)
        self._since = now
        self.done = dict(done)

    def seconds_left(self, now: float) -> float | None:
        """Return the time left; None while nothing is known of what a kind of work costs."""
        left = {kind: max(0.0, total - self.done.get(kind, 0.0)) for kind, total in self.total.items()}
        costs = {kind: self._cost(kind) for kind, amount in left.items() if amount}
        if any(cost is None for cost in costs.values()):
            return None
        seconds = sum(left[kind] * (cost or 0.0) for kind, cost in costs.items())
        begun = now if self._since is None else self._since
        return max(seconds - (now - begun), 0.05 * seconds)

    def _share(self, seconds: float, grown: Units) -> None:
        """Share an interval among the kinds of work that advanced in it."""
        known = {kind: (self._cost(kind) or 0.0) * amount for kind, amount in grown.items() if amount > 0}
        total = sum(known.values())
        for kind in known:
            part = known[kind] / total if total else 1 / len(known)
            self._spent[kind] = self._spent.get(kind, 0.0) + part * seconds
            self._measured[kind] = self._measured.get(kind, 0.0) + grown[kind]

    def _cost(self, kind: str) -> float | None:
        """Return the seconds of a unit: the prior, corrected by how fast this machine was so far, and then what was
        measured."""
        units, spent = self._measured.get(kind, 0.0), self._spent.get(kind, 0.0)
        if kind not in self.prior:
            return spent / units if units else None
        trust = TRUST * self.total.get(kind, 0.0)
        expected = self.prior[kind] * self._slowness()
        return (expected * trust + spent) / (trust + units) if trust + units else expected

    def _slowness(self) -> float:
        """Return how many times as long the work took so far as was expected."""
        kinds = [kind for kind in self._measured if kind in self.prior]
        expected = sum(self.prior[kind] * self._measured[kind] for kind in kinds)
        return sum(self._spent[kind] for kind in kinds) / expected if expected else 1.0
