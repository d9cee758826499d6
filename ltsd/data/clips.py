"""Decoding of clips of sound to waveforms of one rate and length; errors name the clip by its place."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltsd.data.decode import Encoded
from ltsd.data.decoding import Decoded
from ltsd.errors import UserError
from ltsd.packages import require

SUFFIXES = frozenset((".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif"))
"""Of files that soundfile reads."""
LARGEST = 32768
PACKAGES, EXTRA = ("soundfile", "scipy"), "speech"
LONGEST_SECONDS = 3600
LOUDEST = 2
"""Of samples in [-1, 1]: what lossy formats and filters overshoot is less."""
SHORTEST = 1536
"""Samples of a clip. A shorter one has fewer than nine frames of `ltsd.models.speech`, and oneDNN's bfloat16
convolutions with a stride of 2 are wrong on maps that are narrower than 3 (torch 2.15, processors with AMX).
"""

Sound = NDArray[np.float32]


def decode_clips(rows: Encoded, source: str, *, rate: int, seconds: float) -> tuple[Decoded, list[str]]:
    """Decode clips to one channel, resample them, and cut or pad them with zeros at their end.

    Args:
        rows: all with a class.
        source: what messages call the whole.
        rate: samples a second.
        seconds: length.

    Returns:
        The clips, int16 [N, 1, rate * seconds], and remarks on what had to be changed.

    Raises:
        UserError: a clip that cannot be read, is silent or has one sample; none at all; labels other than classes; a
            length of less than SHORTEST samples.
        MissingPackageError: soundfile is not installed.
    """
    require(PACKAGES, EXTRA, f"--data.source {source}: sound")
    length = round(rate * seconds)
    if length < SHORTEST:
        raise UserError(
            f"--data.clip-seconds {seconds:g}: is {length} samples at {rate:,} a second, and the network needs "
            f"{SHORTEST:,}; give {SHORTEST / rate:.3g} or more"
        )
    clips, labels, changed = list[NDArray[np.int16]](), list[int](), Counter[str]()
    for place, encoded, label in rows:
        if not isinstance(label, int):
            raise UserError(f"{place}: sound has a class a clip, and no masks or boxes")
        clip, what = decode_clip(encoded, place, rate=rate, length=length)
        clips.append(clip)
        labels.append(label)
        changed.update(what)
    if not clips:
        raise UserError(f"--data.source {source}: holds no clips")
    notes = [f"{count:,} of {len(clips):,} clips {what}" for what, count in sorted(changed.items())]
    return Decoded(np.stack(clips), np.asarray(labels, dtype=np.int64), 0), notes


def decode_clip(encoded: bytes, place: str, *, rate: int, length: int) -> tuple[NDArray[np.int16], Sequence[str]]:
    """Decode a clip; return int16 [1, length], and what had to be changed, in words.

    Raises:
        UserError: as `decode_clips`.
    """
    sound, own_rate = _read(encoded, place)
    changed = []
    if sound.shape[1] > 1:
        changed.append("had several channels, which were mixed down")
    if np.abs(sound).max(initial=0) > LOUDEST:
        changed.append("had samples far beyond 1, and were clipped there; write samples from -1 to 1")
    mono: Sound = sound.mean(1)
    if len(mono) < 2:
        raise UserError(f"{place}: a clip of {len(mono)} sample(s); take it away, or record it again")
    if own_rate != rate:
        changed.append(f"were resampled from {own_rate} to {rate} samples a second")
        mono = _resampled(mono, own_rate, rate)
    if len(mono) > length:
        changed.append(f"were cut to {length / rate:g} s (--data.clip-seconds)")
    stored: NDArray[np.int16] = np.clip(np.rint(mono[:length] * LARGEST), -LARGEST, LARGEST - 1).astype(np.int16)
    if not stored.any():
        if np.rint(mono * LARGEST).any():
            begins = f"a clip that begins with {length / rate:g} s of silence, and no more is read"
            raise UserError(f"{place}: {begins} (--data.clip-seconds); cut the silence away, or read more")
        raise UserError(f"{place}: a silent clip; take it away, or record it again")
    return np.pad(stored, (0, length - len(stored)))[None], changed


def _read(encoded: bytes, place: str) -> tuple[Sound, int]:
    """Return sound [T, channels] in [-1, 1] and its rate."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            if file.frames > LONGEST_SECONDS * file.samplerate:
                raise UserError(f"{place}: longer than {LONGEST_SECONDS} s; cut it into clips")
            sound: Sound = file.read(dtype="float32", always_2d=True)
            missing = file.frames - len(sound)
            rate = int(file.samplerate)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{place}: sound that cannot be read ({_reason(error)}); WAV, FLAC, OGG and MP3 are read: convert it"
        ) from error
    if missing or _is_cut(encoded):
        raise UserError(f"{place}: a clip that was cut off; copy it again, or take it away")
    if not np.isfinite(sound).all():
        raise UserError(f"{place}: a clip with samples that are NaN or infinite; record it again")
    return sound, rate


def _is_cut(encoded: bytes) -> bool:
    """Return whether a file is shorter than it says: libsndfile reads what is there, and is silent.

    The headers of WAV (RIFF, RF64) and AIFF (FORM) have its length, and each page of OGG has its own.
    """
    kind, length = encoded[:4], len(encoded)
    if kind == b"RIFF":
        return length < 8 + int.from_bytes(encoded[4:8], "little") < 2**32 - 1
    if kind == b"RF64":
        return length < 8 + int.from_bytes(encoded[20:28], "little")
    if kind == b"FORM":
        return length < 8 + int.from_bytes(encoded[4:8], "big")
    if kind == b"OggS":
        page = encoded[encoded.rfind(b"OggS") :]
        segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return not segments or len(page) < 27 + page[26] + sum(segments)
    return False


def _reason(error: BaseException) -> str:
    return str(error).partition(": ")[2].strip().rstrip(".") or str(error)


def _resampled(mono: Sound, rate: int, wanted: int) -> Sound:
    """Return sound [T] at another rate, by a polyphase filter."""
    from scipy.signal import resample_poly

    common = int(np.gcd(rate, wanted))
    resampled: Any = resample_poly(mono, wanted // common, rate // common)
    return np.asarray(resampled, dtype=np.float32)
