"""Pictures of label maps: the colours of classes, attacked images with their answers, images of every class."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltsd.answers import VOID, class_map
from ltsd.attacks.dense_losses import cross_entropy
from ltsd.attacks.domains import PIXELS
from ltsd.attacks.pgd import pgd, steady
from ltsd.data.batches import Split
from ltsd.data.names import ELLIPSIS
from ltsd.evaluation.evaluate import eval_mode
from ltsd.evaluation.pixels import PixelCounts
from ltsd.pictures import BESIDE_IMAGES, DPI, GRID_COLUMNS, GRID_ROWS, drawable

BASE_COLOURS = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Eight colours that the colour-blind tell apart (Okabe and Ito 2008)."""
VOID_COLOUR = "#808080"
STRONGEST_TONE = 0.6
HIGHLIGHT, HIGHLIGHT_ALPHA = "#d55e00", 0.65
SHOWN_IMAGES = 6
SIDE, LEGEND_WIDTH = 1.3, 2.3
"""Inches: the width of an image in a grid, and of its legend."""
LEGEND_NAMES = 20

Colours = NDArray[np.uint8]


def class_colours(count: int) -> Colours:
    """Return the colours of `count` classes, uint8 [count, 3], no two alike and none of them VOID_COLOUR.

    The first eight are BASE_COLOURS. The others are tones of all but black, in turn towards white and towards black;
    nobody tells many of them apart.
    """
    base = np.array([to_rgb(colour) for colour in BASE_COLOURS])
    rounds = -(-max(count - len(base), 0) // (len(base) - 1))
    tones = [base]
    for number in range(rounds):
        share = STRONGEST_TONE * (1 - number // 2 / -(-rounds // 2))
        tones.append((1 - share) * base[1:] + share * (number % 2 == 0))
    colours: Colours = np.rint(255 * np.concatenate(tones)[:count]).astype(np.uint8)
    return colours


def palette(count: int) -> Colours:
    """Return a colour for every value of a label map, uint8 [256, 3]: classes as in `class_colours`, VOID grey."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[:count] = class_colours(count)
    colours[VOID] = np.rint(255 * np.array(to_rgb(VOID_COLOUR)))
    return colours


def map_grid(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Figure:
    """Draw a column for each image: the image, its labels, the answer, the image attacked by PGD, the answer to that.

    Above an answer stands the image's mean IoU. Pixels without a label, or with NaN or infinity in the answer, are
    grey. The legend names LEGEND_NAMES classes of those that are seen, those with most labelled pixels first.

    Args:
        model: images [B, C, H, W] in [0, 1] -> logits [B, H, W, num_classes].
        inputs: [N, C, H, W] in [0, 1], N of about 6, with 1 or 3 channels.
        labels: uint8 [N, H, W], VOID where a pixel has none.
        class_names: in label order.
        eps: radius, in units of the image range [0, 1].
        step_size: length of a step, in the same units.
        steps: gradient steps.
    """
    with eval_mode(model):
        adv_inputs = _attacked(model, inputs, labels.long(), eps, step_size, steps)
        with torch.no_grad():
            answers = [model(images) for images in (inputs, adv_inputs)]
    maps = [each.cpu() for each in (labels, *map(class_map, answers))]
    colours = torch.from_numpy(palette(len(class_names)))
    truth, clean, attacked = (colours[each.long()].movedim(-1, 1) for each in maps)
    rows = {
        "image": _as_rgb(inputs),
        "labels": truth,
        "answer": clean,
        f"PGD-{steps}": _as_rgb(adv_inputs),
        "answer to it": attacked,
    }
    of_images = (PixelCounts.of(logits, labels).image_miou().tolist() for logits in answers)
    scores = dict(zip(("answer", "answer to it"), of_images, strict=True))
    return _with_legend(_bands(rows, scores), maps, class_names)


def _attacked(model: nn.Module, inputs: Tensor, labels: Tensor, eps: float, step_size: float, steps: int) -> Tensor:
    start = PIXELS.uniform(inputs, eps=eps, generator=torch.Generator(inputs.device).manual_seed(0))

    def objective(adv_inputs: Tensor) -> Tensor:
        return cross_entropy(model(steady(adv_inputs)), labels, 0.0).sum()

    return pgd(objective, inputs, domain=PIXELS, eps=eps, step_size=step_size, steps=steps, start=start)


def _bands(rows: Mapping[str, Tensor], scores: Mapping[str, Sequence[float]]) -> Figure:
    """Draw rows of images, uint8 [N, 3, H, W] each, with the scores of some of them above; leave room for a legend."""
    count, _, height, width = next(iter(rows.values())).shape
    tall = SIDE * min(max(height / width, 0.5), 1.4)
    inches = (0.3 + SIDE * count + LEGEND_WIDTH, (tall + 0.2) * len(rows) + 0.1)
    figure = Figure(figsize=inches, dpi=DPI)
    margins = {"left": 0.3 / inches[0], "right": 1 - LEGEND_WIDTH / inches[0], "top": 1 - 0.2 / inches[1]}
    bands = figure.subplots(len(rows), 1, gridspec_kw={**margins, "bottom": 0.1 / inches[1], "hspace": 0.2 / tall})
    for axes, (title, images) in zip(bands, rows.items(), strict=True):
        _show(axes, images)
        axes.set_ylabel(title, fontsize="small")
        for column, score in enumerate(scores.get(title, ())):
            place = {"ha": "center", "va": "bottom", "transform": axes.transAxes, "fontsize": "x-small"}
            axes.text((column + 0.5) / count, 1.0, f"mIoU {100 * score:.0f}%", **place)
    return figure


def _with_legend(figure: Figure, maps: Sequence[Tensor], class_names: Sequence[str]) -> Figure:
    """Name the classes of label maps, the first of which orders them; a number stands for those that do not fit."""
    pixels = [torch.bincount(each.flatten(), minlength=VOID + 1) for each in maps]
    seen = torch.stack(pixels).sum(0)
    order = sorted(seen[:VOID].nonzero().flatten().tolist(), key=lambda c: (-pixels[0][c], -seen[c]))
    names, colours = drawable(class_names, BESIDE_IMAGES), class_colours(len(class_names)) / 255
    handles = [Patch(facecolor=colours[c], label=names[c]) for c in order[:LEGEND_NAMES]]
    if more := len(order) - len(handles):
        handles.append(Patch(facecolor="none", label=f"{ELLIPSIS} and {more} more"))
    if seen[VOID]:
        handles.append(Patch(facecolor=VOID_COLOUR, label="no label, or no answer"))
    corner = (1 - LEGEND_WIDTH / figure.get_figwidth(), 1)
    legend = figure.legend(handles=handles, loc="upper left", bbox_to_anchor=corner, fontsize="small", frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def class_grid(split: Split, class_names: Sequence[str]) -> Figure:
    """Draw a few images of every class with its pixels highlighted, a row each, by falling number of pixels; with many
    classes, the most frequent and the rarest.

    Args:
        split: of images uint8 [M, C, H, W], with 1 or 3 channels, and labels uint8 [M, H, W].
        class_names: in label order.
    """
    pixels = pixels_of_classes(split)
    counts = pixels.sum(0).tolist()
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    shown = order if len(order) <= GRID_ROWS else [*order[: GRID_ROWS // 2], *order[-GRID_ROWS // 2 :]]
    inches = (0.75 * GRID_COLUMNS + 2.2, 0.75 * len(shown) + 0.1)
    figure = Figure(figsize=inches, dpi=DPI)
    margins = {"left": 2.2 / inches[0], "right": 1, "top": 1, "bottom": 0, "hspace": 0.06}
    bands = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw=margins)
    names = drawable(class_names, BESIDE_IMAGES)
    for axes, c in zip(bands[:, 0], shown, strict=True):
        most = pixels[:, c].argsort(descending=True, stable=True)[:GRID_COLUMNS]
        inputs, labels = split.take(most[pixels[most, c] > 0])
        _show(axes, _highlighted(_as_rgb(inputs), labels.cpu() == c), GRID_COLUMNS)
        look = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}
        axes.set_ylabel(f"{names[c]}\n{counts[c]:,}", **look)
    return figure


def images_with_rare_classes(split: Split) -> Tensor:
    """Return the positions of SHOWN_IMAGES images at most, int64: the first with the rarest class, with the next one,
    and so on; then the first of the others.
    """
    pixels = pixels_of_classes(split)
    rarest = [c for c in pixels.sum(0).argsort(stable=True).tolist() if pixels[:, c].any()]
    firsts = (int((pixels[:, c] > 0).nonzero()[0]) for c in rarest)
    chosen = list(dict.fromkeys([*firsts, *range(len(split))]))
    return torch.tensor(chosen[:SHOWN_IMAGES], device=split.rows.device)


def pixels_of_classes(split: Split) -> Tensor:
    """Return the labelled pixels of each image and class, int64 [N, C]."""
    maps = (split.labels[row].flatten() for row in split.rows)
    return torch.stack([torch.bincount(each, minlength=VOID + 1)[: split.num_classes] for each in maps])


def _as_rgb(inputs: Tensor) -> Tensor:
    """Return images [N, C, H, W] in [0, 1] as uint8 [N, 3, H, W] on the CPU."""
    return (255 * inputs).round().byte().cpu().expand(-1, 3, -1, -1)


def _highlighted(images: Tensor, masks: Tensor) -> Tensor:
    """Return images uint8 [N, 3, H, W] with the pixels of masks, bool [N, H, W], tinted."""
    from torchvision.utils import draw_segmentation_masks  # takes seconds to load, which other commands can save

    tint = {"alpha": HIGHLIGHT_ALPHA, "colors": HIGHLIGHT}
    tinted = [draw_segmentation_masks(image, mask, **tint) for image, mask in zip(images, masks, strict=True)]
    return torch.stack(tinted) if tinted else images


def _show(axes: Axes, images: Tensor, columns: int | None = None) -> None:
    """Draw images uint8 [N, 3, H, W] side by side, and white in place of those that `columns` are short of."""
    gap = -(-images.shape[3] // 64)
    band = F.pad(images, (gap, gap), value=255).permute(2, 0, 3, 1)
    missing = (columns or len(images)) - len(images)
    band = F.pad(band, (0, 0, 0, 0, 0, missing), value=255)
    # Blending neighbours would make colours of classes that are not there.
    axes.imshow(band.flatten(1, 2), aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[], frame_on=False)
