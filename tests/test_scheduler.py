"""What Ray runs next, asked at every event of a sweep of thousands of jobs."""

from ray.tune.experiment import Trial

from sweeps.study.scheduler import RungScheduler


def test_what_waited_longest_is_next_and_a_job_whose_worker_died_waits_anew() -> None:
    scheduler = RungScheduler(lambda key, report: True, lambda key: True)
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


class Controller:
    """The part of Ray's that a scheduler speaks to."""

    def __init__(self) -> None:
        self.stopped: list[Trial] = []

    def stop_trial(self, trial: Trial) -> None:
        self.stopped.append(trial)


def test_a_job_that_comes_back_has_lost_its_worker_and_is_stopped_if_it_gets_no_other() -> None:
    answers, asked, controller = iter([True, False]), list[str](), Controller()

    def died(key: str) -> bool:
        asked.append(key)
        return next(answers)

    scheduler = RungScheduler(lambda key, report: True, died)
    one, other = Trial("job", stub=True), Trial("job", stub=True)
    for job, stopped in ((one, []), (other, []), (one, []), (one, [one])):
        scheduler.on_trial_add(controller, job)
        assert controller.stopped == stopped
    assert asked == [one.trial_id] * 2
