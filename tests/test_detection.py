"""Boxes: which locations answer for them, how they move, what is lost and found, and how they are read."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from ltsd.__main__ import main
from ltsd.attacks.domains import PIXELS
from ltsd.config import AttackConfig, Config, ModelConfig
from ltsd.data import load_splits
from ltsd.data.augment import augmented
from ltsd.data.batches import Split
from ltsd.data.boxes import VISIBLE
from ltsd.data.longtail import class_groups
from ltsd.data.scenes import digits_scenes
from ltsd.errors import UserError
from ltsd.evaluation.box_attacks import LOSSES, attacked_boxes
from ltsd.evaluation.box_exam import ATTACKS, TITLES, BoxExamResult, examine_boxes
from ltsd.evaluation.detections import Detections, precision
from ltsd.evaluation.detections_on_disk import read_detections
from ltsd.locations import BOX, CENTRE, NEAREST, NONE, REACH, STRIDES, centreness, decoded, locations, matched
from ltsd.losses import balanced_softmax, box_losses
from ltsd.matching import MINED, Locations, targets_of
from ltsd.models import build_model
from ltsd.pictures import COLOURS
from ltsd.tasks import detection

BCCD = Path(__file__).parents[2] / "shared/data/bccd"
ATTACK = AttackConfig(eps=0.05)
COUNTS = list(range(20, 0, -2))
GROUPS = class_groups(COUNTS)


@st.composite
def images_of_boxes(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    """Boxes of one image, and its height and width."""
    height, width = draw(st.integers(9, 44)), draw(st.integers(9, 44))
    boxes = []
    for _ in range(draw(st.integers(0, 5))):
        x0, y0 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
        x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
        boxes.append([draw(st.integers(0, 3)), x0, y0, x1, y1])
    return torch.tensor([*boxes, [NONE] * 5], dtype=torch.float32)[None], height, width


def level_of(farthest: float) -> int:
    return next((stride for stride in STRIDES[:-1] if farthest <= REACH * stride), STRIDES[-1])


def slowly_matched(boxes: list[list[float]], x: float, y: float, stride: float, others: Tensor) -> list[float] | None:
    """The box that a location answers for, one box after the other."""
    best: list[float] | None = None
    for box in boxes:
        _, x0, y0, x1, y1 = box

        def answers(x: float, y: float, stride: float, box: list[float] = box) -> bool:
            _, x0, y0, x1, y1 = box
            sides = (x - x0, y - y0, x1 - x, y1 - y)
            off = max(abs(x - (x0 + x1) / 2), abs(y - (y0 + y1) / 2))
            return min(sides) > 0 and off <= CENTRE * stride and level_of(max(sides)) == stride

        mine = answers(x, y, stride)
        if not mine and not any(answers(*other) for other in others.tolist()):
            level = [other for other in others.tolist() if other[2] == level_of(max(x1 - x0, y1 - y0) / 2)]
            offs = [max(abs(a - (x0 + x1) / 2), abs(b - (y0 + y1) / 2)) for a, b, _ in level]
            mine = [x, y, stride] == level[offs.index(min(offs))]
        if mine and (best is None or (x1 - x0) * (y1 - y0) < (best[3] - best[1]) * (best[4] - best[2])):
            best = box
    return best


@settings(deadline=None, max_examples=25)
@given(images_of_boxes())
def test_a_location_answers_for_the_smallest_box_that_it_is_central_in(found: tuple[Tensor, int, int]) -> None:
    labels, height, width = found
    classes, distances = matched(labels, height, width)
    where, boxes = locations(height, width, labels.device), labels[0, :-1].tolist()
    for place, (x, y, stride) in enumerate(where.tolist()):
        expected = slowly_matched(boxes, x, y, stride, where)
        if expected is None:
            assert classes[0, place] == NONE
            continue
        label, x0, y0, x1, y1 = expected
        assert classes[0, place] == label
        sides = [max(side / stride, NEAREST) for side in (x - x0, y - y0, x1 - x, y1 - y)]
        torch.testing.assert_close(distances[0, place], torch.tensor(sides))


def test_every_digit_of_the_scenes_has_a_location() -> None:
    boxes = torch.from_numpy(digits_scenes()["train"].boxes)
    classes, _ = matched(boxes, 32, 32)
    for c in range(10):
        assert ((classes == c).any(1) == (boxes[..., 0] == c).any(1)).all()


def test_a_scene_has_a_tight_box_around_the_ink_of_each_digit() -> None:
    for scenes in digits_scenes().values():
        for label, boxes in zip(scenes.labels[:40], scenes.boxes[:40], strict=True):
            left = label.copy()
            for digit, x0, y0, x1, y1 in boxes[boxes[:, 0] >= 0].astype(int):
                ink = label[y0:y1, x0:x1] == digit + 1
                assert ink.any(0)[[0, -1]].all()
                assert ink.any(1)[[0, -1]].all()
                left[y0:y1, x0:x1] = 0
            assert not left.any()


@settings(deadline=None, max_examples=60)
@given(images_of_boxes())
def test_a_box_comes_back_from_the_distances_to_its_sides(found: tuple[Tensor, int, int]) -> None:
    labels, height, width = found
    classes, distances = matched(labels, height, width)
    boxes = decoded(distances.log(), height, width)[0]
    inside = (classes[0] != NONE) & (distances[0] > NEAREST).all(-1)
    real = labels[0, labels[0, :, 0] >= 0, 1:]
    for box in boxes[inside]:
        assert (real - box).abs().amax(1).min() < 1e-3


def test_the_loss_of_a_box_is_least_for_the_box_itself_and_its_centreness() -> None:
    distances = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) + 0.2
    central = centreness(distances)
    right = torch.cat([distances.log(), torch.logit(central.clamp(1e-4, 1 - 1e-4))[:, None]], 1)
    entropy = F.binary_cross_entropy(central, central, reduction="none")
    torch.testing.assert_close(box_losses(right, distances), entropy, atol=1e-3, rtol=0)
    assert (box_losses(right + 0.1, distances) > box_losses(right, distances)).all()
    assert centreness(torch.tensor([1.0, 2, 1, 2])) == 1


def test_the_prior_moves_classes_and_leaves_the_background() -> None:
    """z_c + tau (log n_c - mean log n) on classes alone."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(30, 5, generator=generator), torch.randint(5, (30,), generator=generator)
    counts, tau = torch.tensor([90.0, 40, 7, 2]), 0.7
    shift = torch.cat([counts.log() - counts.log().mean(), torch.zeros(1)])
    found = balanced_softmax(logits, labels, detection.row_counts(counts).log(), tau)
    torch.testing.assert_close(found, F.cross_entropy(logits + tau * shift, labels))


class Painted(nn.Module):
    """A network that answers the same to every image."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, inputs: Tensor) -> Tensor:
        return self.answers[: len(inputs)] + 0 * inputs.mean()


def scenes(count: int) -> Split:
    drawn = digits_scenes()["test"]
    images, boxes = (torch.from_numpy(part[:count]) for part in (drawn.images, drawn.boxes))
    return Split(images, boxes, torch.arange(count), 10)


def perfect_answers(split: Split) -> Tensor:
    """What a detector that knows the boxes would say."""
    classes, distances = matched(split.labels, *split.images.shape[2:])
    logits = 20.0 * F.one_hot(torch.where(classes < 0, 10, classes), 11)
    return torch.cat([logits, distances.log(), torch.full((*classes.shape, 1), 20.0)], -1)


def test_rows_are_the_locations_of_boxes_and_the_background_that_looks_most_like_one() -> None:
    split = scenes(8)
    inputs, labels = split.take(torch.arange(8))
    labels[3] = NONE
    answers = torch.randn(8, 84, 11 + BOX, generator=torch.Generator().manual_seed(0))
    targets = targets_of(Painted(answers), inputs, labels)
    classes, distances = matched(labels, 32, 32)
    assert torch.equal(targets[..., 1:], distances)
    looks = 1 - answers[..., :11].softmax(-1)[..., 10]
    for image in range(8):
        kinds, empty = targets[image, :, 0], classes[image] == NONE
        assert torch.equal(kinds[~empty].long(), classes[image, ~empty])
        mined = kinds == 10
        assert mined.sum() == min(int(empty.sum()), MINED * max(1, int((~empty).sum())))
        if (empty & ~mined).any():
            assert looks[image, mined].min() >= looks[image, empty & ~mined].max()
    rows = Locations(Painted(answers), targets)
    assert torch.equal(rows(inputs), answers[..., :11][targets[..., 0] != NONE])
    assert len(rows.box_losses(inputs)) == (classes != NONE).sum()


def test_a_network_sees_the_images_once_for_boxes_and_classes() -> None:
    torch.manual_seed(0)
    split = scenes(4)
    inputs, labels = split.take(torch.arange(4))
    model = build_model(ModelConfig(name="small-fcos", width=8), 1, 10).eval()
    rows = Locations(model, targets_of(model, inputs, labels))
    expected = rows(inputs)
    asked = list[int]()
    model.register_forward_pre_hook(lambda module, inputs: asked.append(len(inputs[0])))
    rows.box_losses(inputs)
    assert torch.equal(rows(inputs), expected)
    assert asked == [4]
    assert torch.equal(rows(inputs), expected)
    assert asked == [4, 4]


def test_weights_of_the_teacher_level_the_classes_and_keep_three_of_background_to_one() -> None:
    split = scenes(60)
    counts = torch.tensor(split.class_counts()).float()
    for gamma in (1.0, 3.0, 1e6):
        weights = detection.teacher_split(split, gamma, 0).class_weights
        assert weights is not None
        learnt = weights[:10] * counts
        torch.testing.assert_close(learnt, torch.minimum(counts, gamma * counts.min()))
        torch.testing.assert_close(weights[10] * MINED * counts.sum(), MINED * learnt.sum())


def test_an_image_has_the_mean_radius_of_its_boxes() -> None:
    labels = torch.full((3, 4, 5), float(NONE))
    labels[0, :3, 0] = torch.tensor([0.0, 0, 2])
    labels[1, 0, 0] = 1
    radius = detection.radius(torch.tensor([0.1, 0.2, 0.4]), labels)
    torch.testing.assert_close(radius.flatten(), torch.tensor([0.2, 0.2, 0.7 / 3]))
    assert radius.shape == (3, 1, 1, 1)


def test_boxes_move_with_their_images_and_those_cut_away_are_dropped() -> None:
    """Each box is painted in a value of its own: where that is seen after the move, the box must be."""
    generator = torch.Generator().manual_seed(0)
    count, side = 200, 24
    images, labels = torch.zeros(count, 1, side, side, dtype=torch.uint8), torch.full((count, 2, 5), float(NONE))
    for image, own in zip(images, labels, strict=True):
        x, y, width, height = torch.randint(1, 8, (4,), generator=generator).tolist()
        at = ([0, side - x - width][x % 2], [0, side - y - height][y % 2])
        own[0] = torch.tensor([3, at[0], at[1], at[0] + width, at[1] + height])
        image[0, at[1] : at[1] + height, at[0] : at[0] + width] = 9
    moved, boxes = augmented(images, labels, "crop-flip", generator)
    dropped = 0
    for before, image, (first, second) in zip(labels, moved, boxes, strict=True):
        assert (second == NONE).all()
        area = (before[0, 3] - before[0, 1]) * (before[0, 4] - before[0, 2])
        rows, columns = image[0].nonzero(as_tuple=True)
        if len(rows) < VISIBLE * area:
            assert (first == NONE).all()
            dropped += 1
            continue
        seen = [3, columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert first.tolist() == [float(value) for value in seen]
    assert 0 < dropped < count / 2
    assert augmented(images, labels, "none", generator)[1] is labels


def test_a_perfect_detector_has_a_precision_of_one_and_one_that_finds_nothing_of_zero() -> None:
    split = scenes(20)
    found = Detections.of(perfect_answers(split), 32, 32)
    assert precision(found, split.labels, GROUPS).balanced > 0.99
    assert len(found.image) == (split.labels[..., 0] >= 0).sum()
    nothing = perfect_answers(split)
    nothing[..., 10] = 100
    assert precision(Detections.of(nothing, 32, 32), split.labels, GROUPS).per_class == (0,) * 10


def test_a_class_that_no_image_has_counts_nowhere() -> None:
    split = scenes(20)
    labels = split.labels.clone()
    labels[labels[..., 0] == 4] = NONE
    score = precision(Detections.of(perfect_answers(split), 32, 32), labels, GROUPS)
    assert score.per_class[4] != score.per_class[4]
    assert score.balanced > 0.99


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A detector that has learnt nothing."""
    torch.manual_seed(0)
    return build_model(ModelConfig(name="small-fcos", width=8), 1, 10).eval().requires_grad_(False)


@pytest.mark.parametrize("name", LOSSES)
def test_an_attack_raises_its_loss_within_the_radius(name: str, model: nn.Module) -> None:
    inputs, labels = scenes(6).take(torch.arange(6))
    start = PIXELS.uniform(inputs, eps=0.05, generator=torch.Generator().manual_seed(0))
    attacked = attacked_boxes(model, inputs, labels, LOSSES[name], start, eps=0.05, step_size=0.0125, steps=10)
    assert (attacked - inputs).abs().max() <= 0.05 + 1e-6
    rows = Locations(model, targets_of(model, inputs, labels))
    losses = [LOSSES[name](rows, images).item() for images in (inputs, start, attacked)]
    assert losses[2] > max(losses[:2])


@pytest.mark.parametrize("size", [(32, 32), (40, 56), (33, 47)])
def test_a_detector_answers_every_location_of_images_of_any_size(size: tuple[int, int], model: nn.Module) -> None:
    answers = model(torch.rand(2, 1, *size))
    assert answers.shape == (2, len(locations(*size, answers.device)), 11 + BOX)


def test_an_exam_goes_on_from_its_file_to_the_same_numbers(model: nn.Module, tmp_path: Path) -> None:
    kept, test = tmp_path / "one.parquet", scenes(4)
    *_, (done, result) = examine_boxes(model, test, GROUPS, ATTACK, "none")
    assert done == "corruptions"
    parts = examine_boxes(model, test, GROUPS, ATTACK, "none", keep=kept)
    assert next(parts)[0] == "PGD-20"
    parts.close()
    assert set(read_detections(kept)[0]) == {"clean", "fgsm", "pgd20", "truth"}
    *_, (_, second) = examine_boxes(model, test, GROUPS, ATTACK, "none", keep=kept)
    assert json.dumps(second.as_json()) == json.dumps(result.as_json())  # which tells NaN from nothing else
    assert torch.equal(read_detections(kept)[0]["box20"].boxes, result.detections["box20"].boxes)
    lowest = min((result.accuracies[name] for name in ATTACKS), key=lambda one: one.balanced)
    assert result.accuracies["worst"] == lowest
    assert result.values()["test/robust_map50"] == lowest.balanced
    assert TITLES.keys() <= COLOURS.keys()
    kept.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not the file of an exam of boxes"):
        read_detections(kept)
    with pytest.raises(UserError, match="AutoAttack needs one label per image"):
        next(iter(examine_boxes(model, test, GROUPS, ATTACK, "standard")))


def test_an_answer_that_is_not_finite_finds_nothing_and_is_told() -> None:
    split = scenes(4)
    answers = perfect_answers(split)
    answers[2, 7, 0] = torch.nan
    found = Detections.of(answers, 32, 32)
    assert found.finite.tolist() == [True, True, False, True]
    assert 2 not in found.image
    result = BoxExamResult.of({"clean": precision(found, split.labels, GROUPS)}, {"clean": found})
    told = "the network answers NaN or infinity on 1 of 4 test images: nothing counts as found there"
    assert result.doubts == (told,)


NAMES = ["cat", "dog"]


def write_table(path: Path, rows: list[dict[str, Any]], size: tuple[int, int] = (40, 20)) -> Path:
    """A Parquet file of noise images with boxes, as the Hugging Face library writes it."""
    random, images = np.random.default_rng(len(path.name)), []
    for _ in rows:
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
    category = {"names": NAMES, "_type": "ClassLabel"}
    features = {"objects": {"feature": {"category": category}, "_type": "Sequence"}}
    kind = pa.struct([("bbox", pa.list_(pa.list_(pa.float32()))), ("category", pa.list_(pa.int64()))])
    table = pa.table({"image": images, "objects": pa.array(rows, kind)})
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(about), path)
    return path


def objects(*boxes: tuple[int, list[float]]) -> dict[str, Any]:
    return {"bbox": [box for _, box in boxes], "category": [label for label, _ in boxes]}


GOOD = [objects((0, [0, 0, 20, 10]), (1, [30, 10, 10, 10])) for _ in range(9)]


def test_boxes_of_a_table_are_scaled_with_their_images_and_images_without_any_are_kept(tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [*GOOD, objects()])
    write_table(tmp_path / "test.parquet", GOOD[:2])
    config = Config.preset(str(tmp_path), "detection").override({"data.image_size": 80})
    splits = load_splits(config.data)
    assert splits.class_names == tuple(NAMES)
    assert splits.shape == (3, 80, 80)
    assert len(splits.complete) == 10
    assert splits.test.labels[0].tolist() == [[0, 0, 0, 40, 40], [1, 60, 40, 80, 80]]
    assert (splits.complete.labels[9] == NONE).all()
    assert splits.complete.class_counts() == [
        int((matched(splits.complete.labels, 80, 80)[0] == c).sum()) for c in range(2)
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (objects((0, [30, 0, 20, 10])), r"train.parquet row 9, box 0: reaches .* outside of its image of 40x20 pixels"),
        (objects((0, [20, 8, 39, 19])), "row 9, box 0: .*it would fit as x0, y0, x1, y1: write x, y, width and height"),
        (objects((0, [3, 3, 4, 4]), (1, [5, 5, 0, 4])), "row 9, box 1: reaches .*, which has no area; mend it"),
        (objects((0, [5, 5, -3, 4])), "row 9, box 0: reaches .*, which has no area"),
        (objects((0, [0.1, 0.1, 0.5, 0.2])), "row 9, box 0: .* looks like shares of the image; write .* in pixels"),
        (objects((2, [0, 0, 5, 5])), "row 9, box 0: label 2 is outside the 2 classes"),
        ({"bbox": [[0, 0, 5, 5]], "category": []}, "row 9: has 1 boxes and 0 categories; each box needs one"),
    ],
)
def test_a_box_that_cannot_be_is_told_by_its_row(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_table(tmp_path / "train.parquet", [*GOOD, row])
    with pytest.raises(UserError, match=message):
        load_splits(Config.preset(str(tmp_path), "detection").data)


def test_a_class_without_a_box_is_told(tmp_path: Path) -> None:
    only_cats = [objects((0, [0, 0, 20, 10])) for _ in range(9)]
    write_table(tmp_path / "train.parquet", only_cats)
    write_table(tmp_path / "test.parquet", GOOD[:2])
    with pytest.raises(UserError, match="class 'dog' has no box in the training images; leave the class out"):
        load_splits(Config.preset(str(tmp_path), "detection").data)


@pytest.mark.skipif(not BCCD.exists(), reason="blood cells are not here")
def test_blood_cells_are_read() -> None:
    splits = load_splits(Config.preset(str(BCCD), "detection").data)
    assert [len(split) for split in (splits.complete, splits.val, splits.test)] == [205, 87, 72]
    assert (splits.complete.labels[splits.complete.rows][..., 0] == 0).sum() == 2381
    counts = splits.complete.class_counts()
    assert splits.class_names[counts.index(min(counts))] == "Platelets"


def test_the_command_line_trains_and_examines_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, checkpoint, picture = tmp_path / "pets", tmp_path / "one.pt", tmp_path / "data.png"
    data.mkdir()
    write_table(data / "train.parquet", GOOD)
    write_table(data / "test.parquet", GOOD[:3])
    source = ("--data.source", str(data), "--data.image-size", "32", "--model.width", "8")
    quick = ("--method", "at", "--epochs", "1", "--attack.steps", "1", "--evaluate.steps", "1")
    assert main(["data", str(data), "--picture", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["train", *source, *quick, "--out", str(checkpoint)]) == 0
    report = tmp_path / "one.json"
    assert main(["evaluate", str(checkpoint), "--json", str(report)]) == 0
    assert "AP50 in percent, means over classes" in capsys.readouterr().out
    assert 0 <= json.loads(report.read_text())["metrics"]["test/robust_map50"] <= 1
    assert main(["predict", str(checkpoint), str(data / "test.parquet")]) == 0
    assert capsys.readouterr().out.startswith("image,class,score,x0,y0,x1,y1\n")
    with pytest.raises(UserError, match="--attack: is not for detectors"):
        main(["predict", str(checkpoint), str(data), "--attack"])
