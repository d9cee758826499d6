"""What a user sees of label maps: colours, pictures, and the words of each task."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ltsd.answers import VOID
from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.map_pictures import (
    BASE_COLOURS,
    HIGHLIGHT,
    LEGEND_NAMES,
    VOID_COLOUR,
    class_colours,
    class_grid,
    images_with_rare_classes,
    map_grid,
    palette,
)
from ltsd.models.unet import ChannelsLast
from ltsd.pictures import attack_grid, class_bars, image_grid, learning_curves
from ltsd.runs import open_run
from ltsd.tasks import TASKS, fitting
from sweeps.journal.jobs import Job
from sweeps.worker.figures import keep_pictures

CPU = torch.device("cpu")
ODD = ("$\\nothing{$", "line\nbreak", "\x1b[31mred\x1b[0m", "動物の種類のとても長い名前です、最後まで")


class Bright(nn.Module):
    """Of two classes: a pixel is of class 1 if it is brighter than 0.5, on average over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.sharp = nn.Parameter(torch.tensor(10.0))

    def forward(self, inputs: Tensor) -> Tensor:
        bright = self.sharp * (inputs.mean(1) - 0.5)
        return torch.stack([-bright, bright], -1)


@pytest.fixture(scope="module")
def scenes() -> Splits:
    return load_splits(Config.preset("digits-scenes").data)


def two_images() -> tuple[Tensor, Tensor]:
    """Images 8 x 8: left 0.2, right 0.55; labels 1 in the lower half, with a row of no label."""
    inputs = torch.full((2, 1, 8, 8), 0.2)
    inputs[..., 4:] = 0.55
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, 4:] = 1
    labels[:, 7] = VOID
    return inputs, labels


def bands_of(figure: Figure) -> list[NDArray[np.uint8]]:
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def rgb(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def test_every_class_has_a_colour_of_its_own_and_void_is_grey() -> None:
    for count in (1, 8, 9, 22, 254):
        found = class_colours(count)
        assert found.shape == (count, 3)
        assert len(np.unique(found, axis=0)) == count
        assert [to_hex(colour / 255) for colour in found[:8]] == list(BASE_COLOURS[:count])
        assert rgb(VOID_COLOUR) not in found.tolist()
    assert palette(3)[VOID].tolist() == rgb(VOID_COLOUR)
    assert palette(3)[:3].tolist() == class_colours(3).tolist()


def test_the_grid_paints_labels_and_answers_clean_and_attacked() -> None:
    inputs, labels = two_images()
    figure = map_grid(Bright(), inputs, labels, ["dark", "bright"], eps=0.1, step_size=0.05, steps=5)
    image, label, answer, attacked, fallen = bands_of(figure)
    black, orange, grey = rgb(BASE_COLOURS[0]), rgb(BASE_COLOURS[1]), rgb(VOID_COLOUR)
    for left in (1, 11):  # an image is 8 pixels wide, with one of white on each side
        assert image[2, left].tolist() == [51] * 3
        assert image[2, left + 5].tolist() == [140] * 3
        assert [label[row, left].tolist() for row in (1, 5, 7)] == [black, orange, grey]
        assert [answer[row, left + column].tolist() for row in (1, 5) for column in (0, 5)] == [black, orange] * 2
        # 0.55 is within 0.1 of 0.5: where it is labelled bright it falls; where it is labelled dark it falls farther.
        assert [fallen[row, left + 5].tolist() for row in (1, 5)] == [orange, black]
        assert [fallen[row, left].tolist() for row in (1, 5)] == [black, black]
        assert attacked[5, left + 5].tolist() == [round(255 * 0.45)] * 3
    # Of 56 labelled pixels 16 + 12 are right: dark 16 of 16 + 16 + 12, bright 12 of 12 + 12 + 16.
    expected = 100 * (16 / 44 + 12 / 40) / 2
    assert [text.get_text() for text in figure.axes[2].texts] == [f"mIoU {expected:.0f}%"] * 2


def test_pixels_without_a_finite_answer_are_grey() -> None:
    class Broken(Bright):
        def forward(self, inputs: Tensor) -> Tensor:
            logits = super().forward(inputs).clone()
            logits[:, 0] = torch.nan
            return logits

    figure = map_grid(Broken(), *two_images(), ["dark", "bright"], eps=0.1, step_size=0.05, steps=2)
    answer = bands_of(figure)[2]
    assert answer[0, 1:9].tolist() == [rgb(VOID_COLOUR)] * 8
    assert rgb(VOID_COLOUR) not in answer[1].tolist()


def test_the_legend_names_a_readable_number_of_classes_as_they_are_written(tmp_path: Path) -> None:
    count = 30
    names = [f"{ODD[c % len(ODD)]}{c}" for c in range(count)]
    labels = torch.arange(count, dtype=torch.uint8).repeat(2, 4, 1)
    labels[:, 3] = 5  # the most pixels
    model = nn.Sequential(nn.Conv2d(3, count, 1), ChannelsLast())
    inputs = torch.rand(2, 3, 4, count)
    figure = map_grid(model, inputs, labels, names, eps=0.1, step_size=0.05, steps=1)
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said[-1] == f"… and {count - LEGEND_NAMES} more"
    assert len(said) == LEGEND_NAMES + 1
    assert said[0] == "line break5"
    assert "$\\nothing{$12" in said  # no formula: that one cannot be parsed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "one.png")
    for text in legend.get_texts():
        assert text.get_window_extent().x1 <= figure.bbox.width


def test_the_data_are_shown_by_falling_pixels_with_those_of_the_class_tinted(scenes: Splits) -> None:
    split = scenes.complete
    figure = class_grid(split, scenes.class_names)
    counts = split.class_counts()
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    assert [axes.get_ylabel() for axes in figure.axes] == [f"{scenes.class_names[c]}\n{counts[c]:,}" for c in order]
    per_image = torch.stack([(split.labels[split.rows] == c).sum((1, 2)) for c in range(len(counts))], 1)
    most = torch.tensor(rgb(HIGHLIGHT)).argmax()
    for c, band in zip(order[1:], bands_of(figure)[1:], strict=True):
        shown = [band[:, 34 * column + 1 : 34 * column + 33] for column in range(8)]
        tinted = [image.max(-1) != image.min(-1) for image in shown]
        assert [int(mask.sum()) for mask in tinted] == per_image[:, c].sort(descending=True).values[:8].tolist()
        assert (shown[0][tinted[0]].argmax(-1) == int(most)).all()
        position = int(per_image[:, c].argmax())
        assert torch.equal(torch.from_numpy(tinted[0]), split.labels[split.rows[position]] == c)


def test_rows_of_classes_with_few_images_or_none_stay_white() -> None:
    labels = torch.zeros(3, 4, 4, dtype=torch.uint8)
    labels[1, 0, 0] = 1
    split = Split(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), labels, torch.arange(3), 3)
    bands = bands_of(class_grid(split, ["a", "b", "c"]))
    assert (bands[0][:, 18:] == 255).all()
    assert not (bands[0][:, :18] == 255).all()
    assert (bands[1][:, 6:] == 255).all()
    assert (bands[2] == 255).all()


def test_attacked_images_begin_with_the_rarest_classes(scenes: Splits) -> None:
    split = scenes.val
    chosen = images_with_rare_classes(split)
    assert len(set(chosen.tolist())) == len(chosen) == 6
    counts = split.class_counts()
    rarest = sorted(range(len(counts)), key=lambda c: counts[c])
    _, labels = split.take(chosen)
    for position, c in zip(range(2), rarest, strict=False):
        assert (labels[position] == c).any()
    few = split.select(split.rows[:3])
    assert images_with_rare_classes(few).sort().values.tolist() == [0, 1, 2]


def test_each_task_draws_its_own(scenes: Splits, splits: Splits, trained: nn.Module) -> None:
    attack = {"eps": 0.05, "step_size": 0.02, "steps": 2}
    for data, name in ((splits, "classification"), (scenes, "segmentation")):
        assert fitting(data.complete) == name
    inputs, labels = splits.val.first_of_each_class(10)
    pairs = [
        (
            TASKS["classification"].show_attacked(trained, splits.val, splits.class_names, **attack),
            attack_grid(trained, inputs, labels, splits.class_names, **attack),
        ),
        (
            TASKS["classification"].show_data(splits.complete, splits.class_names),
            image_grid(splits.complete, splits.class_names),
        ),
        (
            TASKS["segmentation"].show_data(scenes.val, scenes.class_names),
            class_grid(scenes.val, scenes.class_names),
        ),
    ]
    for found, expected in pairs:
        assert all(np.array_equal(*both) for both in zip(bands_of(found), bands_of(expected), strict=True))


def test_bars_and_curves_have_the_words_of_the_task() -> None:
    task = TASKS["segmentation"]
    bars = class_bars(
        {"clean": [0.5, 0.2]},
        [9, 4],
        ["a", "b"],
        class_groups([9, 4]),
        measure=task.class_measure,
        counted=task.counted,
    )
    assert (bars.axes[0].get_ylabel(), bars.axes[0].get_xlabel()) == ("IoU", "class and its training pixels")
    values = [{"train/robust_acc": 0.3, "val/clean_miou": 0.4, "val/robust_miou": 0.2, "val/pgd_miou": 0.3}] * 2
    curves = learning_curves([1, 2], values, measure=task.measure, title=task.measure_title).axes[1]
    assert curves.get_title() == "mean IoU; in training recall (robust: PGD)"
    assert [line.get_label() for line in curves.lines] == ["train/robust_acc", "val/clean_miou", "val/robust_miou"]


def test_a_job_keeps_the_pictures_of_its_task(scenes: Splits, tmp_path: Path) -> None:
    changed = {"method": "at", "epochs": 1, "attack.steps": 1, "evaluate.every": 1, "evaluate.steps": 1}
    config = Config.preset("digits-scenes").override(changed)
    train, val = (split.select(split.rows[:32]) for split in (scenes.train, scenes.val))
    run = open_run(config, scenes, train, val, CPU, teacher=None, resume=None)
    (metrics,) = run.epochs()
    job = Job("trial", "trial-0000", config, "train", str(tmp_path))
    keep_pictures(job, run, val, metrics.per_class)
    assert {path.name for path in job.pictures.iterdir()} == {
        "learning_curves.png",
        "per_class.png",
        "attacked_images.png",
    }
    attack = {"eps": config.attack.eps, "step_size": config.attack.resolved_step_size, "steps": 20}
    inputs, labels = val.take(images_with_rare_classes(val))
    map_grid(run.state.model, inputs, labels, scenes.class_names, **attack).savefig(tmp_path / "expected.png")
    assert same_picture(job.pictures / "attacked_images.png", tmp_path / "expected.png")


def same_picture(one: Path, other: Path) -> bool:
    with Image.open(one) as first, Image.open(other) as second:
        return np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.parametrize(("module", "loaded"), [("ltsd.runs", "matplotlib"), ("ltsd.__main__", "torchvision")])
def test_who_draws_nothing_does_not_load_what_draws(module: str, loaded: str) -> None:
    program = f"import {module}, sys; sys.exit('{loaded}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
