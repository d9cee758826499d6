"""One search of a sweep: the row that it is made for, what its runs are made from, and the study that proposes."""

from dataclasses import dataclass

from ltsd.config import Config
from sweeps.study.searcher import Study


@dataclass(frozen=True)
class Search:
    """The search of a row. Trials and confirmations are made from `tried`, final runs from `base`."""

    base: Config
    tried: Config
    study: Study

    @property
    def row(self) -> str:
        """The row of the comparison that is tuned; "" the sweep's own method."""
        return self.study.row
