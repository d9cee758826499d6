"""Points that are better in one number and worse in another: which dominate which."""

from collections.abc import Sequence

import numpy as np
from optuna.study._multi_objective import _fast_non_domination_rank

from sweeps.settings.objectives import Scores


def front_ranks(scores: Sequence[Scores]) -> list[int]:
    """Non-dominated sorting (Deb et al. 2002): 0 for the scores that none dominates, 1 for those that only these
    dominate, and so on. Higher is better; of one objective it is the order of the distinct scores.
    """
    if not scores:
        return []
    found: list[int] = _fast_non_domination_rank(-np.asarray(scores, dtype=float)).tolist()
    return found


def is_in_worse_half(own: Scores, others: Sequence[Scores]) -> bool:
    """Whether scores lie on a later front than half of the others do; of one objective, below their median."""
    ranks = front_ranks([own, *others])
    return bool(ranks[0] > np.median(ranks[1:]))
