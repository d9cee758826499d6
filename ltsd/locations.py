"""The locations of a dense detector, the box that each answers for, and boxes from answers (Tian et al. 2019, FCOS).

A box is (x0, y0, x1, y1) in pixels from the upper left corner of its image. The labels of an image are float32 [M, 5],
(class, x0, y0, x1, y1), padded with class NONE.
"""

import torch
from torch import Tensor

STRIDES = (4, 8, 16)
REACH = 4
"""A level answers for boxes whose farthest side is at most so many strides away, and farther than on the level before;
the last one for all others.
"""
CENTRE = 1.5
"""How many strides a location may be away from the centre of its box, in x and in y."""
NEAREST = 0.125
"""The least distance to a side, in strides, of a location that is the only one of a narrow box."""
LARGEST = 5.0
"""The largest logarithm of a distance in strides."""
BOX = 5
"""What a location answers beside classes: the logarithms of four distances, and the centreness."""
NONE = -1


def locations(height: int, width: int, device: torch.device) -> Tensor:
    """Return the locations of an image, float32 [L, 3]: x, y and stride in pixels, level by level and row by row."""
    levels = []
    for stride in STRIDES:
        rows, columns = (torch.arange(-(-side // stride), device=device) for side in (height, width))
        y, x = torch.meshgrid(stride * (rows + 0.5), stride * (columns + 0.5), indexing="ij")
        levels.append(torch.stack([x, y, torch.full_like(x, stride)], -1).flatten(0, 1))
    return torch.cat(levels)


def matched(labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return which class each location answers for, and how far the sides of its box are.

    A location answers for the smallest of the boxes that it is in, near the centre, on the level of their size (FCOS,
    section 3.2, with centre sampling). A box without any has the location that is nearest to its centre: narrow boxes
    lie between locations.

    Args:
        labels: float32 [B, M, 5].
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        Classes int64 [B, L], NONE for background; distances to the left, upper, right and lower side in strides,
        float32 [B, L, 4], at least NEAREST.
    """
    where = locations(height, width, labels.device)
    point, stride = where[:, None, :2], where[:, None, 2:]
    corners, exists = labels[:, None, :, 1:], labels[..., 0] >= 0
    distances = torch.cat([point - corners[..., :2], corners[..., 2:] - point], -1) / stride  # [B, L, M, 4]
    off = (point - (corners[..., :2] + corners[..., 2:]) / 2).abs().amax(-1) / stride[..., 0]
    farthest = distances.amax(-1) * stride[..., 0]
    inside = (distances.amin(-1) > 0) & (off <= CENTRE) & _is_on_level(farthest, stride[..., 0])
    sides = (labels[..., 3:] - labels[..., 1:3]).amax(-1)[:, None]
    own_level = _is_on_level(sides / 2, stride[..., 0])
    nearest = torch.where(own_level, off, torch.inf).argmin(1)
    alone = ~inside.any(1, keepdim=True) & (torch.arange(len(where), device=labels.device)[:, None] == nearest[:, None])
    candidates = (inside | alone) & exists[:, None]
    areas = (labels[..., 3:] - labels[..., 1:3]).prod(-1)[:, None].expand(candidates.shape)
    smallest, box = torch.where(candidates, areas, torch.inf).min(-1)
    classes = labels[..., 0].long().gather(1, box)
    of_box = distances.gather(2, box[..., None, None].expand(-1, -1, 1, 4)).squeeze(2)
    return torch.where(smallest.isfinite(), classes, NONE), of_box.clamp_min(NEAREST)


def _is_on_level(farthest: Tensor, stride: Tensor) -> Tensor:
    """Return whether boxes with their farthest side so many pixels away belong to the level of a stride."""
    above = torch.where(stride == STRIDES[0], 0, REACH * stride / 2)
    below = torch.where(stride == STRIDES[-1], torch.inf, REACH * stride)
    return (farthest > above) & (farthest <= below)


def centreness(distances: Tensor) -> Tensor:
    """Return how central locations are in boxes at distances [..., 4]: 1 in the centre, 0 at a side [...]."""
    horizontal, vertical = distances[..., 0::2], distances[..., 1::2]
    ratio = (horizontal.amin(-1) / horizontal.amax(-1)) * (vertical.amin(-1) / vertical.amax(-1))
    return ratio.sqrt()


def decoded(logarithms: Tensor, height: int, width: int) -> Tensor:
    """Return the boxes that the logarithms of distances in strides [B, L, 4] say, inside the image: [B, L, 4]."""
    where = locations(height, width, logarithms.device)
    point, stride = where[:, :2], where[:, 2:]
    far = stride * logarithms.clamp_max(LARGEST).exp()
    boxes = torch.cat([point - far[..., :2], point + far[..., 2:]], -1)
    low, high = boxes.new_zeros(4), boxes.new_tensor([width, height, width, height])
    return boxes.clamp(low, high)
