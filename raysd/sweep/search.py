"""The order in which settings are taken to rungs, by Ray Tune's searchers and schedulers.

A job is what one Tune trial does: some rungs of a setting, or a baseline.

- A list of settings without a scheduler, or with ASHA: a trial takes a setting from rung to rung, and Tune's
  `ASHAScheduler` stops it.
- TPE: the same, with settings from Tune's `OptunaSearch`.
- Halving: a trial takes a setting to one rung. `HalvingSearch` hands out the first rung, waits for all of it, and then
  hands out the next one for those that are kept. No trial is paused, so none holds resources while it waits.
"""

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher

from raysd.statistics.seeds import keep_best
from raysd.storage.fingerprint import seed_of_32_bits
from raysd.sweep.settings import RangeSettings, SweepSettings
from raysd.sweep.space import Setting, is_number, rounded

METRIC, MODE = "score", "max"
LEVEL = "level"  # what ASHA reads: each rung is `1 / keep` times the one before, whatever its images per class
ABOVE_LAST = 1.2


class _Forgetful(Searcher):
    """A searcher without a saved state: a restarted sweep reads from its rung results what is done."""

    def __init__(self) -> None:
        super().__init__(metric=METRIC, mode=MODE)

    def get_state(self) -> dict[str, Any]:
        """Return no state."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


class HalvingSearch(_Forgetful):
    """Synchronous successive halving over a list of settings.

    Each suggestion is `{"setting": place in the list, "rung": number}`, or `{"baseline": kind}` for the baselines,
    which come last in the first rung, so that nobody waits for them.

    Args:
        num_settings: how many settings there are.
        num_rungs: how many rungs.
        keep: share of a rung's settings that go on.
        within_noise: also keep settings that are not worse than the last one kept by more than noise.
        baselines: their kinds.
        known: the scores of rung results that an earlier run measured, by setting and rung; no job is handed out for
            them, since each would start a process.
    """

    def __init__(
        self,
        num_settings: int,
        num_rungs: int,
        keep: float,
        within_noise: bool,
        baselines: list[str],
        known: Mapping[tuple[int, int], list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.num_rungs, self.keep, self.within_noise, self.known = num_rungs, keep, within_noise, dict(known or {})
        self.rung, self.members, self.is_done = 0, list(range(num_settings)), False
        self.waiting: deque[dict[str, Any]] = deque()
        self.running: dict[str, dict[str, Any]] = {}
        self.scores: dict[int, list[float]] = {}
        self.passed: list[tuple[int, int]] = []
        """Known rung results that were taken, by setting and rung."""
        self._begin_rung()
        self.waiting.extend({"baseline": kind} for kind in baselines)
        self._go_on()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next job, None while a rung is not done, or `Searcher.FINISHED`."""
        self._go_on()
        if self.is_done:
            return Searcher.FINISHED
        if not self.waiting:
            return None
        self.running[trial_id] = self.waiting.popleft()
        return dict(self.running[trial_id])

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Record the scores of a setting; one that failed has none, and is not kept."""
        job = self.running.pop(trial_id, {})
        if "setting" in job:
            self.scores[job["setting"]] = list((result or {}).get("seed_scores") or [])

    def _begin_rung(self) -> None:
        """Hand out the settings of the rung whose results are not known."""
        self.scores = {
            place: self.known[place, self.rung] for place in self.members if (place, self.rung) in self.known
        }
        self.passed += [(place, self.rung) for place in self.scores]
        self.waiting.extend({"setting": place, "rung": self.rung} for place in self.members if place not in self.scores)

    def _go_on(self) -> None:
        """Start the next rung once this one is complete."""
        while not self.is_done and not self.waiting and self._is_rung_done():
            self.is_done = not self._next_rung()

    def _is_rung_done(self) -> bool:
        return all(place in self.scores for place in self.members)

    def _next_rung(self) -> bool:
        if self.rung + 1 == self.num_rungs:
            return False
        num_seeds = max((len(self.scores[place]) for place in self.members), default=0)
        if not num_seeds:
            return False
        table = np.array([self.scores[place] or [np.nan] * num_seeds for place in self.members])
        self.members = [self.members[i] for i in keep_best(table, self.keep, self.within_noise)]
        self.rung += 1
        self._begin_rung()
        return bool(self.members)


def asha(sweep: SweepSettings, num_rungs: int) -> TrialScheduler:
    """Return Tune's asynchronous halving over the rungs."""
    factor = 1 / sweep.keep
    return ASHAScheduler(
        time_attr=LEVEL,
        max_t=int(np.ceil(ABOVE_LAST * level(sweep, num_rungs - 1))),
        grace_period=1,
        reduction_factor=factor,
    )


def level(sweep: SweepSettings, rung: int) -> float:
    """Return the time at a rung that a trial reports to ASHA."""
    return float((1 / sweep.keep) ** rung * (1 + 1e-9))


class NumberedSearch(_Forgetful):
    """Numbers the settings of a searcher, and hands none out that is still being tried: two trials must not train
    the same classifiers.

    A setting keeps its number, and a new one gets the lowest that is free. So a sweep that was interrupted while a
    setting was being measured leaves no hole: whatever ended first, the numbers of a finished sweep are 0, 1, 2, ...

    Each suggestion is `{"values": ..., "number": ...}`, or first `{"baseline": kind}` for the baselines.

    Args:
        baselines: their kinds.
        searcher: suggests the values; first those of the settings that an earlier run tried.
        numbers: of those settings.
        setting_of: the setting of some values.
        identity_of: what tells whether two settings train the same classifiers.
    """

    def __init__(
        self,
        baselines: list[str],
        searcher: Searcher,
        numbers: Mapping[Setting, int],
        setting_of: Callable[[dict[str, Any]], Setting],
        identity_of: Callable[[Setting], str],
    ) -> None:
        super().__init__()
        self.baselines, self.searcher = deque(baselines), searcher
        self.numbers, self.setting_of, self.identity_of = dict(numbers), setting_of, identity_of
        self.count = 0
        self.held: tuple[str, dict[str, Any]] | None = None
        """A suggestion that waits for its twin to end."""
        self.running: dict[str, tuple[str, str]] = {}
        """The searcher's name of each trial, and its identity."""
        self.first: dict[str, dict[str, Any]] = {}
        """What each trial reported on its first rung."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next setting, or None while it is being tried."""
        if self.baselines:
            return {"baseline": self.baselines.popleft()}
        if self.held is None:
            name = f"suggestion-{self.count}"
            values = self.searcher.suggest(name)
            if not isinstance(values, dict):
                return values
            self.count += 1
            self.held = name, values
        name, values = self.held
        setting = self.setting_of(values)
        identity = self.identity_of(setting)
        if identity in {other for _, other in self.running.values()}:
            return None
        self.held, self.running[trial_id] = None, (name, identity)
        return {"values": values, "number": self.numbers.setdefault(setting, self._lowest_free())}

    def _lowest_free(self) -> int:
        taken = set(self.numbers.values())
        return next(number for number in itertools.count() if number not in taken)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep what a setting scored on its first rung."""
        self.first.setdefault(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the searcher that a setting ended.

        It hears the score of the first rung, which all settings have: a score with more images is higher, whatever the
        setting. One that failed later counts as failed.
        """
        first = self.first.pop(trial_id, result)
        if trial_id in self.running:
            heard = first if (result or {}).get("seed_scores") else result
            self.searcher.on_trial_complete(self.running.pop(trial_id)[0], heard, error)


def tpe(sweep: SweepSettings, tried: list[Setting]) -> Searcher:
    """Return Optuna's TPE over the space; settings that an earlier run tried come first, in their order, so that it
    learns from them again.

    Lists of numbers are taken in their order, other lists as categories.
    """
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    factors = sweep.space.factors()
    space: dict[str, Any] = {}
    for name, choices in factors.items():
        if isinstance(choices, RangeSettings):
            space[name] = optuna.distributions.FloatDistribution(choices.low, choices.high, log=choices.log)
        elif _is_rising(choices):
            space[name] = optuna.distributions.IntDistribution(0, len(choices) - 1)
        else:
            space[name] = optuna.distributions.CategoricalDistribution(list(range(len(choices))))
    points = [{name: _encode(factors[name], value) for name, value in setting.values.items()} for setting in tried]
    sampler = optuna.samplers.TPESampler(
        seed=seed_of_32_bits(sweep.seed + len(tried))
    )  # of the same seed it would generate those again that were tried
    return OptunaSearch(space, metric=METRIC, mode=MODE, points_to_evaluate=points or None, sampler=sampler)


def decode(sweep: SweepSettings, suggested: Mapping[str, Any]) -> Setting:
    """Return the setting of a suggestion of `tpe`."""
    values: dict[str, Any] = {}
    for name, choices in sweep.space.factors().items():
        if isinstance(choices, RangeSettings):
            values[name] = rounded(float(suggested[name]), choices)
        else:
            values[name] = _in_order(choices)[int(suggested[name])]
    return Setting(values)


def _encode(choices: list[Any] | RangeSettings, value: Any) -> Any:
    return value if isinstance(choices, RangeSettings) else _in_order(choices).index(value)


def _in_order(choices: list[Any]) -> list[Any]:
    return sorted(choices) if _is_rising(choices) else choices


def _is_rising(choices: list[Any]) -> bool:
    """Return whether all choices are numbers, which have an order of their own."""
    return all(map(is_number, choices))
