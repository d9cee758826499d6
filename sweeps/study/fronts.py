"""Which of several points dominate which, if each is better in one number and worse in another."""

from collections.abc import Sequence

import numpy as np
from optuna.study._multi_objective import _fast_non_domination_rank

from sweeps.settings.objectives import Scores


def front_ranks(scores: Sequence[Scores]) -> list[int]:
    """Sort scores into fronts (Deb et al. 2002): 0 for those that none dominates, 1 for those that only these dominate,
    and so on. Higher is better; with one objective this ranks the distinct scores.
    """
    if not scores:
        return []
    found: list[int] = _fast_non_domination_rank(-np.asarray(scores, dtype=float)).tolist()
    return found


def is_in_worse_half(own: Scores, others: Sequence[Scores]) -> bool:
    """Return whether scores are on a later front than half of the others; with one objective, below their median."""
    ranks = front_ranks([own, *others])
    return bool(ranks[0] > np.median(ranks[1:]))
