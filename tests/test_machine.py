"""Ray as a sweep starts it."""

from pathlib import Path

import pytest

from ltsd.data import Splits
from sweeps.settings.flags import Settings


@pytest.mark.parametrize("concurrency", [1, 2])
def test_ray_has_room_for_as_many_jobs_as_run_at_a_time(concurrency: int, splits: Splits) -> None:
    import sweeps.driver  # sets Ray's environment, which Ray reads when it is imported
    from sweeps.journal.exchange import SharedFolder
    from sweeps.machines.machine import OwnMachine

    assert sweeps.driver
    import ray

    machine = OwnMachine(Settings(concurrency=concurrency, gpus_per_trial=0.0))
    machine.start(Path("runs"), splits, SharedFolder())
    try:
        assert ray.cluster_resources()["CPU"] == concurrency
    finally:
        machine.stop()
