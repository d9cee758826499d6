"""Ray as a sweep starts it."""

from pathlib import Path

import pytest
import ray

from ltsd.data import Splits
from sweeps.journal.exchange import SharedFolder
from sweeps.machines.machine import OwnMachine, carried
from sweeps.settings.flags import Settings


@pytest.mark.parametrize("concurrency", [1, 2])
def test_ray_has_room_for_as_many_jobs_as_run_at_a_time(concurrency: int, splits: Splits) -> None:
    machine = OwnMachine(Settings(concurrency=concurrency, gpus_per_trial=0.0))
    machine.start(Path("runs"), splits, SharedFolder())
    try:
        assert ray.cluster_resources()["CPU"] == concurrency
    finally:
        machine.stop()


@pytest.mark.parametrize(
    ("cpus", "gpus", "share", "jobs"),
    [
        (4, 0, 0.0, 4),
        (8, 2, 0.25, 8),
        (16, 2, 0.4, 4),
        (16, 1, 1 / 3, 3),
        (16, 4, 1.0, 4),
        (16, 4, 2.0, 2),
        (3, 1, 0.1, 3),
        (3, 4, 2.0, 1),
    ],
)
def test_a_share_is_of_one_gpu_what_is_left_of_two_makes_no_third(
    cpus: float, gpus: float, share: float, jobs: int
) -> None:
    assert carried(cpus, gpus, share) == jobs
