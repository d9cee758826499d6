"""The boxes that a detector finds on images, and the average precision of every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ltsd.data.longtail import Groups
from ltsd.evaluation.pixels import Overlap
from ltsd.locations import BOX, decoded
from ltsd.packages import require

LEAST_SCORE = 0.02
SHOWN_SCORE = 0.3
"""The least score of a box in pictures and predictions; average precision counts weaker boxes too."""
CANDIDATES = 300
"""The largest number of boxes per image before non-maximum suppression."""
SAME_OBJECT = 0.5
"""IoU from which the weaker of two boxes of a class is suppressed."""
IOU = 0.5
"""The least IoU with a true box of a box that is right."""
PACKAGES = ("torchmetrics", "faster_coco_eval")


@dataclass(frozen=True)
class Detections:
    """Boxes that were found on N images, all on the CPU: `image`, `classes` int64 [K], `scores` [K] in [0, 1],
    `boxes` [K, 4] in pixels. `finite` is bool [N], whether all answers of an image are finite; an image without finite
    answers has no box. `blocks` are int64 [N], equal for images that a bootstrap draws together; None if it draws each
    image by itself.
    """

    image: Tensor
    classes: Tensor
    scores: Tensor
    boxes: Tensor
    finite: Tensor
    blocks: Tensor | None = None

    @classmethod
    def of(cls, answers: Tensor, height: int, width: int) -> Self:
        """Decode the answers [B, L, num_classes + 1 + BOX] for images of a size, with non-maximum suppression.

        A score is the probability of the class times the centreness.
        """
        from torchvision.ops import batched_nms

        finite = answers.isfinite().flatten(1).all(1)
        probable = answers[..., :-BOX].softmax(-1)[..., :-1]
        scores = (probable * answers[..., -1:].sigmoid()).flatten(1)
        best, places = scores.topk(min(CANDIDATES, scores.shape[1]), dim=1)
        num_classes = probable.shape[-1]
        boxes = decoded(answers[..., -BOX:-1], height, width)
        found = (best >= LEAST_SCORE) & finite[:, None]
        image = found.nonzero()[:, 0]
        location, classes = places[found] // num_classes, places[found] % num_classes
        of_box = boxes[image, location]
        kept = batched_nms(of_box, best[found], image * num_classes + classes, SAME_OBJECT)
        kept = kept[image[kept].argsort(stable=True)]
        parts = (image[kept], classes[kept], best[found][kept], of_box[kept], finite)
        return cls(*(part.cpu() for part in parts))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join the boxes of several batches; the result has no blocks."""
        first, moved = 0, []
        for part in parts:
            moved.append(part.image + first)
            first += len(part.finite)
        names = ("classes", "scores", "boxes", "finite")
        return cls(torch.cat(moved), **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def true_boxes(labels: Tensor) -> Detections:
    """Return the true boxes as detections with score 1, from labels float32 [N, M, 5], see `ltsd.locations`."""
    exists = (labels[..., 0] >= 0).cpu()
    of_box, image = labels.cpu()[exists], exists.nonzero()[:, 0]
    return Detections(image, of_box[:, 0].long(), torch.ones(len(image)), of_box[:, 1:], torch.ones(len(labels)).bool())


def precision(found: Detections, labels: Tensor, groups: Groups) -> Overlap:
    """Return the average precision of every class at an IoU of 0.5, in [0, 1]; NaN for a class without a box.

    Args:
        found: on N images.
        labels: the true boxes, float32 [N, M, 5], see `ltsd.locations`.
        groups: of all classes.

    Raises:
        UserError: the packages that compute it are not installed.
    """
    require(PACKAGES, "detection", "the average precision of boxes")
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(iou_thresholds=[IOU], class_metrics=True, backend="faster_coco_eval")
    metric.warn_on_many_detections = False  # it drops the weakest boxes beyond 100 of an image and class
    for image, of_image in enumerate(labels.cpu()):
        is_own, true = found.image == image, of_image[of_image[:, 0] >= 0]
        answer = {"boxes": found.boxes[is_own], "scores": found.scores[is_own], "labels": found.classes[is_own]}
        metric.update([answer], [{"boxes": true[:, 1:], "labels": true[:, 0].long()}])
    values = metric.compute()
    classes, scores = (values[name].reshape(-1).tolist() for name in ("classes", "map_per_class"))
    of_class = dict(zip(classes, scores, strict=True))
    present = set(labels[..., 0].flatten().tolist())
    per_class = tuple(of_class[c] if c in present else float("nan") for c in range(sum(map(len, groups.values()))))
    return Overlap(per_class, groups)
