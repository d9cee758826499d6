"""A thousand classes, with names that are long, of any script, and hold line breaks, escapes and markup."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from imagesets import encoded, images_of, write_parquet
from rich.cells import cell_len
from sweeping import mlflow_runs, run_search
from torch import nn

from ltsd.data.longtail import class_groups, long_tail_counts
from ltsd.evaluation.evaluate import Correctness
from ltsd.evaluation.exam import ExamResult
from ltsd.evaluation.gradient_masking import Signs
from ltsd.evaluation.medium import IMAGES
from ltsd.evaluation.table import WORST, class_table
from ltsd.pictures import attack_grid, class_bars

SOUND = Signs(images=500, still=0.0, unbounded=0.0, chance=0.1)
ODD = (
    "a name of seventy characters, as biologists and those who sell things like {}",
    "動物の種類のとても長い名前です、最後まで読んでください、第{}号",
    "line\nbreak\tand tab, <b>bold</b>, [red]red[/red], | and `code`, number {}",
    "$x_{}$ costs $\\frac{{1}}{{2}}$ and 50% more",
    "\x1b[31mred\x1b[0m \u202eevil {}",
    "👩‍💻🦁 {}",
)


def names_of(count: int) -> list[str]:
    return [ODD[c % len(ODD)].format(f"{c:04d}") for c in range(count)]


def exam_of(recalls: list[int], images: int) -> ExamResult:
    """An exam in which of the images of class c that many are right under every attack."""
    labels = torch.arange(len(recalls)).repeat_interleave(images)
    right = torch.cat([torch.arange(images) < recall for recall in recalls])
    one = Correctness(right, labels, len(recalls))
    correctness = dict.fromkeys(("clean", "fgsm", "pgd20"), one)
    return ExamResult.of(
        correctness, SOUND, class_groups(range(len(recalls), 0, -1)), "none", broken="", left=(), medium=IMAGES
    )


@pytest.mark.parametrize("count", [100, 1203])
def test_the_table_of_an_exam_has_lines_of_one_width_and_of_many_classes_the_worst(count: int) -> None:
    worst = count - 2
    result = exam_of([0 if c == worst else 1 + c % 3 for c in range(count)], images=3)
    table = class_table(result, list(range(count, 0, -1)), names_of(count)).splitlines()
    assert table.pop() == f"{3 * count} test images; accuracies in percent, means over classes"
    if count > 100:
        assert table.pop(0) == "the 10 worst of 1,203 classes under PGD-20; --json FILE has all of them"
        assert f"{worst:04d}" in table[1]
        assert table[1 + WORST].split() == ["classes", "at", "0.0", "1", "1", "1"]
    assert [line.split()[0] for line in table[-4:]] == ["head", "medium", "tail", "balanced"]
    assert len(table) == 1 + (count if count <= 100 else WORST + 1) + 4
    assert {cell_len(line) for line in table} == {81}


@pytest.mark.parametrize("count", [12, 100, 1203])
def test_pictures_stay_in_bounds_and_every_name_can_be_drawn(count: int, tmp_path: Path) -> None:
    names, counts = names_of(count), list(range(count, 0, -1))
    bars = class_bars({"clean": [0.5] * count, "robust": [0.25] * count}, counts, names, class_groups(counts))
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, count))
    grid = attack_grid(model, torch.rand(10, 3, 2, 2), torch.arange(10), names, eps=0.1, step_size=0.05, steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in (bars, grid):
            figure.savefig(tmp_path / "one.png")
            inches = figure.get_size_inches()
            assert inches.max() <= 12
            for axes in figure.axes:
                for text in (*axes.get_xticklabels(), *axes.texts, axes.title):
                    box = text.get_window_extent()
                    assert box.x0 >= 0, text
                    assert box.x1 <= figure.bbox.width, text


def test_a_step_of_a_picture_is_the_mean_of_its_classes() -> None:
    recalls = torch.rand(1203).tolist()
    (steps,) = class_bars({"clean": recalls}, list(range(1203, 0, -1)), names_of(1203), {}).axes[0].patches[:1]
    values, edges, _ = steps.get_data()  # type: ignore[attr-defined]
    assert len(values) == 60
    for value, left, right in zip(values, edges[:-1], edges[1:], strict=True):
        part = recalls[int(left + 0.5) : int(right + 0.5)]
        assert value == pytest.approx(sum(part) / len(part))


@pytest.mark.slow
def test_a_sweep_over_them_by_a_relative_path_prints_short_lines_and_mlflow_has_a_summary(tmp_path: Path) -> None:
    labels = list(range(120)) * 6
    images = [encoded(image) for image in images_of(len(labels), size=8)]
    write_parquet(tmp_path / "many" / "train.parquet", images, labels, names_of(120))
    flags = ["--trials", "0", "--references", "at", "--epochs", "1", "--final-seeds", "1", "--reference-attack", "none"]
    data = ["--data", "many", "--data.imbalance-ratio", "2", "--data.val-per-class", "1", "--data.n-max", "4"]
    model = ["--model.name", "small-cnn", "--model.width", "8", "--attack.steps", "1"]
    done = run_search(tmp_path, "--name", "many", *flags, *data, *model)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if " data: " not in line]
    assert max(map(len, said)) < 400
    (run,) = (run for run in mlflow_runs(tmp_path, "many") if run.data.tags["ltsd.kind"] == "final")
    (data_set,) = (one.dataset for one in run.inputs.dataset_inputs)
    profile = json.loads(data_set.profile)
    drawn = sum(long_tail_counts(4, 2, 120, "exponential"))
    assert (profile["classes"], profile["images"]) == (120, drawn)
    assert len(data_set.profile) < 4000
