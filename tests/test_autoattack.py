"""AutoAttack, member by member, against the reference implementation's own runs."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from masking import Masked, telling_rows, trained_masked
from pyautoattack import AutoAttack
from torch import Tensor, nn

from ltsd.attacks.autoattack import MEMBERS, autoattack
from ltsd.data import Splits

SEED, BATCH = 0, 11


@pytest.fixture(scope="module")
def masked(splits: Splits) -> Masked:
    return trained_masked(splits)


@pytest.fixture(scope="module")
def examples(splits: Splits, masked: Masked) -> tuple[Tensor, Tensor]:
    return splits.test.take(telling_rows(masked, splits))


@contextmanager
def asked(model: nn.Module, originals: Tensor) -> Iterator[list[int]]:
    """Every batch that an attack tries on a model, in order, told by its bits; batches of unchanged images left out."""
    known, tried = {image.numpy().tobytes() for image in originals}, list[int]()

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        images = inputs[0].detach().numpy()
        if not all(image.tobytes() in known for image in images):
            tried.append(hash(images.tobytes()))

    hook = model.register_forward_pre_hook(note)
    yield tried
    hook.remove()


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
    """The same verdict on every example by the same tries: no step, no restart, no target is left out."""
    inputs, labels = examples
    with asked(masked, inputs) as ours:
        run = autoattack(masked, inputs, labels, eps=0.25, version="standard", seed=SEED, batch_size=BATCH, known={})
        members, standing = zip(*run, strict=True)
    with asked(masked, inputs) as theirs:
        assert standing[-1].tolist() == verdict_of_the_reference(masked, inputs, labels, eps=0.25)
    assert ours == theirs
    assert members == ("apgd-ce", "apgd-t", "fab-t", "square")
    stood = [masked(inputs).argmax(1) == labels, *standing]
    assert all(not (after & ~before).any() for before, after in itertools.pairwise(stood)), "one that fell stands"
    assert len({tuple(after.tolist()) for after in stood}) > 3, "only one or two members had anything to do"


def test_the_half_ensemble_is_the_first_half_of_the_reference_under_a_name_of_its_own(
    masked: Masked, splits: Splits
) -> None:
    model = masked.net
    inputs, labels = splits.test.take(torch.arange(0, len(splits.test), 2))
    with asked(model, inputs) as ours:
        run = autoattack(model, inputs, labels, eps=0.1, version="apgd-ce+t", seed=SEED, batch_size=BATCH, known={})
        members, standing = zip(*run, strict=True)
    with asked(model, inputs) as theirs:
        assert standing[-1].tolist() == verdict_of_the_reference(model, inputs, labels, eps=0.1, members=2)
    assert ours == theirs
    assert members == ("apgd-ce", "apgd-t")
    assert 0 < standing[-1].sum() < (model(inputs).argmax(1) == labels).sum()
    assert [name for name, whole in MEMBERS.items() if len(whole) == 4] == ["standard"]
