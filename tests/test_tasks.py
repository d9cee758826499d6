"""What every task promises to the training loop, and what is its own."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from bits import same_bits
from PIL import Image
from soundsets import write_tones
from textsets import write_texts
from torch import Tensor, nn

from ltsd.answers import VOID
from ltsd.config import ENCODER, LIBRARIES, Config
from ltsd.data import Splits, load_splits
from ltsd.data.augment import augmented
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.data.scenes import INK, digits_scenes
from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.methods import METHODS
from ltsd.models import FEATURES, build_model
from ltsd.runs import Run, open_run
from ltsd.state import TrainState
from ltsd.step import Batch, batch_of, budget_of, context_of, train_step
from ltsd.tasks import TASKS, check_task, segmentation
from ltsd.teacher import teacher_config, teacher_gamma, teacher_split

CPU = torch.device("cpu")
SOURCES = {"classification": "digits", "segmentation": "digits-scenes", "detection": "digits-scenes"}
"""Those that are embedded; clips of sound and texts are written for the tests."""
SMALL: Mapping[str, Value] = {
    "epochs": 2,
    "attack.steps": 2,
    "optim.batch_size": 8,
    "optim.ema_decay": 0.9,
    "teacher.epochs": 1,
    "evaluate.every": 1,
    "evaluate.steps": 2,
    "model.width": 8,
    "data.augmentation": "crop-flip",
}
OWN: Mapping[str, Mapping[str, Value]] = {
    "speech": {"data.augmentation": "shift-gain-noise", "data.clip_seconds": 0.25, "attack.eps": 0.02},
    "text": {"data.augmentation": "word-dropout", "data.tokens": 12, "attack.eps": 0.2},
}
FITTING = [(task, method) for task in TASKS for method in METHODS if TASKS[task].unit == "image" or method != "reat"]


def few(split: Split, count: int) -> Split:
    """Images of a split, evenly spaced."""
    return split.select(split.rows[torch.linspace(0, len(split) - 1, count).long()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Config, Splits]]:
    """A small configuration and a few images of every task."""
    found = {}
    sounds = write_tones(tmp_path_factory.mktemp("sounds"), [30, 24, 20, 18])
    texts = write_texts(tmp_path_factory.mktemp("texts") / "train.parquet", (40, 32, 26, 22))
    for name, source in (SOURCES | {"speech": str(sounds), "text": str(texts)}).items():
        config = Config.preset(source, name).override({**SMALL, **OWN.get(name, {})})
        assert config.task == name
        splits = load_splits(config.data)
        found[name] = config, replace(splits, train=few(splits.train, 40), val=few(splits.val, 40))
    return found


def opened(config: Config, splits: Splits, teacher: nn.Module | None = None, resume: Path | None = None) -> Run:
    return open_run(config, splits, splits.train, splits.val, CPU, teacher=teacher, resume=resume)


def network(config: Config, splits: Splits) -> nn.Module:
    return build_model(config.model, splits.shape[0], len(splits.class_names)).eval().requires_grad_(False)


def test_the_configuration_and_the_networks_know_the_tasks() -> None:
    knob = Config.__dataclass_fields__["task"].metadata
    assert set(TASKS) == set(knob["choices"])
    assert sorted(name for task in TASKS.values() for name in task.networks) == sorted((*FEATURES, *LIBRARIES, ENCODER))


@pytest.mark.parametrize("name", TASKS)
def test_rows_have_a_label_each_and_several_batches_make_them_one_after_the_other(
    name: str, runs: dict[str, tuple[Config, Splits]]
) -> None:
    config, splits = runs[name]
    inputs, labels = splits.train.take(torch.arange(6))
    if name == "segmentation":
        labels[2, 5:20, 3:9] = VOID
    task, model = TASKS[name], network(config, splits)
    targets = task.targets(model, inputs, labels)
    answering, of_rows = task.rows(model, targets)
    logits = answering(inputs)
    kinds = len(task.row_counts(torch.ones(len(splits.class_names))))
    assert logits.shape == (len(of_rows), kinds)
    assert of_rows.dtype == torch.int64
    assert of_rows.min() >= 0
    assert of_rows.max() < kinds
    assert torch.equal(task.targets(model, inputs, labels), targets)
    both = answering(torch.cat([inputs, 1 - inputs]))
    torch.testing.assert_close(both, torch.cat([logits, answering(1 - inputs)]))


@pytest.mark.parametrize("name", ["classification", "segmentation"])
def test_every_pixel_has_the_radius_of_a_class(name: str, runs: dict[str, tuple[Config, Splits]]) -> None:
    _, splits = runs[name]
    inputs, labels = splits.train.take(torch.arange(5))
    by_class = torch.arange(1.0, len(splits.class_names) + 1)
    radius = TASKS[name].radius(by_class, labels).expand(inputs.shape)
    expected = by_class[labels.long()].view(len(labels), 1, *labels.shape[1:] or (1, 1)).expand(inputs.shape)
    assert torch.equal(radius, expected)


@pytest.mark.parametrize(("name", "method"), FITTING)
def test_a_step_of_every_method_that_fits_lowers_its_loss_on_the_batch(
    name: str, method: str, runs: dict[str, tuple[Config, Splits]]
) -> None:
    config, splits = runs[name]
    config = config.override({"method": method, "optim.lr": 0.01, "optim.momentum": 0.0})
    state = TrainState.fresh(config, splits.shape[0], len(splits.class_names), CPU)
    inputs, labels = splits.train.take(torch.arange(0, len(splits.train), 4))
    counts, task = splits.train.class_counts(), TASKS[name]
    context = context_of(config, counts, 1, None, network(config, splits), CPU)
    budget = budget_of(config, counts, 1, CPU)
    losses = []
    for _ in range(2):
        batch = batch_of(task, METHODS[method], inputs, labels, budget, torch.Generator().manual_seed(0))
        step = train_step(task, METHODS[method], state, batch, context, budget)
        assert step.labels.shape == step.predicted.shape == step.right.shape
        losses.append(step.losses["loss"].item())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", TASKS)
def test_both_stages_train_and_a_resumed_run_comes_to_the_same_bits(
    name: str, runs: dict[str, tuple[Config, Splits]], tmp_path: Path
) -> None:
    config, splits = runs[name]
    gamma = teacher_gamma(config, splits.imbalance_ratio)
    balanced = teacher_split(config, splits.train, gamma)
    stage1 = open_run(teacher_config(config, gamma), splits, balanced, None, CPU, teacher=None, resume=None)
    assert [metrics.epoch for metrics in stage1.epochs()] == [1]
    teacher = stage1.state.model
    whole, first = opened(config, splits, teacher), opened(config, splits, teacher)
    metrics = list(whole.epochs())
    next(iter(first.epochs()))
    first.save(tmp_path / "one.pt")
    second = opened(config, splits, teacher, resume=tmp_path / "one.pt")
    assert len(list(second.epochs())) == 1
    assert same_bits(second.state.content(), whole.state.content())
    assert all(0 <= value <= 1 for name, value in metrics[-1].values.items() if name.startswith("val/"))


@pytest.mark.parametrize("name", TASKS)
def test_a_validation_is_the_same_every_time_and_attacks_leave_less_than_clean_images(
    name: str, runs: dict[str, tuple[Config, Splits]]
) -> None:
    config, splits = runs[name]
    # A detector takes longer than others to find anything that an attack could hide.
    epochs = 12 if name == "detection" else 1
    run = opened(config.override({"method": "natural", "epochs": epochs, "evaluate.every": epochs}), splits)
    list(run.epochs())
    task, counts = TASKS[name], splits.train.class_counts()
    scores = [
        task.validate(run.state.model, splits.val, class_groups(counts), config.attack, steps=3) for _ in range(2)
    ]
    assert scores[0] == scores[1]
    values, measure = scores[0].values, task.measure
    assert values[f"robust_{measure}"] < values[f"clean_{measure}"]
    assert {f"{group}_robust_{measure}" for group in ("head", "medium", "tail", "worst_class")} < set(values)
    assert f"tail_clean_{measure}" in values
    assert {kind: len(of) for kind, of in scores[0].per_class.items()} == dict.fromkeys(
        ("clean", "robust"), len(splits.class_names)
    )
    assert not scores[0].unanswered


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"task": "segmentation"},
            "--task segmentation: wants a label for a pixel, and digits has one for an image; give --task classif",
        ),
        (
            {"data.augmentation": "crop-flip-scale"},
            "--data.augmentation crop-flip-scale: is not for images with a label for an image; for classification cho",
        ),
        (
            {"model.name": "small-unet"},
            "--model.name small-unet: does not answer for an image; for classification choose small-cnn, ",
        ),
        (
            {"task": "detection"},
            "--task detection: wants a label for a box, and digits has one for an image; give --task classification",
        ),
    ],
)
def test_what_does_not_fit_the_task_is_refused(
    knobs: dict[str, Value], message: str, runs: dict[str, tuple[Config, Splits]]
) -> None:
    config, splits = runs["classification"]
    with pytest.raises(UserError, match=message):
        opened(config.override({"method": "at", **knobs}), splits)


def test_what_serves_one_label_an_image_alone_is_refused_for_pixels(runs: dict[str, tuple[Config, Splits]]) -> None:
    config, splits = runs["segmentation"]
    with pytest.raises(UserError, match="randaugment: is not for images with a label for a pixel; for seg"):
        check_task(config.override({"data.augmentation": "randaugment"}), splits.train)
    with pytest.raises(
        UserError, match=r"--method reat: compares the features of whole images, .*; choose natural, at"
    ):
        check_task(config.override({"method": "reat"}), splits.train)


def test_an_image_with_a_label_a_pixel_is_cropped_and_flipped_as_its_labels_are() -> None:
    images = torch.arange(2 * 1 * 12 * 12).remainder(200).view(2, 1, 12, 12).byte()
    moved, labels = augmented(images, images[:, 0], "crop-flip", torch.Generator().manual_seed(1))
    inside = labels != VOID
    assert torch.equal(moved[:, 0][inside], labels[inside])
    assert not moved[:, 0][~inside].any()
    assert not torch.equal(moved, images)


def test_the_teacher_weighs_pixels_as_a_draw_of_them_would(runs: dict[str, tuple[Config, Splits]]) -> None:
    """Of class c each pixel is kept with probability min(1, gamma n_min / n_c): the loss of kept pixels, on average."""
    _, splits = runs["segmentation"]
    counts = torch.tensor(splits.train.class_counts()).float()
    for gamma in (1.0, 3.0, 1e6):
        weights = segmentation.teacher_split(splits.train, gamma, 0).class_weights
        assert weights is not None
        torch.testing.assert_close(weights * counts, torch.minimum(counts, gamma * counts.min()))
    weights = segmentation.teacher_split(splits.train, 3.0, 0).class_weights
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(400)
    logits = torch.randn(len(labels), len(counts), generator=generator)
    losses = F.cross_entropy(logits, labels, reduction="none")
    kept = torch.rand(2000, len(labels), generator=generator) < weights[labels]
    drawn = (kept * losses).sum() / kept.sum()
    assert F.cross_entropy(logits, labels, weight=weights).item() == pytest.approx(drawn.item(), abs=1e-2)


def test_a_pixel_without_label_does_not_matter_to_a_step(runs: dict[str, tuple[Config, Splits]]) -> None:
    config, splits = runs["segmentation"]
    config, task = config.override({"method": "at-bsl"}), TASKS["segmentation"]
    inputs, labels = splits.train.take(torch.arange(8))
    counts = splits.train.class_counts()
    context, budget = context_of(config, counts, 0, None, None, CPU), budget_of(config, counts, 0, CPU)
    budget = replace(budget, steps=0)

    def loss_of(labels: Tensor) -> float:
        state = TrainState.fresh(config, splits.shape[0], len(splits.class_names), CPU)
        step = train_step(task, METHODS["at-bsl"], state, Batch(inputs, labels, inputs), context, budget)
        return step.losses["loss"].item()

    whole, half = labels.clone(), labels.clone()
    half[4:] = VOID
    assert loss_of(half) != pytest.approx(loss_of(whole), rel=1e-3)
    state = TrainState.fresh(config, splits.shape[0], len(splits.class_names), CPU)
    logits = state.student(inputs)[:4].flatten(0, 2) + context.log_counts
    expected = F.cross_entropy(logits, labels[:4].flatten().long()).item()
    assert loss_of(half) == pytest.approx(expected, rel=1e-5)


def test_digits_scenes_label_the_ink_and_no_digit_is_in_two_parts() -> None:
    parts, again = digits_scenes(), digits_scenes()
    for name, scenes in parts.items():
        assert (scenes.images == again[name].images).all()
        ink = scenes.images[:, 0] >= INK
        assert (ink == (scenes.labels > 0)).all()
        counts = [int((scenes.labels == c).sum()) for c in range(11)]
        assert min(counts) > 0
        assert counts[1] > 3 * counts[10]


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_draws_is_a_picture_with_its_classes_or_answers(
    name: str, runs: dict[str, tuple[Config, Splits]]
) -> None:
    config, splits = runs[name]
    model, task = network(config, splits), TASKS[name]
    attack = {"eps": config.attack.eps, "step_size": config.attack.eps / 2, "steps": 1}
    for figure in (
        task.show_data(splits.val, splits.class_names),
        task.show_attacked(model, splits.val, splits.class_names, **attack),
    ):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png")
        pixels = np.asarray(Image.open(drawn).convert("L"))
        assert 0.001 < (pixels < 250).mean() < 1
