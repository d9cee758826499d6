"""A search of a sweep: its row, the configurations of its runs, and the study that proposes points."""

from dataclasses import dataclass

from ltsd.config import Config
from sweeps.study.searcher import Study


@dataclass(frozen=True)
class Search:
    """The search of a row. `tried` is the configuration of trials and confirmations, `base` that of final runs."""

    base: Config
    tried: Config
    study: Study

    @property
    def row(self) -> str:
        """The row that is tuned; "" is the sweep's own method."""
        return self.study.row
