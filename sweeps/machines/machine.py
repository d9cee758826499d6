"""The machine on which a sweep is started: check its resources, and start Ray on it for one sweep."""

import contextlib
import logging
import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import ray
import torch

from ltsd.data import Splits
from ltsd.errors import UserError
from sweeps.journal.exchange import Exchange
from sweeps.machines import environment
from sweeps.settings.flags import AUTO, Settings
from sweeps.worker.node_setup import Shipment

# Workers stay in the driver's working directory, so that a relative path of data means the same to both.
WORKER_ENVIRONMENT = {"env_vars": {"OMP_NUM_THREADS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}}
START_WITHIN_S = 180
LONGEST_REASON = 400
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL, "runtime_env": WORKER_ENVIRONMENT}


class Machines(Protocol):
    """The machines that run jobs, each on one processor, or on one processor per GPU."""

    gpus_per_trial: float
    """The share of a GPU that each job gets, or its number of GPUs."""

    @property
    def shipment(self) -> Shipment | None:
        """The data that jobs bring to a node; None if they bring none."""

    @property
    def scratch(self) -> Path | None:
        """The folder for Ray's temporary files; None for the system's."""

    def start(self, folder: Path, splits: Splits, exchange: Exchange) -> None:
        """Prepare for the jobs of the sweep in a folder.

        Raises:
            UserError: the sweep would fail half-way.
        """

    def stop(self) -> None:
        """Disconnect from Ray, or stop it."""

    def carries(self) -> int:
        """Return how many jobs can run at a time now."""

    @property
    def workers_kept(self) -> int:
        """Return how many idle workers are kept."""

    def processors_per_gpu(self) -> int:
        """Return how many concurrent trials the processors allow for each GPU."""

    def has(self, host: str) -> bool:
        """Return whether a host is still there."""


class OwnMachine:
    """`Machines` with only the machine on which the sweep is started. Ray accepts commands only with its token.

    Raises:
        UserError: the request exceeds the available resources; the message names them.
    """

    shipment: Shipment | None = None
    scratch: Path | None = None

    def __init__(self, settings: Settings) -> None:
        cpus = len(os.sched_getaffinity(0))
        gpus = torch.cuda.device_count()
        share = share_asked(settings, gpus)
        has = f"this machine has {cpus} processor(s) and {gpus} GPU(s)"
        if share > gpus or processors(share) > cpus or (share > 1 and share % 1):
            remedy = "leave the flag out, or give 0 to train on the processors" if not gpus else "give a share up to 1"
            raise UserError(f"--gpus-per-trial {share:g} cannot be met: {has}; {remedy}")
        fits = cpus if settings.gpus_per_trial == AUTO else carried(cpus, gpus, share)
        concurrency = fits if settings.concurrency is None else settings.concurrency
        if concurrency > fits:
            raise UserError(f"--concurrency {concurrency} cannot be met: {has}, enough for {fits} trial(s) at a time")
        self.gpus_per_trial = share
        self._gpus, self._concurrency = gpus, concurrency

    def start(self, folder: Path, splits: Splits, exchange: Exchange) -> None:
        """Start Ray with room for the concurrent jobs and one more, which the dispatcher keeps ready."""
        self.scratch = environment.make_scratch()
        environment.hide(joins=False)
        with starting_ray("Ray does not start on this machine", environment.remedy()):
            place, cpus = str(self.scratch), self._concurrency * processors(self.gpus_per_trial)
            ray.init(
                "local",
                num_cpus=cpus,
                include_dashboard=False,
                _temp_dir=place,
                **QUIET,
            )

    def stop(self) -> None:
        """End Ray's processes and workers, and remove its files."""
        ray.shutdown()
        environment.remove_scratch()

    def carries(self) -> int:
        """See `Machines`."""
        processes = self._concurrency * processors(self.gpus_per_trial)
        return carried(processes, self._gpus, self.gpus_per_trial)

    @property
    def workers_kept(self) -> int:
        """See `Machines`."""
        return self.carries()

    def processors_per_gpu(self) -> int:
        """See `Machines`."""
        return max(1, self._concurrency // self._gpus)

    def has(self, host: str) -> bool:
        """See `Machines`."""
        return True


@contextlib.contextmanager
def starting_ray(failed: str, remedy: str) -> Iterator[None]:
    """Start or join Ray in the body, and explain a failure once; a Ray that hangs ends the process.

    Raises:
        UserError: Ray raised an error.
    """
    signal.alarm(START_WITHIN_S)
    try:
        yield
        logging.getLogger("ray").setLevel(logging.ERROR)
    except (Exception, SystemExit) as error:
        reason = textwrap.shorten(str(error), LONGEST_REASON, placeholder=" …") or type(error).__name__
        raise UserError(f"{failed} ({reason}); {remedy}") from None
    finally:
        signal.alarm(0)


def share_asked(settings: Settings, most: float) -> float:
    """Return the requested share of a GPU, on machines with up to `most` GPUs; 1 before `auto` is measured."""
    share = settings.gpus_per_trial
    return (1.0 if most else 0.0) if share is None or isinstance(share, str) else share


def processors(share: float) -> int:
    """Return how many processors a job with a share of a GPU, or with whole GPUs, uses: one per GPU, at least one."""
    return max(1, int(share))


def carried(cpus: float, gpus: float, share: float) -> int:
    """Return how many jobs with a share of a GPU, or with whole GPUs, fit on a machine. A job cannot use the rest of
    one GPU together with the rest of another.
    """
    if not share:
        return int(cpus)
    return min(int(cpus / processors(share)), int(gpus) * int(1 / share + 1e-9) if share < 1 else int(gpus / share))
