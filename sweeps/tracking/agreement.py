"""Compare MLflow with the record, run by run and point by point, and bring it in line."""

from mlflow.entities import Run

from sweeps.journal.jobs import Job
from sweeps.journal.record import JobRecord, Record
from sweeps.tracking.points import wanted
from sweeps.tracking.view import PARENT, STATUS, MlflowView


def differences(view: MlflowView, record: Record, model: Job | None = None) -> dict[str, list[str]]:
    """Return how MLflow differs from the record, by job; jobs that agree are left out.

    A job that is not over should not be RUNNING: call this while no sweep runs.

    Args:
        view: of the sweep in MLflow.
        record: of the sweep.
        model: the job whose model should be registered when the sweep is finished, if any.
    """
    by_job: dict[str, list[Run]] = {}
    found: dict[str, list[str]] = {}
    for run in view.runs():
        by_job.setdefault(run.data.tags["ltsd.job"], []).append(run)
    parents = by_job.pop(PARENT, [])
    if [run.info.status == "RUNNING" for run in parents] != [False]:
        states = ", ".join(run.info.status for run in parents) or "none"
        found[PARENT] = [f"MLflow should have one run of it, not RUNNING, and has: {states}"]
    for key in by_job.keys() - record.jobs.keys():
        found[key] = ["MLflow has a run of it, the journal has not"]
    for key, known in record.jobs.items():
        runs = by_job.get(key, [])
        if len(runs) != 1:
            found[key] = [f"MLflow has {len(runs)} runs of it"]
        elif told := _differences_of(view, runs[0], known):
            found[key] = told
    is_finished = "FINISHED" in [run.info.status for run in parents]
    should_be = model is not None and is_finished
    if model is not None and should_be and not any(map(view.has_model, by_job.get(model.key, []))):
        found.setdefault(model.key, []).append(f"MLflow has no version of the model {view.experiment} of it")
    return found


def repair(view: MlflowView, record: Record) -> dict[str, list[str]]:
    """Bring MLflow in line with the record; return what `differences` found before."""
    found = differences(view, record)
    found.pop(PARENT, None)
    runs = view.runs()
    for run in runs:
        key = run.data.tags["ltsd.job"]
        if key != PARENT and (key not in record.jobs or view.points_of(run) - wanted(record.jobs[key])):
            view.delete(run)
    for key in found.keys() & record.jobs.keys():
        view.write_again(record.jobs[key])
    return found


def _differences_of(view: MlflowView, run: Run, known: JobRecord) -> list[str]:
    have, want = view.points_of(run), wanted(known)
    found = [f"MLflow lacks {_shown(point)}" for point in sorted(want - have)]
    found += [f"MLflow has {_shown(point)}, the journal has not" for point in sorted(have - want)]
    if run.info.status != STATUS[known.outcome]:
        found.append(f"MLflow has it {run.info.status}, the journal {known.outcome or 'not over'}")
    params = view.params_of(known.job)
    if run.data.params != params:
        found.append(f"MLflow has the parameters {run.data.params}, the journal {params}")
    return found


def _shown(point: tuple[str, int, float]) -> str:
    return f"{point[0]} of epoch {point[1]} ({point[2]:.6g})"
