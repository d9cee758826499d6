"""What the machine has: how many trials run at a time and on what share of it, checked before Ray starts."""

import os
from dataclasses import dataclass

import torch

from ltsd.errors import UserError
from sweeps.settings import Settings


@dataclass(frozen=True)
class Resources:
    """How many jobs run at a time, each on one processor, and what share of a GPU each gets."""

    concurrency: int
    gpus_per_trial: float


def plan_resources(settings: Settings) -> Resources:
    """Fit the sweep to this machine.

    Raises:
        UserError: more is asked for than there is; what there is is said.
    """
    cpus = len(os.sched_getaffinity(0))
    gpus = torch.cuda.device_count()
    share = settings.gpus_per_trial
    if share is None:
        share = 1.0 if gpus else 0.0
    has = f"this machine has {cpus} processor(s) and {gpus} GPU(s)"
    if share > gpus or (share > 1 and share % 1):
        remedy = "leave the flag out, or give 0 to train on the processors" if not gpus else "give a share up to 1"
        raise UserError(f"--gpus-per-trial {share:g} cannot be met: {has}; {remedy}")
    fits = min(cpus, int(gpus / share + 1e-9)) if share else cpus
    concurrency = fits if settings.concurrency is None else settings.concurrency
    if concurrency > fits:
        raise UserError(f"--concurrency {concurrency} cannot be met: {has}, enough for {fits} trial(s) at a time")
    return Resources(concurrency, share)
