"""Pictures of one run: learning curves, recalls by class, attacked images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.domains import PIXELS, Domain
from ltsd.attacks.pgd import pgd, steady
from ltsd.data.batches import Split
from ltsd.data.longtail import Groups
from ltsd.data.names import told_apart
from ltsd.evaluation.evaluate import eval_mode

COLOURS = {
    "clean": "#9ec9e2",
    "fgsm": "#c3b4dc",
    "robust": "#3c93c2",
    "pgd20": "#3c93c2",
    "cw20": "#8a6fb0",
    "ls20": "#7fa99b",
    "corruption": "#d8b26a",
    "aa": "#0d4a70",
    "apgd_ce_t": "#0d4a70",
    "aafew": "#0d4a70",
    "segpgd20": "#8a6fb0",
    "masked20": "#7fa99b",
    "balanced20": "#b07d62",
    "js20": "#a9a05a",
    "sea20": "#3f6f8f",
    "sea300": "#3f6f8f",
    "box20": "#7fa99b",
    "both20": "#8a6fb0",
    "edit1": "#d8b26a",
    "edit2": "#b07d62",
    "snr40": "#c9d7a3",
    "snr30": "#a9a05a",
    "snr20": "#b07d62",
    "worst": "#0d4a70",
}
GROUP_COLOURS = {"head": "#f2f2f2", "medium": "#ffffff", "tail": "#fdeee0"}
DPI = 80
GRID_ROWS, GRID_COLUMNS = 20, 8
MOST_BARS = 30
STEPS = 60
UPRIGHT, SLANTED, ABOVE_AN_IMAGE, BESIDE_IMAGES = 10, 20, 11, 22
"""Widths of class names, in characters: under bars upright or slanted, above images, beside a row of them."""


def learning_curves(
    epochs: Sequence[int],
    values: Sequence[Mapping[str, float]],
    *,
    measure: str = "acc",
    title: str = "class-balanced accuracy",
) -> Figure:
    """Draw loss, and training and validation scores, over epochs.

    Args:
        epochs: counting from 1.
        values: the metrics of each epoch; some may be missing.
        measure: the last word of the validation's scores.
        title: what the scores are.
    """
    scores = ("train/robust_acc", *(f"val/{name}_{measure}" for name in ("clean", "robust", "tail_robust")))
    figure = Figure(figsize=(9, 3.4), dpi=DPI)
    left, right = figure.subplots(1, 2, gridspec_kw={"left": 0.06, "right": 0.98, "top": 0.9, "bottom": 0.15})
    names = list(dict.fromkeys(name for row in values for name in row))
    for name in names:
        points = [(epoch, row[name]) for epoch, row in zip(epochs, values, strict=True) if name in row]
        if name.endswith("loss"):
            left.plot(*zip(*points, strict=True), label=name)
        elif name in scores:
            right.plot(*zip(*points, strict=True), label=name, marker="." if name.startswith("val") else "")
    left.set(xlabel="epoch", title="loss")
    right.set(xlabel="epoch", title=f"{title} (robust: PGD)", ylim=(0, 1))
    for axes, corner in ((left, "upper right"), (right, "lower right")):
        if axes.lines:
            axes.legend(fontsize="small", loc=corner)
    return figure


def class_bars(
    recalls: Mapping[str, Sequence[float]],
    class_counts: Sequence[int],
    class_names: Sequence[str],
    groups: Groups,
    *,
    measure: str = "recall",
    counted: str = "images",
) -> Figure:
    """Draw the recall of every class under every attack, classes by falling training count, their groups shaded.

    With more than MOST_BARS classes, draw steps instead of bars: means over neighbouring classes in that order.

    Args:
        recalls: {attack: [C] in [0, 1]}; `clean` first, all of them in COLOURS.
        class_counts: training images of each class.
        class_names: in label order.
        groups: the classes by their training counts.
        measure: what is drawn where it is not the recall.
        counted: what is counted where it is not images.
    """
    order = sorted(range(len(class_counts)), key=lambda c: -class_counts[c])
    falling = [class_counts[c] for c in order]
    of_rank = {attack: [recall[c] for c in order] for attack, recall in recalls.items()}
    if len(order) > MOST_BARS:
        figure = _steps(of_rank, falling, counted)
    else:
        names = drawable(class_names, SLANTED)
        figure = _bars(of_rank, falling, [names[c] for c in order], counted)
    left, axes = -0.5, figure.axes[0]
    for group, classes in groups.items():
        axes.axvspan(left, left + len(classes), color=GROUP_COLOURS[group], zorder=0)
        axes.text(left + len(classes) / 2, 1.02, group, ha="center", transform=axes.get_xaxis_transform())
        left += len(classes)
    axes.set(ylabel=measure, ylim=(0, 1), xlim=(-0.5, left))
    return figure


def _bars(recalls: Mapping[str, Sequence[float]], counts: Sequence[int], names: Sequence[str], counted: str) -> Figure:
    """Draw a bar for each class and attack; slant long names."""
    is_upright = max(map(len, names)) <= UPRIGHT
    figure = Figure(figsize=(max(7, 0.7 * len(counts)), 3.6 if is_upright else 4.6), dpi=DPI)
    left, bottom = (0.09, 0.22) if is_upright else (1.6 / figure.get_figwidth(), 0.38)
    axes = figure.subplots(gridspec_kw={"left": left, "right": 0.98, "top": 0.92, "bottom": bottom})
    width = 0.8 / len(recalls)
    for index, (attack, recall) in enumerate(recalls.items()):
        places = [place - 0.4 + (index + 0.5) * width for place in range(len(counts))]
        axes.bar(places, recall, width, label=attack, color=COLOURS[attack], zorder=2)
    between = "\n" if is_upright else ", "
    labels = [f"{name}{between}{count}" for name, count in zip(names, counts, strict=True)]
    axes.set_xticks(range(len(counts)), labels, parse_math=False)
    if not is_upright:
        axes.tick_params(axis="x", rotation=35, rotation_mode="xtick")
    axes.set_xlabel(f"class and its training {counted}")
    axes.legend(fontsize="small", loc="lower left")
    return figure


def _steps(recalls: Mapping[str, Sequence[float]], counts: Sequence[int], counted: str) -> Figure:
    """Draw a line for each attack: the mean recalls of STEPS runs of classes, or of every class if there are fewer."""
    figure = Figure(figsize=(10, 4), dpi=DPI)
    axes = figure.subplots(gridspec_kw={"left": 0.07, "right": 0.98, "top": 0.92, "bottom": 0.2})
    steps = min(STEPS, len(counts))
    edges = np.linspace(0, len(counts), steps + 1).round().astype(int)
    for attack, recall in recalls.items():
        means = np.add.reduceat(recall, edges[:-1]) / np.diff(edges)
        axes.stairs(means, edges - 0.5, label=attack, color=COLOURS[attack], linewidth=1.6, baseline=None, zorder=2)
    ranks = np.linspace(0, len(counts) - 1, 9).round().astype(int)
    axes.set_xticks(ranks, [f"{rank + 1}\n{counts[rank]}" for rank in ranks])
    means_of = f"; means of {steps} runs of classes" if steps < len(counts) else ""
    axes.set_xlabel(f"rank of the class among {len(counts):,}, and its training {counted}{means_of}")
    axes.legend(fontsize="small", loc="upper right")
    return figure


def drawable(class_names: Sequence[str], width: int) -> list[str]:
    """Return names that the font can draw: `class 17` for one with missing glyphs."""
    font = get_font(findfont("DejaVu Sans"))
    return [
        name if all(font.get_char_index(ord(sign)) for sign in name) else f"class {c}"
        for c, name in enumerate(told_apart(class_names, width))
    ]


def attacked_answers(
    model: nn.Module, inputs: Tensor, labels: Tensor, *, domain: Domain, eps: float, step_size: float, steps: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the inputs that PGD on cross-entropy makes of inputs [N, ...] from one random start, always the same, and
    the answers to both, logits [N, C] each.
    """
    start = domain.uniform(inputs, eps=eps, generator=torch.Generator(inputs.device).manual_seed(0))
    with eval_mode(model):
        adv_inputs = pgd(
            lambda x: F.cross_entropy(model(steady(x)), labels, reduction="sum"),
            inputs,
            domain=domain,
            eps=eps,
            step_size=step_size,
            steps=steps,
            start=start,
        )
        with torch.no_grad():
            return adv_inputs, (model(inputs), model(adv_inputs))


def attack_grid(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Figure:
    """Draw a column for each image: clean, attacked by PGD, the perturbation, and the answers to the first two: a
    class, green if right and red if not, or "NaN" if the answer has NaN or infinity.

    Args:
        inputs: [N, C, H, W] in [0, 1], N of about 10.
        labels: [N].
    """
    adv_inputs, answers = attacked_answers(
        model, inputs, labels, domain=PIXELS, eps=eps, step_size=step_size, steps=steps
    )
    figure = Figure(figsize=(1.05 * len(inputs), 3.9), dpi=DPI)
    margins = {"left": 0.06, "right": 0.99, "top": 0.93, "bottom": 0.02, "hspace": 0.22}
    bands = figure.subplots(3, 1, gridspec_kw=margins)
    rows = (inputs, adv_inputs, ((adv_inputs - inputs) / (2 * eps) + 0.5).clamp(0, 1))
    titles = ("clean", f"PGD-{steps}", "perturbation")
    for axes, images, title in zip(bands, rows, titles, strict=True):
        band = F.pad(images, (1, 1), value=1.0).cpu().permute(2, 0, 3, 1).flatten(1, 2)
        axes.imshow(band.squeeze(-1), cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.set_ylabel(title, fontsize="small")
    names, width = drawable(class_names, ABOVE_AN_IMAGE), inputs.shape[3] + 2
    for axes, logits in zip(bands, answers, strict=False):
        said = [
            names[answer] if finite else "NaN"
            for answer, finite in zip(logits.argmax(1).tolist(), is_finite(logits).tolist(), strict=True)
        ]
        for column, (word, right) in enumerate(zip(said, is_right(logits, labels).tolist(), strict=True)):
            look = {"fontsize": "small", "color": "#1a7f37" if right else "#cf222e", "parse_math": False}
            axes.text((column + 0.5) * width, -0.8, word, ha="center", va="bottom", **look)
    return figure


def image_grid(split: Split, class_names: Sequence[str]) -> Figure:
    """Draw a few images of every class, a row each, by falling count; with many classes, the most frequent and the
    rarest.

    Args:
        split: of images of any size, uint8 [N, C, H, W] with 1 or 3 channels.
        class_names: in label order.
    """
    counts = split.class_counts()
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    shown = order if len(order) <= GRID_ROWS else [*order[: GRID_ROWS // 2], *order[-GRID_ROWS // 2 :]]
    labels = split.labels[split.rows]
    figure = Figure(figsize=(0.75 * GRID_COLUMNS + 2.2, 0.75 * len(shown) + 0.1), dpi=DPI)
    margins = {"left": 2.2 / (0.75 * GRID_COLUMNS + 2.2), "right": 1, "top": 1, "bottom": 0, "hspace": 0.06}
    bands = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw=margins)
    names = drawable(class_names, BESIDE_IMAGES)
    for axes, c in zip(bands[:, 0], shown, strict=True):
        inputs, _ = split.take((labels == c).nonzero()[:GRID_COLUMNS, 0])
        band = F.pad(inputs, (1, 1), value=1.0).permute(2, 0, 3, 1).flatten(1, 2)
        empty = torch.ones(len(band), (GRID_COLUMNS - len(inputs)) * (inputs.shape[3] + 2), band.shape[2])
        axes.imshow(torch.cat([band, empty], 1).squeeze(-1), cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set(xticks=[], yticks=[], frame_on=False)
        look = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}
        axes.set_ylabel(f"{names[c]}\n{counts[c]:,}", **look)
    return figure
