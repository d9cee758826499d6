"""The jobs of one search in turn: trials as Optuna proposes them, then the race of the best, then its final runs."""

from collections.abc import Callable, Collection, Sequence
from functools import partial

from optuna.trial import TrialState

from ltsd.config import Config
from sweeps.dispatch.confirmations import confirmation_jobs
from sweeps.dispatch.final_runs import jobs_of_trial
from sweeps.dispatch.teaching import Teaching
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, trial_key
from sweeps.journal.record import Record
from sweeps.machines.machine import Machines
from sweeps.results import confirm, finals
from sweeps.results.confirm import Choice
from sweeps.settings.sweep import Sweep
from sweeps.study.search import Search
from sweeps.study.searcher import Proposal


class Stages:
    """The jobs that a search still needs.

    `untuned` are final runs of the same row with its defaults. If the finalist turns out to be the defaults, they are
    not run twice; otherwise they join `references` when the finalist is known. `final_runs` is the number of final runs
    that this process has to make for the search, as far as known.
    """

    def __init__(
        self,
        sweep: Sweep,
        search: Search,
        record: Record,
        teaching: Teaching,
        *,
        untuned: Sequence[Job],
        references: list[Job],
        machines: Machines,
        exchange: Exchange,
    ) -> None:
        self._sweep, self._settings, self._folder = sweep, sweep.settings, sweep.settings.folder.absolute()
        self._search, self._study, self._record, self._teaching = search, search.study, record, teaching
        self._untuned, self._references = untuned, references
        self._machines, self._exchange = machines, exchange
        turns = [partial(self._confirmations, turn) for turn in range(confirm.SEEDS)]
        self._left: list[Callable[[], list[Job]]] = [*turns, self._finalists]
        self.waiting = [self._trial_job(proposal) for proposal in self._study.orphans()]
        self.final_runs = len(untuned) + sweep.settings.final_seeds

    @property
    def row(self) -> str:
        """Name of the row whose search this is; "" for the searched method."""
        return self._search.row

    @property
    def is_searching(self) -> bool:
        """Whether trials remain to be proposed."""
        return self._study.asked < self._settings.trials

    def next(self, running: Collection[Job]) -> Job | None:
        """Return the next job in addition to the running ones; None if there is none now, or no more."""
        while True:
            job = self._teaching.take(self.waiting, running)
            if job is not None:
                return job
            if self.is_searching and len(self.waiting) < self._machines.carries():
                self.waiting.append(self._trial_job(self._study.ask()))
            elif self._left and self._stage_is_over(running):
                self.waiting += self._left.pop(0)()
            else:
                return None

    def _stage_is_over(self, running: Collection[Job]) -> bool:
        own = (job for job in running if job.row == self._search.row)
        return not self.waiting and all(job.kind in ("teacher", "final", "shard") for job in own)

    def _confirmations(self, turn: int) -> list[Job]:
        search = self._search
        found = confirm.scores(self._record, self._study.objectives, search.row)
        complete = self._study.trials(TrialState.COMPLETE)
        settings = self._settings
        trials = confirm.contenders(complete, found, settings.confirm, turn, settings.preference)
        jobs = confirmation_jobs(search.row, search.tried, trials, turn, self._folder, self._exchange)
        return self._missing(jobs)

    def _finalists(self) -> list[Job]:
        choice = Choice.of(self._record, self._study.objectives, self._settings.preference, self._search.row)
        wanted = [
            job
            for row, trial in finals.chosen_rows(choice).items()
            for job in jobs_of_trial(row, trial, self._config_of(trial), self._sweep)
        ]
        wanted = [self._teaching.taught(job) for job in wanted]
        untuned = [job for job in self._untuned if job.config not in [job.config for job in wanted]]
        self._references += untuned
        jobs = [job for job in wanted if not self._record.is_done(job)]
        self.final_runs = len(untuned) + len(jobs)
        return jobs

    def _config_of(self, trial: int) -> Config:
        return self._search.base.override(self._study.trials()[trial].params)

    def _missing(self, jobs: Sequence[Job]) -> list[Job]:
        return [self._teaching.taught(job) for job in jobs if not self._record.is_done(job)]

    def _trial_job(self, proposal: Proposal) -> Job:
        row, config = self._search.row, self._search.tried.override(proposal.params)
        key = trial_key(row, proposal.number)
        return self._teaching.taught(Job("trial", key, config, "train", str(self._folder), row=row))
