"""A sweep that is interrupted goes on where it was; one that is killed too, see tests/faults."""

import signal
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState
from sweeping import SMALL, mlflow_runs, run_search, run_until


def test_goes_on_after_an_interruption_without_running_finished_trials_again(tmp_path: Path) -> None:
    code, said = run_until(tmp_path, "trial-0000 done", signal.SIGINT, "--name", "night", *SMALL)
    assert code == 130, said
    assert "python sweeps/search.py --name night --resume" in said
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(tmp_path, "night")}
    done = run_search(tmp_path, "--name", "night", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial-0000 starts" not in done.stdout
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/runs/night/study.db")
    assert len(study.trials) == 3
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    runs = mlflow_runs(tmp_path, "night")
    assert Counter(run.data.tags["ltsd.job"] for run in runs).most_common(1)[0][1] == 1
    assert {run.info.status for run in runs} == {"FINISHED"}
