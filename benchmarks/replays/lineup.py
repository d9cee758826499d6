"""The strategies that are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna.distributions import FloatDistribution

from replays.searches import Search
from sweeps.settings.flags import Settings
from sweeps.settings.groups import OWN, SEARCHED

WEIGHT_DECAY = ("optim.weight_decay", FloatDistribution(5e-4, 1e-2, log=True))
"""As sweeps search it; the wide space begins at a fifth of that."""
TODAY = Search(ranges=(WEIGHT_DECAY,))


@dataclass(frozen=True)
class Strategy:
    """A way to sweep: so many trials, of which so many are confirmed."""

    name: str
    search: Search = TODAY
    trials: int = Settings().trials
    confirm: int = Settings().confirm


def blocks() -> dict[str, list[Strategy]]:
    """All that is compared; today's sweep comes first in each comparison."""
    today = Strategy("today's")
    return {
        "What is proposed": [
            today,
            Strategy("random points", replace(TODAY, proposes="random")),
            *(Strategy(f"TPE after {n} random", replace(TODAY, startup=n)) for n in (6, 16)),
            Strategy("Optuna's Gaussian process after 6", replace(TODAY, proposes="gp", startup=6)),
        ],
        "How much": [
            today,
            *(Strategy(f"{n} trials", trials=n) for n in (12, 16, 32, 48)),
            *(Strategy(f"confirm {n}", confirm=n) for n in (1, 2, 4, 6, 12)),
        ],
        "What is searched": [
            today,
            *(Strategy(told(groups), _searching(groups)) for groups in unions()),
            Strategy("weight decay from a fifth of the default", Search()),
        ],
        "What is looked at": [
            today,
            *(Strategy(f"robust counts {n:g} times", replace(TODAY, first=n)) for n in (1.0, 2.0, 5.0)),
            Strategy("stopped early at 24 and 32", replace(TODAY, rungs=(24, 32))),
            Strategy("stopped early at 32", replace(TODAY, rungs=(32,))),
            Strategy("whole reserve", replace(TODAY, images="reserve")),
        ],
    }


def unions() -> list[tuple[str, ...]]:
    """The method's own knobs with other choices of groups than today's."""
    others = [(), ("balance",), ("optim",), (*SEARCHED, "teacher"), (*SEARCHED, "plugins")]
    return [(*OWN, *groups) for groups in others]


def _searching(groups: tuple[str, ...]) -> Search:
    return replace(TODAY, groups=groups, ranges=TODAY.ranges if "optim" in groups else ())


def told(groups: Sequence[str]) -> str:
    """Groups in words."""
    return " + ".join(["own", *(name for name in groups if name not in OWN)])
