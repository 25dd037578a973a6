"""The cost of a sweep, and that of trying every setting at full size."""

from collections.abc import Callable, Sequence
from typing import Literal

from raysd.storage.row_types.sweep import RungResult, SweepCost, WorkCost
from raysd.sweep.analysis.ranking import setting_key

Part = Literal["generate", "train", "measure"]


def sweep_cost(
    results: list[RungResult],
    num_settings: int,
    rungs: Sequence[tuple[int, int]],
    num_classes: int,
    confirmed: Sequence[RungResult] = (),
) -> SweepCost:
    """Return the images, trainings and device seconds of a sweep, beside those of all settings at the last rung with
    all its seeds.

    The seconds of all settings are this sweep's rates times their number: per image that was generated, per image and
    seed where classifiers were trained (time in proportion to the images, as with epochs), and per classifier that was
    measured. Settings that share a clone generate it once, here and there; with several clone seeds all of its clones.

    Args:
        results: of one sweep.
        num_settings: in the whole search.
        rungs: images per class and number of seeds of each rung, rising.
        num_classes: of the class table.
        confirmed: the finalists' fresh measurements, which count, but are no part of what all settings would cost.

    Returns:
        `num_images` counts what the clones have at their last rungs, whoever generated it, `num_generated` what this
        sweep generated, `trainings` its classifiers. Under `grid` seconds are None where this sweep has no rate.
    """
    images_per_class, num_seeds = rungs[-1]
    num_tried = len({setting_key(result) for result in results})
    num_distinct = len({result["clone"] for result in results})
    num_clones = round(num_settings * num_distinct / num_tried) if num_tried else num_settings
    num_clones *= max((len(_clones(result)) for result in results), default=1)
    size, trainings = images_per_class * num_classes, num_settings * num_seeds
    cost: SweepCost = {
        **_spent([*results, *confirmed]),  # type: ignore[typeddict-item]
        "grid": {
            "settings": num_settings,
            "num_images": num_clones * size,
            "trainings": trainings,
            "generate_seconds": _seconds(
                results, "generate", lambda result: result["num_generated"], num_clones * size
            ),
            "train_seconds": _seconds(
                results, "train", lambda result: result["num_planned"] * len(result["seeds"]), trainings * size
            ),
            "measure_seconds": _seconds(results, "measure", lambda result: len(result["classifiers"]), trainings),
        },
    }
    if confirmed:
        cost["confirm"] = _spent(confirmed)
    return cost


def _spent(results: Sequence[RungResult]) -> WorkCost:
    """Return what some rung results took."""
    clones: dict[str, int] = {}
    for result in results:
        clones |= {clone: max(result["num_planned"], clones.get(clone, 0)) for clone in _clones(result)}
    return {
        "num_images": sum(clones.values()),
        "num_generated": sum(result["num_generated"] for result in results),
        "trainings": len({fingerprint for result in results for fingerprint in result["classifiers"]}),
        "generate_seconds": float(sum(result["seconds"]["generate"] for result in results)),
        "train_seconds": float(sum(result["seconds"]["train"] for result in results)),
        "measure_seconds": float(sum(result["seconds"]["measure"] for result in results)),
    }


def _clones(result: RungResult) -> list[str]:
    return result.get("clones", [result["clone"]])


def _seconds(results: list[RungResult], part: Part, work_of: Callable[[RungResult], int], work: int) -> float | None:
    """Return the seconds of so much work, by the rate of the rung results that spent time on it; None when none did."""
    done = [result for result in results if result["seconds"][part] > 0 and work_of(result) > 0]
    return (
        work * sum(result["seconds"][part] for result in done) / sum(work_of(result) for result in done)
        if done
        else None
    )
