"""Pictures of boxes: attacked images with what is found on them, images of every class."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from torch import Tensor, nn

from ltsd.attacks.domains import PIXELS
from ltsd.data.batches import Split
from ltsd.data.names import ELLIPSIS
from ltsd.evaluation.box_attacks import attacked_boxes, both_losses
from ltsd.evaluation.detections import SHOWN_SCORE, Detections
from ltsd.evaluation.evaluate import eval_mode
from ltsd.map_pictures import LEGEND_NAMES, LEGEND_WIDTH, class_colours
from ltsd.pictures import BESIDE_IMAGES, DPI, drawable

SHOWN_IMAGES, GRID_IMAGES, GRID_COLUMNS = 5, 15, 5
SIDE = 1.6
"""Inches: the width of an image."""


def box_grid(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Figure:
    """Draw a column for each image: the image with its boxes, with what is found on it, and, under PGD on the loss of
    classes and boxes, the attacked image with what is found on that.

    Boxes with a score below SHOWN_SCORE are not drawn. The legend names LEGEND_NAMES classes of those that are drawn.

    Args:
        model: images [B, C, H, W] in [0, 1] -> [B, L, num_classes + 1 + BOX].
        inputs: [N, C, H, W] in [0, 1], N of about 5, with 1 or 3 channels.
        labels: float32 [N, M, 5], see `ltsd.locations`.
        class_names: in label order.
        eps: radius, in units of the image range [0, 1].
        step_size: length of a step, in the same units.
        steps: gradient steps.
    """
    start = PIXELS.uniform(inputs, eps=eps, generator=torch.Generator(inputs.device).manual_seed(0))
    with eval_mode(model):
        adv_inputs = attacked_boxes(
            model, inputs, labels, both_losses, start, eps=eps, step_size=step_size, steps=steps
        )
        with torch.no_grad():
            clean, attacked = (_found(model, images) for images in (inputs, adv_inputs))
    true = [of_image[of_image[:, 0] >= 0] for of_image in labels.cpu()]
    rows = {"boxes": (inputs, true), "answer": (inputs, clean), f"PGD-{steps}": (adv_inputs, attacked)}
    figure, grid = _figure(len(rows), len(inputs), inputs)
    colours = _colours(len(class_names))
    for of_row, (title, (images, boxes)) in zip(grid, rows.items(), strict=True):
        for axes, image, of_image in zip(of_row, images, boxes, strict=True):
            _draw(axes, image, of_image, colours)
        of_row[0].set_ylabel(title, fontsize="small")
    return _with_legend(figure, [*true, *clean, *attacked], class_names)


def labelled_images(split: Split, class_names: Sequence[str]) -> Figure:
    """Draw images with their boxes, those with rare classes first.

    Args:
        split: of images uint8 [M, C, H, W], with 1 or 3 channels, and boxes.
        class_names: in label order.
    """
    inputs, labels = split.take(images_with_rare_boxes(split, GRID_IMAGES))
    columns = min(GRID_COLUMNS, len(inputs))
    figure, grid = _figure(-(-len(inputs) // columns), columns, inputs)
    boxes = [of_image[of_image[:, 0] >= 0] for of_image in labels.cpu()]
    colours, places = _colours(len(class_names)), [axes for of_row in grid for axes in of_row]
    for axes in places[len(inputs) :]:
        axes.set_axis_off()
    for axes, image, of_image in zip(places, inputs, boxes, strict=False):
        _draw(axes, image, of_image, colours)
    return _with_legend(figure, boxes, class_names)


def images_with_rare_boxes(split: Split, count: int = SHOWN_IMAGES) -> Tensor:
    """Return the positions of `count` images at most, int64: the first with the class of fewest boxes, with the next
    one, and so on; then the first of the others.
    """
    classes = split.labels[split.rows][..., 0]
    has = torch.stack([(classes == c).sum(1) for c in range(split.num_classes)], 1)
    rarest = [c for c in has.sum(0).argsort(stable=True).tolist() if has[:, c].any()]
    firsts = (int(has[:, c].nonzero()[0]) for c in rarest)
    chosen = list(dict.fromkeys([*firsts, *range(len(split))]))
    return torch.tensor(chosen[:count], device=split.rows.device)


def _found(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return the boxes [K, 5] that are found on each image, see `ltsd.locations`."""
    found = Detections.of(model(inputs), *inputs.shape[2:])
    boxes = torch.cat([found.classes[:, None].float(), found.boxes], 1)
    is_sure = found.scores >= SHOWN_SCORE
    return [boxes[is_sure & (found.image == image)] for image in range(len(inputs))]


def _figure(rows: int, columns: int, inputs: Tensor) -> tuple[Figure, list[list[Axes]]]:
    tall = SIDE * min(max(inputs.shape[2] / inputs.shape[3], 0.5), 1.4)
    inches = (0.3 + SIDE * columns + LEGEND_WIDTH, tall * rows + 0.1)
    figure = Figure(figsize=inches, dpi=DPI)
    margins = {"left": 0.3 / inches[0], "right": 1 - LEGEND_WIDTH / inches[0], "top": 1 - 0.05 / inches[1]}
    spaces = {"bottom": 0.05 / inches[1], "hspace": 0.04, "wspace": 0.04}
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**margins, **spaces})
    return figure, [list(of_row) for of_row in grid]


def _colours(count: int) -> NDArray[np.float64]:
    """Return a colour for each class, none of them black."""
    colours: NDArray[np.float64] = class_colours(count + 1)[1:] / 255
    return colours


def _draw(axes: Axes, image: Tensor, boxes: Tensor, colours: NDArray[np.float64]) -> None:
    """Draw an image [C, H, W] in [0, 1] and its boxes [K, 5]."""
    shown = image.cpu().expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()
    height, width = shown.shape[:2]
    # Without an extent, pixels would be centred on whole numbers, and boxes half a pixel off.
    axes.imshow(shown, extent=(0, width, height, 0), interpolation="nearest", aspect="auto")
    axes.set(xticks=[], yticks=[], frame_on=False)
    for label, x0, y0, x1, y1 in boxes.tolist():
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=1.5, edgecolor=colours[int(label)]))


def _with_legend(figure: Figure, boxes: Sequence[Tensor], class_names: Sequence[str]) -> Figure:
    """Name the classes of boxes, those with most of them first; a number stands for those that do not fit."""
    counts = torch.bincount(torch.cat(list(boxes))[:, 0].long(), minlength=len(class_names))
    order = [c for c in counts.argsort(descending=True, stable=True).tolist() if counts[c]]
    names, colours = drawable(class_names, BESIDE_IMAGES), _colours(len(class_names))
    handles = [Patch(facecolor=colours[c], label=names[c]) for c in order[:LEGEND_NAMES]]
    if more := len(order) - len(handles):
        handles.append(Patch(facecolor="none", label=f"{ELLIPSIS} and {more} more"))
    corner = (1 - LEGEND_WIDTH / figure.get_figwidth(), 1)
    legend = figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure
