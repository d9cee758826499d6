"""The training run of a job."""

from pathlib import Path

import torch

from ltsd.data import Splits
from ltsd.runs import Run, load_model, open_run
from ltsd.teacher import teacher_gamma, teacher_split
from sweeps.journal.jobs import Job, newest_checkpoint


def run_of(job: Job, splits: Splits, device: torch.device) -> Run:
    """Open the run of a job, from its last checkpoint if there is one; its teacher is there.

    Raises:
        UserError: as `open_run`.
    """
    data = splits.train if job.part == "train" else splits.complete
    val = splits.val if job.part == "train" else None
    teacher = None
    if job.kind == "teacher":
        data = teacher_split(job.config, data, teacher_gamma(job.config, splits.imbalance_ratio))
    elif job.teacher:
        teacher, _ = load_model(Path(job.teacher), device)
    return open_run(job.config, splits, data, val, device, teacher=teacher, resume=newest_checkpoint(job))
