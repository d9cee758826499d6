"""The confirmations of a search: its best trials on further seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial

from ltsd.config import Config
from sweeps.journal.exchange import Exchange
from sweeps.journal.jobs import Job, newest_checkpoint, trial_key
from sweeps.results.confirm import PREFIX


def confirmation_jobs(
    row: str, base: Config, trials: Sequence[FrozenTrial], turn: int, folder: Path, exchange: Exchange
) -> list[Job]:
    """Return one confirmation job for each trial of a row's search, on seed number `turn`.

    Seed number 0 is the trial's own: its jobs only score the last checkpoint of the trial again.
    """
    jobs = []
    for trial in trials:
        config, start = base.override(trial.params), None
        if turn == 0:
            own = Job("trial", trial_key(row, trial.number), config, "train", str(folder), row=row)
            exchange.bring_checkpoint(own)
            start = newest_checkpoint(own)
        seed = base.seed + turn
        key = f"{trial_key(row, trial.number).replace('trial', PREFIX, 1)}-s{seed}"
        of_seed = replace(config, seed=seed)
        jobs.append(Job("confirm", key, of_seed, "train", str(folder), resume=str(start or ""), row=row))
    return jobs
