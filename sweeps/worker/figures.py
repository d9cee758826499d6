"""The pictures of a job, drawn by the worker that has its model: curves, classes, attacked images.

They are kept beside its checkpoint and given to MLflow: the driver of many trials has no time to draw.
"""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ltsd import pictures
from ltsd.data.batches import Split
from ltsd.files import publishing
from ltsd.runs import Run
from sweeps.journal.jobs import Job

GRID_IMAGES = 10


def keep_pictures(job: Job, run: Run, val: Split, per_class: Mapping[str, Sequence[float]]) -> None:
    """Draw the pictures of a finished job.

    Args:
        run: the finished run.
        job: whose pictures they are.
        val: source of the attacked images, one of each class.
        per_class: the last measured recalls by attack; may be empty.
    """
    history, names = run.state.history, run.class_names
    figures: dict[str, Figure] = {
        "learning_curves": pictures.learning_curves([one.epoch for one in history], [one.values for one in history])
    }
    if per_class:
        figures["per_class"] = pictures.class_bars(per_class, run.data.class_counts(), names)
    attack = job.config.attack
    inputs, labels = val.first_of_each_class(GRID_IMAGES)
    model = run.state.model.eval()
    figures["attacked_images"] = pictures.attack_grid(
        model, inputs, labels, names, eps=attack.eps, step_size=attack.resolved_step_size, steps=20
    )
    job.pictures.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with publishing(job.pictures / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
