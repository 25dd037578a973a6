"""The confirmation of a sweep: its best settings are measured again, with seeds that had no part in the choice.

The highest of many scores is partly luck, that of its classifiers and of its clone's noise. Fresh seeds of both do not
have it. So the confirmed scores are as good as those of settings that were named beforehand; only the choice among the
few finalists is left to be allowed for.
"""

from itertools import count

from raysd.config import Experiment
from raysd.storage.fingerprint import fingerprint
from raysd.storage.row_types.sweep import Confirmation, RungResult
from raysd.sweep.analysis.ranking import rank_settings
from raysd.sweep.settings import RungSettings, SweepSettings
from raysd.sweep.space import Setting, experiment_at, rungs_of


def fresh_seeds(kind: str, used: list[int], num_seeds: int) -> list[int]:
    """Return seeds that follow from the used ones by a hash, and are none of them; a larger number begins with the
    same.

    Args:
        kind: of the seeds, as `clone`.
        used: the seeds of the experiment.
        num_seeds: how many.
    """
    found: list[int] = []
    for number in count():
        if len(found) == num_seeds:
            break
        seed = int(fingerprint({"confirm": kind, "used": used, "number": number})[:8], 16)
        if seed not in used and seed not in found:
            found.append(seed)
    return found


def confirmed_experiment(experiment: Experiment, setting: Setting) -> Experiment:
    """Return the experiment at a finalist and the last rung's images per class, with fresh seeds of classifiers and
    clones: each classifier has a clone of its own. A source that names the seed of its clone keeps it.

    Args:
        experiment: with `sweep.confirm`.
        setting: the finalist.
    """
    wanted = experiment.sweep.confirm
    assert wanted is not None
    generation, training = experiment.generation, experiment.training
    own = [source.clone["seed"] for source in training.sources if source.clone and "seed" in source.clone]
    clone_seeds = fresh_seeds("clone", [generation.seed, *generation.seeds, *own], wanted.seeds)
    seeds = fresh_seeds("classifier", list(training.seeds), wanted.seeds)
    fresh = experiment.model_copy(
        update={
            "generation": generation.model_copy(update={"seeds": clone_seeds}),
            "training": training.model_copy(update={"seeds": seeds}),
        }
    )
    return experiment_at(fresh, setting, RungSettings(images_per_class=rungs_of(experiment)[-1].images_per_class))


def finalists(sweep: SweepSettings, results: list[RungResult]) -> list[tuple[Setting, int]]:
    """Return the best settings of a search, the best first, with their numbers; nothing without `confirm`.

    Args:
        sweep: with how many there are to be.
        results: the rung results of the search.
    """
    if sweep.confirm is None:
        return []
    numbers = {Setting(result["setting"]): result["number"] for result in results}
    best = [Setting(row["setting"]) for row in rank_settings(results)[: sweep.confirm.settings]]
    return [(setting, numbers[setting]) for setting in best]


def confirmed_fingerprint(search: str, setting: Setting, at: Experiment) -> str:
    """Return the name of the row of a finalist's fresh measurement.

    Args:
        search: the fingerprint of the search.
        setting: the finalist.
        at: as of `confirmed_experiment`.
    """
    seeds = {"seeds": at.training.seeds, "clone_seeds": at.generation.seeds}
    budget = at.generation.images_per_class
    return fingerprint({"sweep": search, "setting": dict(setting.values), "images_per_class": budget, "confirm": seeds})


def confirmation(search: list[RungResult], confirmed: list[RungResult], experiment: Experiment) -> Confirmation | None:
    """Return the finalists by their confirmed scores, each beside its score of the search; None where none was
    confirmed.

    Args:
        search: the rung results of the search.
        confirmed: those of the finalists' fresh measurements.
        experiment: with `sweep.confirm`.
    """
    before = {Setting(row["setting"]): row for row in rank_settings(search)}
    ranking = rank_settings(confirmed)
    if not ranking:
        return None
    at = confirmed_experiment(experiment, Setting(ranking[0]["setting"]))
    return {
        "images_per_class": at.generation.images_per_class,
        "seeds": list(at.training.seeds),
        "clone_seeds": list(at.generation.seeds),
        "ranking": [
            {
                **row,
                "search_score": before[Setting(row["setting"])]["score"],
                "search_images_per_class": before[Setting(row["setting"])]["images_per_class"],
            }
            for row in ranking
        ],
        "rung_results": [result["fingerprint"] for result in confirmed],
    }
