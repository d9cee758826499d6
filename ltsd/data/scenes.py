"""Digits scenes: several handwritten digits of a long-tailed draw on a canvas, the class of every pixel, and boxes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltsd.locations import NONE

SIZE = 32
SCENES = {"train": 320, "validation": 96, "test": 256}
IMBALANCE_RATIO = 10.0
"""How many times as often a 0 is drawn as a 9."""
CELLS, FILLED = 3, 0.6
INK = 64
"""The least brightness of 255 that makes a pixel a part of its digit."""
DARKEST_GROUND = 48
BACKGROUND = "background"
CLASS_NAMES = (BACKGROUND, *(str(digit) for digit in range(10)))


class Scenes(NamedTuple):
    """Images uint8 [N, 1, SIZE, SIZE]; labels uint8 [N, SIZE, SIZE], indices into CLASS_NAMES; and the digit and the
    tight box of what is placed, float32 [N, CELLS * CELLS, 5], see `ltsd.locations`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    boxes: NDArray[np.float32]


def digits_scenes() -> dict[str, Scenes]:
    """Draw the scenes of training, validation and test, always the same; no digit is in two of the three.

    Digit c is drawn in proportion to IR^(-c / 9). Each of CELLS x CELLS cells holds a digit with probability FILLED.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    random = np.random.RandomState(0)
    parts: dict[str, list[NDArray[np.uint8]]] = {part: [] for part in SCENES}
    for digit in range(10):
        of_digit = images[random.permutation(np.flatnonzero(digits.target == digit))]
        cuts = np.cumsum([int(0.6 * len(of_digit)), int(0.15 * len(of_digit))])
        for part, own in zip(SCENES, np.split(of_digit, cuts), strict=True):
            parts[part].append(own)
    return {part: _drawn(count, parts[part], random) for part, count in SCENES.items()}


def _drawn(count: int, by_digit: list[NDArray[np.uint8]], random: np.random.RandomState) -> Scenes:
    images = random.randint(0, DARKEST_GROUND, (count, 1, SIZE, SIZE)).astype(np.uint8)
    labels = np.zeros((count, SIZE, SIZE), dtype=np.uint8)
    boxes = np.full((count, CELLS * CELLS, 5), NONE, dtype=np.float32)
    shares = IMBALANCE_RATIO ** (-np.arange(10) / 9)
    shares /= shares.sum()
    pitch = SIZE // CELLS
    for image, label, own in zip(images[:, 0], labels, boxes, strict=True):
        for cell in range(CELLS * CELLS):
            if random.rand() > FILLED:
                continue
            digit = random.choice(10, p=shares)
            ink = by_digit[digit][random.randint(len(by_digit[digit]))]
            slack = random.randint(0, pitch - len(ink) + 1, 2)
            top, left = pitch * np.array(divmod(cell, CELLS)) + slack
            place = np.s_[top : top + len(ink), left : left + len(ink)]
            image[place] = np.maximum(image[place], ink)
            is_ink = ink >= INK
            label[place][is_ink] = digit + 1
            rows, columns = top + np.flatnonzero(is_ink.any(1)), left + np.flatnonzero(is_ink.any(0))
            own[cell] = digit, columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return Scenes(images, labels, boxes)
