"""The strategies that are compared."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from replays.choices import Choice
from replays.searches import Ended, Search
from replays.world import NARROW
from sweeps.findings.confirm import SEEDS
from sweeps.settings.groups import GROUPS, OWN

TRIALS = 16
TODAY = Search()
CONFIRM_1 = Choice()
SHARED = ("balance", "optim", "teacher", "plugins")


@dataclass(frozen=True)
class Strategy:
    """A way to sweep. It has the seconds that `runs` complete runs take, or, where `trials` are given, so many trials
    whatever they cost.
    """

    name: str
    search: Search
    choice: Choice = CONFIRM_1
    runs: int = TRIALS + 2 * (SEEDS - 1)
    trials: int | None = None

    def share(self, ended: Sequence[Ended], seconds: float, own: float) -> int | None:
        """How many of the trials it makes; None where there are too few to say.

        Args:
            seconds: of a complete run where budgets are reckoned; `own`: where it searches.
        """
        if self.trials is not None:
            return self.trials if len(ended) >= self.trials else None
        left = self.runs * seconds - (self.choice.confirm + 1) * (SEEDS - 1) * own
        spent = [*itertools.accumulate(one.seconds for one in ended)]
        return next((i for i, of in enumerate(spent, 1) if of + own / 2 > left), None)


def blocks() -> dict[str, list[Strategy]]:
    """All that is compared, the baseline of each comparison first."""
    table = Search("table", groups=GROUPS)
    return {
        "Random points of the table": decisions(table),
        "TPE, the default groups": [*decisions(TODAY), *proposals(TODAY)],
        "Groups, in the same seconds": [Strategy(told(groups), Search(groups=groups)) for groups in unions()],
        "Groups, in the same number of trials": [
            Strategy(told(groups), Search(groups=groups), trials=TRIALS) for groups in unions()
        ],
        "All groups": [
            Strategy("today's, 16 trials", Search(groups=GROUPS), trials=16),
            Strategy("today's, 24 trials", Search(groups=GROUPS), trials=24),
            Strategy("today's, 32 trials", Search(groups=GROUPS), trials=32),
            *(Strategy(f"{n} trials, confirm 3", Search(groups=GROUPS), Choice(3, "all"), trials=n) for n in (16, 32)),
            Strategy("random, 16 trials", Search("random", groups=GROUPS), trials=16),
            Strategy("TPE, 10 random first, 16 trials", Search(startup=10, groups=GROUPS), trials=16),
            Strategy("no rungs, 16 trials", Search(groups=GROUPS, rungs="none"), trials=16),
        ],
    }


def decisions(base: Search) -> list[Strategy]:
    """Everything but what is proposed."""
    return [
        Strategy("today's: median at 24 and 32, confirm 1", base),
        *(
            Strategy(f"rungs: {name}", replace(base, rungs=rungs))
            for name, rungs in (
                ("none", "none"),
                ("median at 8, 16, 24, 32", "median early"),
                ("top half at 24, 32", "half late"),
                ("top half at 8, 16, 32", "half"),
                ("top third at 4, 12", "third"),
                ("better half of the fronts at 24, 32", "dominated"),
            )
        ),
        *(Strategy(f"confirm {n}", base, Choice(n)) for n in (2, 3, 4)),
        *(Strategy(f"confirm {n}, error of all confirmed", base, Choice(n, "all")) for n in (1, 2, 3)),
        *(Strategy(f"confirm {n}, no error", base, Choice(n, "none")) for n in (1, 3)),
        *(Strategy(f"racing for the runs of confirm {n}", base, Choice(n, "all", racing=True)) for n in (2, 3)),
        Strategy("whole reserve", replace(base, images="reserve")),
        Strategy("objective: mean of all and tail", replace(base, objective="mean")),
        Strategy("24 trials", base, runs=28),
        Strategy("32 trials", base, runs=36),
        Strategy("32 trials, confirm 3", base, Choice(3), runs=40),
    ]


def proposals(base: Search) -> list[Strategy]:
    """What is proposed."""
    return [
        Strategy("random", replace(base, proposes="random")),
        *(Strategy(f"TPE, {n} random first", replace(base, startup=n)) for n in (10, 16)),
        *(
            Strategy(
                f"TPE for all and tail, {n} random first",
                replace(base, proposes="pareto", rungs="dominated", startup=n, objective="mean"),
            )
            for n in (6, 10, 16)
        ),
        Strategy("TPE for all and tail, chosen by all", replace(base, proposes="pareto", rungs="dominated")),
        Strategy("Optuna's Gaussian process", replace(base, proposes="gp")),
    ]


def unions() -> list[tuple[str, ...]]:
    """The default groups; the method's own knobs with every choice of the others that seems sensible."""
    others = [(), ("optim",), ("balance", "optim"), ("balance", "teacher"), ("balance", "plugins")]
    others += [("balance", "optim", "teacher"), ("balance", "optim", "plugins"), SHARED]
    return [NARROW, *((*OWN, *groups) for groups in others)]


def told(groups: Sequence[str]) -> str:
    """Groups in words; the learning rate is in every one."""
    own = ["own"] if set(OWN) <= set(groups) else []
    return " + ".join([*own, *(name for name in groups if name not in OWN)])
