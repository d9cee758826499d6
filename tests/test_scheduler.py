"""What Ray runs next, asked at every event of a sweep of thousands of jobs."""

from ray.tune.experiment import Trial

from sweeps.study.scheduler import RungScheduler


def test_what_waited_longest_is_next_and_a_job_whose_worker_died_waits_anew() -> None:
    scheduler = RungScheduler(lambda key, report: True)
    first, second, third = jobs = [Trial("job", stub=True) for _ in range(3)]
    for job in jobs:
        scheduler.on_trial_add(None, job)
    first.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(None) is second
    first.set_status(Trial.PENDING)
    scheduler.on_trial_add(None, first)
    assert scheduler.choose_trial_to_run(None) is second
    second.set_status(Trial.TERMINATED)
    third.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(None) is first
    first.set_status(Trial.RUNNING)
    assert scheduler.choose_trial_to_run(None) is None
