"""Clips of sound, and the layouts in which they lie on a disk."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from imagesets import REAL_DATA
from numpy.typing import NDArray

SPOKEN_DIGITS = REAL_DATA / "spoken-digits"
RATE = 8000
TONES = (300, 600, 1200, 2400)
"""Hertz, by class."""


def tone(hertz: float, *, samples: int = 1600, rate: int = RATE, seed: int = 0) -> NDArray[np.float64]:
    """A tone of a length, a phase and noise of its own, [T] in [-1, 1]."""
    draws = np.random.RandomState(seed)
    time = np.arange(samples) / rate
    return 0.3 * np.sin(2 * np.pi * (hertz * time + draws.rand())) + 0.05 * draws.randn(samples)


def encoded(sound: NDArray[np.float64], *, rate: int = RATE, kind: str = "WAV") -> bytes:
    """Sound [T] or [T, channels] as a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=kind)
    return buffer.getvalue()


def write_tones(root: Path, counts: Sequence[int], *, suffix: str = "wav") -> Path:
    """A folder of clips for each class, named by its tone."""
    for label, count in enumerate(counts):
        folder = root / f"{TONES[label]} Hz"
        folder.mkdir(parents=True)
        for number in range(count):
            sound = tone(TONES[label], samples=1200 + 20 * number, seed=100 * label + number)
            (folder / f"{number:03d}.{suffix}").write_bytes(encoded(sound, kind=suffix.upper()))
    return root
