"""The pictures of a job, drawn by the worker that has its model: curves, classes, attacked images.

The worker draws them because the driver of many trials has no time to. They are files in the sweep's folder, and
artifacts in MLflow.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ltsd import pictures
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.files import publishing
from ltsd.runs import Run
from ltsd.tasks import TASKS
from sweeps.journal.jobs import Job


def keep_pictures(job: Job, run: Run, val: Split, per_class: Mapping[str, Sequence[float]]) -> None:
    """Draw the pictures of a finished job.

    Args:
        run: the finished run.
        job: the job of the run.
        val: source of the attacked images.
        per_class: the last measured scores of classes by attack; may be empty.
    """
    history, names, task = run.state.history, run.class_names, TASKS[job.config.task]
    figures: dict[str, Figure] = {
        "learning_curves": pictures.learning_curves(
            [one.epoch for one in history],
            [one.values for one in history],
            measure=task.measure,
            title=task.measure_title,
        )
    }
    if per_class:
        counts = run.data.class_counts()
        figures["per_class"] = pictures.class_bars(
            per_class,
            counts,
            names,
            class_groups(counts, job.config.data.groups),
            measure=task.class_measure,
            counted=task.counted,
        )
    attack = job.config.attack
    figures["attacked_images"] = task.show_attacked(
        run.state.model.eval(), val, names, eps=attack.eps, step_size=attack.resolved_step_size, steps=20
    )
    job.pictures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with publishing(job.pictures / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
