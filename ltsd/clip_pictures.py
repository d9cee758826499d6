"""Pictures of clips of sound: their waveforms and spectrograms, clean and attacked."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from ltsd.answers import is_finite, is_right
from ltsd.attacks.domains import SOUND
from ltsd.data.batches import Split
from ltsd.models.speech import LogMel
from ltsd.pictures import ABOVE_AN_IMAGE, BESIDE_IMAGES, DPI, attacked_answers, drawable

SHOWN_CLASSES, SHOWN_CLIPS = 12, 4
RIGHT, WRONG, WAVE, MOVED = "#1a7f37", "#cf222e", "#3c93c2", "#8a6fb0"


def clip_grid(split: Split, class_names: Sequence[str]) -> Figure:
    """Draw a few clips of the most frequent classes, or of all, a row each: the waveform above its spectrogram."""
    counts = split.class_counts()
    order = sorted(range(len(counts)), key=lambda c: -counts[c])[:SHOWN_CLASSES]
    labels = split.labels[split.rows]
    figure = Figure(figsize=(2.1 * SHOWN_CLIPS + 1.6, 1.1 * len(order) + 0.1), dpi=DPI)
    margins = {"left": 0.16, "right": 0.99, "top": 0.99, "bottom": 0.01, "hspace": 0.08, "wspace": 0.04}
    rows = figure.subplots(2 * len(order), SHOWN_CLIPS, squeeze=False, gridspec_kw=margins)
    names = drawable(class_names, BESIDE_IMAGES)
    for place, c in enumerate(order):
        inputs, _ = split.take((labels == c).nonzero()[:SHOWN_CLIPS, 0])
        for column in range(SHOWN_CLIPS):
            wave, spectrum = rows[2 * place, column], rows[2 * place + 1, column]
            _bare(wave, spectrum)
            if column < len(inputs):
                _draw(wave, spectrum, inputs[column], WAVE)
        look = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}
        rows[2 * place, 0].set_ylabel(f"{names[c]}\n{counts[c]:,}", **look)
    return figure


def attacked_clips(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Figure:
    """Draw a column for each clip: waveform and spectrogram, clean and attacked by PGD, the perturbation on a scale of
    its own, and the answers: a class, green if right and red if not, or "NaN".

    Args:
        inputs: [N, 1, T] in [-1, 1], N of about 6.
        labels: [N].
    """
    adv_inputs, answers = attacked_answers(
        model, inputs, labels, domain=SOUND, eps=eps, step_size=step_size, steps=steps
    )
    figure = Figure(figsize=(1.9 * len(inputs) + 0.5, 5.2), dpi=DPI)
    margins = {"left": 0.05, "right": 0.99, "top": 0.94, "bottom": 0.02, "hspace": 0.3, "wspace": 0.05}
    rows = figure.subplots(5, len(inputs), squeeze=False, gridspec_kw=margins)
    names = drawable(class_names, ABOVE_AN_IMAGE)
    for column in range(len(inputs)):
        _bare(*rows[:, column])
        for place, (sound, logits) in enumerate(zip((inputs, adv_inputs), answers, strict=True)):
            wave, spectrum = rows[2 * place, column], rows[2 * place + 1, column]
            _draw(wave, spectrum, sound[column], WAVE)
            own, label = logits[column : column + 1], labels[column : column + 1]
            word = names[int(own.argmax())] if bool(is_finite(own)) else "NaN"
            wave.set_title(
                word, fontsize="small", color=RIGHT if bool(is_right(own, label)) else WRONG, parse_math=False
            )
        moved = rows[4, column]
        moved.plot((adv_inputs - inputs)[column, 0].cpu(), color=MOVED, linewidth=0.4)
        moved.set(ylim=(-1.5 * eps, 1.5 * eps))
    for row, title in zip(rows[:, 0], ("clean", "", f"PGD-{steps}", "", f"perturbation\n± {eps:g}"), strict=True):
        row.set_ylabel(title, fontsize="small")
    return figure


def _draw(wave: Axes, spectrum: Axes, sound: Tensor, colour: str) -> None:
    """Draw sound [1, T] as waveform and as log-mel spectrogram."""
    wave.plot(sound[0].cpu(), color=colour, linewidth=0.4)
    wave.set(ylim=(-1, 1), xlim=(0, sound.shape[1]))
    with torch.no_grad():
        spectrum.imshow(LogMel()(sound[None].cpu())[0, 0], origin="lower", aspect="auto", cmap="magma")


def _bare(*axes: Axes) -> None:
    for one in axes:
        one.set(xticks=[], yticks=[], frame_on=False)
