"""Average precision from the boxes that are right, against torchmetrics; two detectors on the same images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltsd.data.longtail import class_groups
from ltsd.errors import UserError
from ltsd.evaluation.detections import Detections, precision, true_boxes
from ltsd.evaluation.hits import Hits, paired_precision
from ltsd.locations import NONE

CLASSES, IMAGES = 3, 6


def truth(seed: int) -> torch.Tensor:
    """Boxes float32 [IMAGES, 4, 5]; some images have fewer, one has none."""
    generator = torch.Generator().manual_seed(seed)
    corners = 20 * torch.rand(IMAGES, 4, 2, generator=generator)
    sides = 4 + 12 * torch.rand(IMAGES, 4, 2, generator=generator)
    kinds = torch.randint(0, CLASSES, (IMAGES, 4, 1), generator=generator).float()
    kinds[torch.rand(IMAGES, 4, generator=generator) < 0.3] = NONE
    kinds[0] = NONE
    return torch.cat([kinds, corners, corners + sides], -1)


def detected(labels: torch.Tensor, seed: int) -> Detections:
    """The true boxes, shifted a little, with classes that are sometimes wrong, each found up to three times."""
    generator = torch.Generator().manual_seed(seed)
    true = true_boxes(labels)
    twice = torch.arange(len(true.image)).repeat(3)
    twice = twice[torch.rand(len(twice), generator=generator) < 0.7]
    classes = true.classes[twice]
    wrong = torch.rand(len(twice), generator=generator) < 0.2
    classes = torch.where(wrong, (classes + 1) % CLASSES, classes)
    boxes = true.boxes[twice] + 2 * torch.randn(len(twice), 4, generator=generator)
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)], 1)
    scores = torch.rand(len(twice), generator=generator)
    order = true.image[twice].argsort(stable=True)
    return Detections(true.image[twice][order], classes[order], scores[order], boxes[order], true.finite)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 999))
def test_average_precision_is_that_of_torchmetrics(seed: int) -> None:
    pytest.importorskip("faster_coco_eval")
    labels = truth(seed)
    found = detected(labels, seed + 1)
    expected = precision(found, labels, class_groups([3, 2, 1])).per_class
    hits = Hits.of(found, true_boxes(labels), CLASSES)
    once = torch.ones(1, IMAGES, dtype=torch.int64)
    measured = [float(hits.average_precision(c, once)) for c in range(CLASSES)]
    assert measured == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_images_that_are_drawn_twice_count_as_if_they_were_there_twice() -> None:
    labels = truth(3)
    found = detected(labels, 4)
    drawn = torch.tensor([[2, 0, 1, 1, 0, 3]])
    rows = torch.repeat_interleave(torch.arange(IMAGES), drawn[0])
    parts = [found.image == row for row in rows]
    again = Detections(
        torch.cat([torch.full((int(part.sum()),), number) for number, part in enumerate(parts)]),
        *(torch.cat([getattr(found, name)[part] for part in parts]) for name in ("classes", "scores", "boxes")),
        torch.ones(len(rows)).bool(),
    )
    hits = Hits.of(found, true_boxes(labels), CLASSES)
    whole = Hits.of(again, true_boxes(labels[rows]), CLASSES)
    once = torch.ones(1, len(rows), dtype=torch.int64)
    for c in range(CLASSES):
        assert float(hits.average_precision(c, drawn)) == pytest.approx(
            float(whole.average_precision(c, once)), abs=0.02, nan_ok=True
        )


def test_a_detector_beside_itself_is_level_and_the_truth_leads_noise() -> None:
    labels = truth(5)
    true = true_boxes(labels)
    best, worse = (Hits.of(one, true, CLASSES) for one in (true, detected(labels, 6)))
    same = paired_precision([worse], [worse], classes=None, seed=0)
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    lead = paired_precision([best, best], [worse, worse], classes=None, seed=0)
    assert 0 < lead.low <= lead.mean <= lead.high
    once = torch.ones(1, IMAGES, dtype=torch.int64)
    of_classes = [float(worse.average_precision(c, once)) for c in range(CLASSES)]
    assert lead.mean == pytest.approx(1 - np.mean(of_classes))
    with pytest.raises(UserError, match="cannot be compared image by image"):
        paired_precision([best], [worse, worse], classes=None, seed=0)


def test_images_of_one_block_are_never_drawn_apart() -> None:
    labels = truth(5)
    true = true_boxes(labels)
    found = [replace(one, blocks=torch.zeros(IMAGES).long()) for one in (true, detected(labels, 6))]
    best, worse = (Hits.of(one, true, CLASSES) for one in found)
    lead = paired_precision([best], [worse], classes=None, seed=0)
    assert lead.low == pytest.approx(lead.mean) == lead.high
    with pytest.raises(UserError, match="different groups of test images"):
        paired_precision([best], [replace(worse, blocks=torch.arange(IMAGES))], classes=None, seed=0)
