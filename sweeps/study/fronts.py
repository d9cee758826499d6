"""Pareto fronts of points with several scores."""

from collections.abc import Sequence

import numpy as np
from optuna.study._multi_objective import _fast_non_domination_rank

from sweeps.settings.objectives import Scores


def front_ranks(scores: Sequence[Scores]) -> list[int]:
    """Return the front of each point by non-dominated sorting (Deb et al. 2002): 0 for points that no other dominates,
    1 for those that only points of front 0 dominate, and so on.

    Higher scores are better. With one objective this ranks the distinct scores.
    """
    if not scores:
        return []
    found: list[int] = _fast_non_domination_rank(-np.asarray(scores, dtype=float)).tolist()
    return found


def is_in_worse_half(own: Scores, others: Sequence[Scores]) -> bool:
    """Return whether scores are on a later front than half of the others; with one objective, below their median."""
    ranks = front_ranks([own, *others])
    return bool(ranks[0] > np.median(ranks[1:]))
