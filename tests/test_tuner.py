"""Ray as a sweep starts it."""

import pytest


@pytest.mark.parametrize("concurrency", [1, 2])
def test_ray_has_room_for_as_many_jobs_as_run_at_a_time(concurrency: int) -> None:
    import sweeps.driver  # sets Ray's environment, which Ray reads when it is imported
    from sweeps.machine import Resources
    from sweeps.tuner import start_ray, stop_ray

    assert sweeps.driver
    import ray

    start_ray(Resources(concurrency, 0.0))
    try:
        assert ray.cluster_resources()["CPU"] == concurrency
    finally:
        stop_ray()
