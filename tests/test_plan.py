"""Which job is next, without Ray: the states of a sweep, and what each event makes of them."""

from pathlib import Path
from typing import Any

import pytest
from dispatching import Driver, sweep_in

from ltsd.config import Config
from ltsd.data import Splits

ONE_TEACHER = {"balance.teacher_gamma": 2.5}
NO_TEACHER = {"method": "at-bsl"}


@pytest.fixture
def opened(storage: Path, small: Config, splits: Splits) -> Any:
    """Opens the sweep with other settings."""

    def of(knobs: dict[str, Any] | None = None, jobs: int = 1, tail: Any = None, **settings: Any) -> Driver:
        return Driver(sweep_in(storage, small, knobs, **settings), splits, jobs, tail)

    return of


RACE = ["confirm-0001-s0", "confirm-0002-s0", "confirm-0000-s0", "confirm-0001-s1", "confirm-0000-s1"]
RACE += ["confirm-0001-s2", "confirm-0000-s2"]
SEARCH = ["trial-0000", "trial-0001", "trial-0002", "trial-0003", *RACE]
ORDERS: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "one search": (
        NO_TEACHER,
        {"trials": 4, "confirm": 2, "final_seeds": 2, "references": "at-bsl,at,mart"},
        [
            *SEARCH,
            *("final-finalist-0001-s0", "final-finalist-0001-s1"),
            *("final-at-s0", "final-mart-s0", "final-at-s1", "final-mart-s1"),
            *("final-at-bsl-s0", "final-at-bsl-s1"),  # not before it is known that the finalist is another one
        ],
    ),
    "tuned rivals": (
        NO_TEACHER,
        {"trials": 4, "confirm": 2, "references": "at-bsl,mart", "compare": "tuned"},
        [
            *(*SEARCH, "final-finalist-0001-s0"),
            *(key.replace("-", "-mart-", 1) for key in SEARCH),
            *("final-tuned-mart-0001-s0", "final-at-bsl-s0", "final-mart-s0"),
        ],
    ),
    "no search": (
        {},
        {"trials": 0, "references": "ltsd,at,ltsd+robustlt", "final_seeds": 2},
        [
            *("teacher 0", "final-ltsd-s0", "final-at-s0", "final-ltsd+robustlt-s0"),
            *("teacher 1", "final-ltsd-s1", "final-at-s1", "final-ltsd+robustlt-s1"),
        ],
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_one_after_another_jobs_come_in_this_order(opened: Any, name: str) -> None:
    knobs, settings, order = ORDERS[name]
    driver = opened(knobs, **settings)
    assert driver.rest() == order
    assert driver.plan.final_runs == len([key for key in order if key.startswith("final")])
    again = opened(knobs, **settings)
    assert (again.rest(), again.plan.final_runs) == ([], 0)


def test_a_sweep_that_is_broken_off_before_every_job_goes_on_with_that_job(opened: Any) -> None:
    knobs, settings, order = ORDERS["one search"]
    for key in order:
        driver = opened(knobs, **settings)
        assert driver.next() == key
        driver.end(key)
        driver.next()
        driver.close()
    assert opened(knobs, **settings).next() == "over"


def test_students_wait_for_their_teacher_and_no_more_are_proposed_than_there_is_room_for(opened: Any) -> None:
    driver = opened(ONE_TEACHER, jobs=2, trials=4, references="at")
    assert [driver.next(), driver.next()] == ["teacher 0", "none"]
    assert driver.studies[0].asked == 2
    driver.end("teacher 0")
    assert [driver.next() for _ in range(3)] == ["trial-0000", "trial-0001", "trial-0002"]


def test_a_student_of_another_teacher_is_not_held_up(opened: Any) -> None:
    driver = opened(jobs=2)
    assert [driver.next(), driver.next()] == ["teacher 0", "teacher 1"]
    driver.end("teacher 1")
    assert [driver.next(), driver.next()] == ["trial-0001", "teacher 2"]
    driver.end("teacher 0")
    assert driver.next() == "trial-0000"


def test_a_teacher_that_fails_fails_the_students_that_wait_and_is_tried_again_for_the_next(opened: Any) -> None:
    driver = opened(ONE_TEACHER, jobs=2, references="ltsd")
    assert [driver.next(), driver.next()] == ["teacher 0", "none"]
    driver.end("teacher 0", "diverges")
    jobs = driver.record.jobs
    for key in ("trial-0000", "trial-0001"):
        assert (jobs[key].outcome, jobs[key].reason) == ("failed", "its teacher failed (it diverged)")
    assert [trial.state.name for trial in driver.studies[0].trials()] == ["FAIL", "FAIL"]
    assert driver.next() == "teacher 0"
    driver.end("teacher 0")
    assert driver.next() == "trial-0002"
    driver.end("trial-0002")
    assert driver.next() == "confirm-0002-s0"


def test_of_references_too_those_whose_teacher_fails_are_struck_and_the_others_run(opened: Any) -> None:
    driver = opened(trials=0, references="ltsd,at,ltsd+robustlt,ltsd+clean-teacher")
    assert driver.next() == "teacher 0"
    driver.end("teacher 0", "fails at once")
    outcomes = {key: known.outcome for key, known in driver.record.jobs.items() if known.job.kind == "final"}
    assert outcomes == {"final-ltsd-s0": "failed", "final-ltsd+robustlt-s0": "failed"}
    assert driver.rest() == ["final-at-s0", "teacher 1", "final-ltsd+clean-teacher-s0"]


def test_no_more_jobs_are_handed_out_than_the_machine_carries_now_and_one_that_is_ready(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=2, trials=9)
    assert [driver.next() for _ in range(4)] == ["trial-0000", "trial-0001", "trial-0002", "none"]
    driver.room.jobs = 3
    assert [driver.next(), driver.next()] == ["trial-0003", "none"]
    driver.room.jobs = 1
    driver.end("trial-0003")
    driver.end("trial-0002")
    assert driver.next() == "none"
    driver.end("trial-0000")
    assert [driver.next(), driver.next()] == ["trial-0004", "none"]


def test_the_race_begins_when_the_last_trial_is_over_and_meanwhile_references_run(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=3, trials=2, references="at-bsl,at")
    assert [driver.next() for _ in range(4)] == ["trial-0000", "trial-0001", "final-at-s0", "none"]
    driver.end("trial-0001")
    assert driver.next() == "none"
    driver.end("trial-0000")
    assert [driver.next(), driver.next()] == ["confirm-0001-s0", "confirm-0000-s0"]


def test_a_turn_of_the_race_begins_when_the_one_before_is_over(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=3, trials=2, references="")
    for key in ("trial-0000", "trial-0001"):
        assert driver.next() == key
        driver.end(key)
    assert [driver.next() for _ in range(3)] == ["confirm-0001-s0", "confirm-0000-s0", "none"]
    driver.end("confirm-0000-s0")
    assert driver.next() == "none"
    driver.end("confirm-0001-s0")
    assert driver.next() == "confirm-0001-s1"


def test_between_two_stages_of_a_search_the_next_search_goes_on(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=2, trials=1, references="mart", compare="tuned")
    assert [driver.next(), driver.next()] == ["trial-0000", "trial-mart-0000"]
    driver.end("trial-0000")
    assert driver.next() == "confirm-0000-s0"
    driver.end("trial-mart-0000")
    assert driver.next() == "confirm-mart-0000-s0"


def test_trials_and_confirmations_that_fail_are_out_of_the_race(opened: Any) -> None:
    driver = opened(NO_TEACHER, trials=4, confirm=2, references="")
    run = driver.rest({"trial-0001": "diverges", "confirm-0002-s0": "fails at once", "confirm-0003-s1": "diverges"})
    race = ["confirm-0002-s0", "confirm-0003-s0", "confirm-0000-s0", "confirm-0003-s1", "confirm-0000-s1"]
    assert run[4:] == [*race, "confirm-0003-s2", "confirm-0000-s2", "final-finalist-0000-s0"]


def test_the_defaults_are_not_run_twice_if_they_are_the_finalist(opened: Any) -> None:
    driver = opened(NO_TEACHER, trials=1, references="at-bsl,at", final_seeds=2)
    assert driver.plan.final_runs == 6
    finals = ["final-finalist-0000-s0", "final-finalist-0000-s1", "final-at-s0", "final-at-s1"]
    assert driver.rest()[-4:] == finals
    assert driver.plan.final_runs == 4


def test_where_every_trial_fails_there_is_no_finalist_and_the_references_run(opened: Any) -> None:
    driver = opened(NO_TEACHER, trials=2, references="at-bsl,at")
    assert driver.rest({"trial-0000": "diverges", "trial-0001": "has no number"})[2:] == [
        "final-at-s0",
        "final-at-bsl-s0",
    ]


def test_an_end_of_the_front_is_run_as_the_finalist_is_with_the_exam_of_a_reference(opened: Any) -> None:
    tail = {0: 0.5, 1: 0.5, 2: 0.99}
    driver = opened(NO_TEACHER, trials=3, references="", final_seeds=2, tail=tail, prefer="robust")
    run = driver.rest()
    assert run[-4:-2] == ["final-finalist-0001-s0", "final-finalist-0001-s1"]
    assert run[-2:] == ["final-best-tail-0002-s0", "final-best-tail-0002-s1"]
    assert [driver.record.jobs[key].job.exam for key in run[-3:-1]] == ["standard", "apgd-ce+t"]


def test_what_failed_is_run_again_by_the_next_process_but_for_trials(opened: Any) -> None:
    settings = {"trials": 3, "confirm": 1, "references": "at-bsl,ltsd"}
    failed = ("trial-0002", "confirm-0001-s1", "final-finalist-0000-s0", "teacher 0")
    first = opened(NO_TEACHER, **settings).rest(dict.fromkeys(failed, "diverges"))
    assert {"trial-0002", "confirm-0001-s1", "final-finalist-0000-s0", "teacher 0"} <= set(first)
    assert opened(NO_TEACHER, **settings).rest() == [
        *("confirm-0001-s1", "final-finalist-0001-s0", "teacher 0", "final-ltsd-s0", "final-at-bsl-s0")
    ]


def test_a_sweep_that_is_resumed_with_more_runs_what_it_lacks(opened: Any) -> None:
    first = opened(NO_TEACHER, trials=2, confirm=1, references="at").rest()
    more = opened(NO_TEACHER, trials=3, confirm=2, references="at,mart", final_seeds=2).rest()
    assert more == [
        *("trial-0002", "confirm-0002-s0", "final-finalist-0001-s1"),
        *("final-mart-s0", "final-at-s1", "final-mart-s1"),
    ]
    assert not set(first) & set(more)


def test_workers_that_nothing_else_is_left_for_attack_shards_of_exams_from_the_last_on(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=3, trials=0, references="at,mart,natural,trades")
    assert [driver.next() for _ in range(3)] == ["final-at-s0", "final-mart-s0", "final-natural-s0"]
    driver.until("final-at-s0", "AutoAttack a")
    driver.end("final-natural-s0")
    assert [driver.next(), driver.next()] == ["final-trades-s0", "none"]
    driver.end("final-trades-s0")
    assert [driver.next(), driver.next()] == ["final-at-s0-d", "none"]
    driver.until("final-mart-s0", "AutoAttack a")
    driver.end("final-at-s0-d")
    assert driver.next() == "final-mart-s0-d", "that exam lacks most"
    driver.end("final-mart-s0-d")
    assert [driver.next(), driver.next()] == ["final-at-s0-c", "none"]
    driver.until("final-at-s0", "AutoAttack b")
    driver.end("final-at-s0-c")
    driver.end("final-mart-s0")
    assert driver.next() == "none", "what is left of the exam is attacked or done"
    driver.end("final-at-s0")
    assert driver.next() == "over"
    kinds = {known.job.kind for known in driver.record.jobs.values()}
    assert kinds == {"final"}, "shards are not on record"


def test_a_shard_holds_up_no_stage_of_a_search_and_follows_all_that_can_start(opened: Any) -> None:
    driver = opened(NO_TEACHER, jobs=3, trials=2, references="at")
    assert [driver.next() for _ in range(3)] == ["trial-0000", "trial-0001", "final-at-s0"]
    driver.until("final-at-s0", "AutoAttack a")
    driver.end("trial-0001")
    assert driver.next() == "final-at-s0-d"
    driver.end("trial-0000")
    assert [driver.next(), driver.next()] == ["confirm-0001-s0", "confirm-0000-s0"]
