"""The score lost by choosing with measures that need no training."""

import numpy as np

from raysd.storage.row_types.sweep import ProxyRegret, RungResult
from raysd.sweep.analysis.ranking import scored, widest_rung

BETTER = {
    "frechet_distance": "lower",
    "coverage": "higher",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "image_text_similarity": "higher",
}
FEWEST_RANKED = 3
"""Settings from which on a rank correlation says something."""


def proxy_regrets(results: list[RungResult]) -> list[ProxyRegret]:
    """Return the score lost by choosing by each proxy alone.

    Each proxy is judged on the rung where the most settings have both it and a score, the highest of several.

    Args:
        results: of one sweep.

    Returns:
        One row per proxy that some rung result has. `regret` is in points: the best score of the rung minus that of the
        setting that the proxy puts first (the one tried first, where several are equal). `spearman` is the rank
        correlation of proxy and score, turned so that 1 is the same order whichever way the proxy is better; None with
        fewer than 3 settings or where either is constant.
    """
    return [row for proxy, better in BETTER.items() if (row := _regret(results, proxy, better)) is not None]


def _regret(results: list[RungResult], proxy: str, better: str) -> ProxyRegret | None:
    from scipy.stats import spearmanr  # half a second to import, and seldom needed

    both = widest_rung([result for result in scored(results) if result["proxies"].get(proxy) is not None])
    if not both:
        return None
    values = np.array([result["proxies"][proxy] for result in both], dtype=np.float64) * (
        1 if better == "higher" else -1
    )
    scores = np.array([result["score"] for result in both])
    pick = both[int(np.argmax(values))]
    is_ranked = len(both) >= FEWEST_RANKED and np.ptp(values) > 0 and np.ptp(scores) > 0
    return {
        "proxy": proxy,
        "better": better,
        "images_per_class": pick["images_per_class"],
        "pick": pick["label"],
        "pick_score": pick["score"],
        "best_score": float(scores.max()),
        "regret": float(scores.max()) - pick["score"],
        "spearman": float(spearmanr(values, scores).statistic) if is_ranked else None,
        "num_settings": len(both),
    }
