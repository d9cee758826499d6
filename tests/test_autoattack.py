"""AutoAttack, member by member, against the reference implementation's own runs."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from masking import Masked, telling_rows, trained_masked
from pyautoattack import AutoAttack
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from ltsd.attacks.autoattack import MEMBERS, autoattack
from ltsd.attacks.square import square
from ltsd.data import Splits

SEED, BATCH = 0, 11


@pytest.fixture(scope="module")
def masked(splits: Splits) -> Masked:
    return trained_masked(splits)


@pytest.fixture(scope="module")
def examples(splits: Splits, masked: Masked) -> tuple[Tensor, Tensor]:
    return splits.test.take(telling_rows(masked, splits))


@contextmanager
def asked(model: nn.Module) -> Iterator[Counter[bytes]]:
    """How often an attack asks a model about each image, told by its bits."""
    tried = Counter[bytes]()

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        tried.update(image.tobytes() for image in inputs[0].detach().numpy())

    hook = model.register_forward_pre_hook(note)
    yield tried
    hook.remove()


class Precise(nn.Module):
    """A random network of 3x6x8 images, whose answers are the same to the bit in a batch of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 10)).double()
        self.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.net(inputs.double()).float()
        return logits


def verdict_of_the_reference(
    model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, members: int | None = None
) -> list[bool]:
    """Who is left standing after the first so many members of its standard version."""
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    reference = AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=SEED)
    reference.verbose = False
    reference.attacks_to_run = reference.attacks_to_run[:members]
    _, predicted = reference.run_standard_evaluation(inputs, labels, batch_size=BATCH)
    return (predicted == labels).tolist()


def test_the_whole_ensemble_is_the_reference_bit_by_bit(masked: Masked, examples: tuple[Tensor, Tensor]) -> None:
    """The same verdict on every example by the same tries: no step, no restart, no target, no square is left out.
    Beyond them, FAB tries examples that fall to the member beside it.
    """
    inputs, labels = examples
    with asked(masked) as ours:
        run = autoattack(masked, inputs, labels, eps=0.25, version="standard", seed=SEED, batch_size=BATCH)
        members, standing = zip(*run, strict=True)
    with asked(masked) as theirs:
        assert standing[-1].tolist() == verdict_of_the_reference(masked, inputs, labels, eps=0.25)
    assert ours.keys() >= theirs.keys()
    assert members == ("apgd-ce", "apgd-t", "fab-t", "square")
    stood = [masked(inputs).argmax(1) == labels, *standing]
    assert all(not (after & ~before).any() for before, after in itertools.pairwise(stood)), "one that fell stands"
    assert len({tuple(after.tolist()) for after in stood}) > 3, "only one or two members had anything to do"


def test_the_half_ensemble_is_the_first_half_of_the_reference_under_a_name_of_its_own(
    masked: Masked, splits: Splits
) -> None:
    model = masked.net
    inputs, labels = splits.test.take(torch.arange(0, len(splits.test), 2))
    with asked(model) as ours:
        run = autoattack(model, inputs, labels, eps=0.1, version="apgd-ce+t", seed=SEED, batch_size=BATCH)
        members, standing = zip(*run, strict=True)
    with asked(model) as theirs:
        assert standing[-1].tolist() == verdict_of_the_reference(model, inputs, labels, eps=0.1, members=2)
    assert ours.keys() == theirs.keys()
    assert members == ("apgd-ce", "apgd-t")
    assert 0 < standing[-1].sum() < (model(inputs).argmax(1) == labels).sum()
    assert [name for name, whole in MEMBERS.items() if {"fab-t", "square"} <= {*whole}] == ["standard"]


def test_square_makes_the_tries_of_the_reference_and_hardly_one_of_them_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """On oblong coloured images, some of which fall: the same verdicts, and the same images asked about."""
    torch.manual_seed(1)
    monkeypatch.setattr("ltsd.attacks.square.QUERIES", 1200)
    monkeypatch.setattr("ltsd.attacks.square.FEWEST", 1)
    model = Precise()
    inputs = torch.rand(16, 3, 6, 8)
    labels = model(inputs).argmax(1)
    with asked(model) as ours:
        standing = square(model, inputs, labels, eps=0.03, generator=torch.Generator().manual_seed(SEED))
    with asked(model) as theirs:
        reference = SquareAttack(model, eps=0.03, n_queries=1200, seed=SEED, resc_schedule=False)
        predicted = model(reference.perturb(inputs, labels)).argmax(1)
    assert standing.tolist() == (predicted == labels).tolist()
    assert 0 < standing.sum() < len(labels)
    assert ours.keys() == theirs.keys() - {image.numpy().tobytes() for image in inputs}
    assert ours.total() < 1.1 * len(ours)
