"""What a sweep cost, and what trying every setting at full size would have."""

from collections.abc import Callable, Sequence

from raysd.storage.results import Row
from raysd.sweep.analysis.ranking import setting_key


def sweep_cost(trials: list[Row], num_settings: int, rungs: Sequence[tuple[int, int]], num_classes: int) -> Row:
    """The images, trainings and device seconds of a sweep, beside those of all settings at the last rung with all
    its seeds.

    The seconds of all settings are this sweep's rates times their number: per image that was generated, per image and
    seed of the steps that trained (time in proportion to the images, as with epochs), and per classifier of the steps
    that measured. Settings that share a clone generate it once, here and there.

    Args:
        trials: of one sweep.
        num_settings: in the whole search.
        rungs: images per class and number of seeds of each rung, rising.
        num_classes: of the class table.

    Returns:
        `images` counts what the clones have at their last rungs, whoever drew them, `num_generated` what this sweep
        drew, `trainings` its classifiers. Under `grid` seconds are None where this sweep has no rate.
    """
    images_per_class, num_seeds = rungs[-1]
    clones: dict[str, int] = {}
    for trial in trials:
        clones[trial["clone"]] = max(trial["num_planned"], clones.get(trial["clone"], 0))
    num_tried = len({setting_key(trial) for trial in trials})
    num_clones = round(num_settings * len(clones) / num_tried) if num_tried else num_settings
    size, trainings = images_per_class * num_classes, num_settings * num_seeds
    return {
        "num_images": sum(clones.values()),
        "num_generated": sum(trial["num_generated"] for trial in trials),
        "trainings": len({fingerprint for trial in trials for fingerprint in trial["classifiers"]}),
        **{
            f"{part}_seconds": float(sum(trial["seconds"][part] for trial in trials))
            for part in ("generate", "train", "measure")
        },
        "grid": {
            "settings": num_settings,
            "num_images": num_clones * size,
            "trainings": trainings,
            "generate_seconds": _seconds(trials, "generate", lambda trial: trial["num_generated"], num_clones * size),
            "train_seconds": _seconds(
                trials, "train", lambda trial: trial["num_planned"] * len(trial["seeds"]), trainings * size
            ),
            "measure_seconds": _seconds(trials, "measure", lambda trial: len(trial["classifiers"]), trainings),
        },
    }


def _seconds(trials: list[Row], part: str, work_of: Callable[[Row], int], work: int) -> float | None:
    """Seconds of so much work, by the rate of the steps that did some; None when none did."""
    done = [trial for trial in trials if trial["seconds"][part] > 0 and work_of(trial) > 0]
    return (
        work * sum(trial["seconds"][part] for trial in done) / sum(work_of(trial) for trial in done) if done else None
    )
