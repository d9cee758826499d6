"""What is not finite is wrong, under every attack; the rest is judged as it would be by itself."""

from pathlib import Path

import pytest
import torch
from faulty import VALUES, Bands, Faulty
from hypothesis import given, settings
from hypothesis import strategies as st
from masking import Masked
from torch import Tensor, nn

from ltsd.answers import is_right
from ltsd.attacks.autoattack import AAFEW_MEMBERS, ROUNDS, STANDARD, autoattack
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.losses import cross_entropy, cw_margin, scaled_cross_entropy
from ltsd.data import Splits
from ltsd.data.batches import Split
from ltsd.evaluation.correctness import read_correctness, write_correctness
from ltsd.evaluation.corruptions import corruption_correctness
from ltsd.evaluation.evaluate import Correctness, clean_correctness, pgd_correctness
from ltsd.models.frozen import frozen
from ltsd.models.network import Network
from ltsd.pictures import attack_grid

IMAGES = 12
EPS = 0.02


@given(data=st.data(), rows=st.integers(1, 20), classes=st.integers(2, 6), seed=st.integers(0, 10**6))
def test_an_answer_with_nan_or_infinity_in_it_is_wrong_and_any_other_right_by_its_largest_logit(
    data: st.DataObject, rows: int, classes: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=random)
    labels = torch.randint(classes, (rows,), generator=random)
    broken = torch.rand(rows, classes, generator=random) < data.draw(st.floats(0, 0.5))
    spoiled = torch.where(broken, data.draw(st.sampled_from(VALUES)), logits)
    expected = [
        not spoilt.any() and row.index(max(row)) == label
        for row, spoilt, label in zip(logits.tolist(), broken, labels.tolist(), strict=True)
    ]
    assert is_right(spoiled, labels).tolist() == expected


def correctness_of(model: nn.Module, split: Split) -> dict[str, Correctness]:
    """What is measured of a model outside of AutoAttack."""
    found = {
        "clean": clean_correctness(model, split),
        "noise": corruption_correctness(model, split, "shot_noise-5", seed=0),
    }
    found["fgsm"] = pgd_correctness(model, split, domain=PIXELS, eps=0.05, step_size=0.05, steps=1, seed=None)
    for loss in (cross_entropy, cw_margin, scaled_cross_entropy):
        found[loss.__name__] = pgd_correctness(
            model, split, domain=PIXELS, eps=0.05, step_size=0.02, steps=3, seed=0, loss=loss
        )
    return found


@settings(max_examples=12)
@given(fails=st.lists(st.booleans(), min_size=IMAGES, max_size=IMAGES).map(torch.tensor), value=st.sampled_from(VALUES))
def test_every_attack_counts_it_as_wrong_and_changes_nothing_for_other_images(
    splits: Splits, trained: nn.Module, fails: Tensor, value: float
) -> None:
    split = splits.test.select(splits.test.rows[:IMAGES])
    honest, found = (correctness_of(model, split) for model in (trained, Faulty(trained, lambda inputs: fails, value)))
    for attack, correctness in found.items():
        assert correctness.right.tolist() == (honest[attack].right & ~fails).tolist(), attack
        assert correctness.unanswered == set(fails.nonzero().flatten().tolist()), attack
        assert not honest[attack].unanswered


def test_an_answer_that_an_attack_makes_nan_on_its_way_stays_wrong() -> None:
    """Also where it would go on to where the answer is right again, were it told where to."""
    model = Faulty(Bands(), lambda inputs: (inputs[:, :, 1:].mean((1, 2, 3)) - 0.3).abs() > EPS / 4)
    inputs, labels = (255 * Bands().images(torch.tensor([1]))).round().byte(), torch.tensor([1])
    split = Split(inputs, labels, torch.arange(1), num_classes=4)
    assert clean_correctness(model, split).right.all()
    correctness = pgd_correctness(model, split, domain=PIXELS, eps=EPS, step_size=EPS / 2, steps=20, seed=0)
    assert (correctness.right.tolist(), correctness.unanswered) == ([False], {0})


class Cornered(nn.Module):
    """Its gradient is NaN everywhere, though its answers are numbers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs)
        return logits + (0 * inputs).sum((1, 2, 3)).sqrt()[:, None]


def test_an_attack_that_is_told_no_direction_leaves_the_images_where_they_are(splits: Splits) -> None:
    torch.manual_seed(0)
    model = Cornered(Masked().net.eval())
    correctness = pgd_correctness(model, splits.test, domain=PIXELS, eps=0.3, step_size=0.1, steps=2, seed=None)
    assert torch.equal(correctness.right, clean_correctness(model, splits.test).right)
    assert correctness.right.any()
    assert not correctness.unanswered


def fragile(inputs: Tensor) -> Tensor:
    """Images whose corner is white fail as soon as their brightness leaves that which `Bands` is surest of."""
    brightness = inputs[:, :, 1:].mean((1, 2, 3))
    return (inputs[:, 0, 0, 0] > 0.5) & ((brightness[:, None] - Bands.centres).abs().amin(1) > EPS / 4)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("member", [*STANDARD, *AAFEW_MEMBERS])
def test_an_example_falls_to_each_member_of_autoattack_whose_images_it_answers_nan_to(
    monkeypatch: pytest.MonkeyPatch, member: str, value: float
) -> None:
    """Of class 0, which the largest of such answers is said to be, as of any other."""
    monkeypatch.setitem(ROUNDS, "one", ((member,),))
    labels = torch.tensor([0, 1, 0, 2, 3])
    inputs = Bands().images(labels)
    inputs[:, 0, 0, 0] = 1
    model = Faulty(Bands(), fragile, value)
    assert is_right(model(inputs), labels).all()
    ((_, standing),) = autoattack(model, inputs, labels, eps=EPS, version="one", seed=0, batch_size=3)
    assert standing.tolist() == [False] * 5


def test_autoattack_leaves_standing_what_no_attack_makes_nan(
    monkeypatch: pytest.MonkeyPatch, splits: Splits, teacher: nn.Module
) -> None:
    """An image that is answered NaN as it is has fallen, and those beside it fall to the same bits without it."""
    labels = torch.tensor([0, 0, 1, 1, 2])
    inputs = Bands().images(labels)
    inputs[:, 0, 0, 0] = torch.tensor([1.0, 0, 1, 0, 0])
    run = autoattack(Faulty(Bands(), fragile), inputs, labels, eps=EPS, version="apgd-ce+t", seed=0, batch_size=5)
    assert [standing.tolist() for _, standing in run] == [[False, True, False, True, True]] * 2

    monkeypatch.setitem(ROUNDS, "one", (("apgd-ce",),))
    teacher.eval()
    inputs, labels = splits.test.take(torch.arange(len(splits.test)))
    fails = labels % 2 == 0
    originals = inputs.flatten(1)

    def is_near_one_that_fails(images: Tensor) -> Tensor:
        return fails[torch.cdist(images.detach().flatten(1), originals, p=float("inf")).argmin(1)]

    faulty = Faulty(teacher, is_near_one_that_fails)
    context = {"eps": 0.05, "version": "one", "seed": 0, "batch_size": 7}
    found = list(autoattack(faulty, inputs, labels, **context))  # type: ignore[arg-type]
    alone = list(autoattack(teacher, inputs[~fails], labels[~fails], **context))  # type: ignore[arg-type]
    assert 0 < alone[-1][1].sum() < is_right(teacher(inputs), labels)[~fails].sum()
    for (_, standing), (_, expected) in zip(found, alone, strict=True):
        assert not standing[fails].any()
        assert torch.equal(standing[~fails], expected)


def test_a_network_that_says_the_same_of_every_image_is_attacked_to_the_end(
    monkeypatch: pytest.MonkeyPatch, splits: Splits, teacher: nn.Module
) -> None:
    """All its logits are 0, and the last member of AutoAttack asks it about no image at all."""
    monkeypatch.setitem(ROUNDS, "one", (("square",),))
    assert isinstance(teacher, Network)
    with torch.no_grad():
        for weight in teacher.head.parameters():
            weight.zero_()
    inputs, labels = splits.test.take(torch.arange(len(splits.test)))
    model = frozen(teacher.eval())
    ((_, standing),) = autoattack(model, inputs, labels, eps=0.1, version="one", seed=0, batch_size=50)
    assert standing.tolist() == (labels == 0).tolist()


def test_correctness_comes_back_from_disk_with_what_was_not_answered(tmp_path: Path) -> None:
    labels = torch.tensor([0, 1, 2])
    one = Correctness(torch.tensor([True, False, False]), labels, 3, frozenset({2}))
    none = Correctness(torch.zeros(3, dtype=torch.bool), labels, 3, frozenset({0, 1, 2}))
    write_correctness(tmp_path / "a.parquet", {"one": one, "none": none}, "exam")
    found, _ = read_correctness(tmp_path / "a.parquet")
    for name, correctness in (("one", one), ("none", none)):
        assert found[name].right.tolist() == correctness.right.tolist()
        assert found[name].unanswered == correctness.unanswered


def test_a_picture_names_no_class_where_there_is_no_answer(splits: Splits, trained: nn.Module) -> None:
    inputs, labels = splits.test.take(torch.arange(4))
    names = [f"class {c}" for c in range(10)]
    fails = torch.tensor([True, False, True, False])
    figure = attack_grid(Faulty(trained, lambda x: fails), inputs, labels, names, eps=0.05, step_size=0.02, steps=2)
    for axes in figure.axes[:2]:
        said = [text.get_text() for text in axes.texts]
        assert [word == "NaN" for word in said] == fails.tolist()
        assert {text.get_color() for text in axes.texts if text.get_text() == "NaN"} == {"#cf222e"}
