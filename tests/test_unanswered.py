"""What a Ray worker reports of a finished network that answers NaN or infinity: the job failed, and why."""

from pathlib import Path

import pytest
import torch
from ray import tune

from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.runs import open_run
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import Job, Report
from sweeps.machines.machine import OwnMachine
from sweeps.settings.flags import Settings
from sweeps.study.scheduler import RungScheduler
from sweeps.worker.trial import run_job


def finished(job: Job, splits: Splits) -> Job:
    """The job with a checkpoint of its last epoch, all finite, whose logits are too large for their type."""
    data = splits.train if job.part == "train" else splits.complete
    run = open_run(job.config, splits, data, None, torch.device("cpu"), teacher=None, resume=None)
    for _ in run.epochs():
        pass
    run.save(job.checkpoint)
    content = load_checkpoint(job.checkpoint)
    for weights in (content["student"], content["average"]):
        for name in ("head.weight", "head.bias"):
            weights[name] = weights[name] / weights[name].abs().max() * 3e38
    save_checkpoint(job.checkpoint, content)
    return job


@pytest.mark.slow
def test_a_network_that_answers_infinity_fails_its_confirmation_and_its_exam(
    tmp_path: Path, small: Config, splits: Splits
) -> None:
    config = small.override({"method": "at"})
    jobs = [
        finished(Job("confirm", "confirm-0000-s0", config, "train", str(tmp_path)), splits),
        finished(Job("final", "final-at-s0", config, "complete", str(tmp_path), exam="none"), splits),
    ]
    told = list[Report]()

    def reported(_: str, report: Report) -> bool:
        told.append(report)
        return not report.failure

    machine = OwnMachine(Settings(concurrency=1))
    machine.start(tmp_path, splits, SharedFolder())
    try:
        tune.Tuner(
            tune.with_resources(lambda one: run_job(one["job"], 0, None, SharedFolder()), {"cpu": 1}),
            param_space={"job": tune.grid_search([job.params() for job in jobs])},
            tune_config=tune.TuneConfig(scheduler=RungScheduler(reported, lambda _: True)),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "ray"), verbose=0),
        ).fit()
    finally:
        machine.stop()
    confirmed, examined = (report.failure for report in told if report.failure)
    assert "answers NaN or infinity on" in confirmed
    assert "of 150 images that it is validated on; lower optim.lr" in confirmed
    assert "answers NaN or infinity on 40 of 40 test images; lower optim.lr" in examined
    assert not any(report.values for report in told)
    assert not list(tmp_path.glob("pictures/*"))
