"""Clips of sound: what is read of them, what the network hears, and what an exam does to them."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from soundsets import RATE, SPOKEN_DIGITS, TONES, encoded, tone, write_tones
from torch import Tensor

from ltsd.__main__ import main
from ltsd.config import DataConfig
from ltsd.data import load_splits
from ltsd.data.batches import Split
from ltsd.data.clips import SHORTEST, decode_clip
from ltsd.data.sound_augment import LONGEST_SPAN, WIDEST_BAND, masked, shift_gain_noise
from ltsd.data.sources import load_source
from ltsd.errors import UserError
from ltsd.evaluation.sound import (
    CORRUPTIONS,
    WET,
    clipping,
    echo,
    mu_law,
    radius_in_decibels,
    signal_power,
    white_noise,
)
from ltsd.models.speech import HOP, MELS, WINDOW, LogMel

SOUND = tone(600)
WAV = encoded(SOUND)


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as refused:
        decode_clip(content, "here.wav", rate=RATE, length=RATE)
    return str(refused.value)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_folders_of_clips_are_read_as_waveforms_padded_with_zeros(tmp_path: Path, suffix: str) -> None:
    write_tones(tmp_path, [4, 3], suffix=suffix)
    source = load_source(DataConfig(source=str(tmp_path), clip_seconds=0.2, test_fraction=0.34))
    clips = source.train.images
    assert source.train.class_names == ("300 Hz", "600 Hz")
    assert (clips.dtype, clips.shape[1:]) == (torch.int16, (1, 1600))
    first = np.rint(32768 * tone(300, samples=1200, seed=0)).astype(np.int16)
    told = [clip for clip in clips[:, 0] if np.abs(clip[:1200].numpy() - first).max() <= 1]
    assert len(told) == 1
    assert not told[0][1200:].any()


def test_parquet_of_the_hugging_face_library_is_read_and_what_was_changed_is_told(tmp_path: Path) -> None:
    """Rates that differ are made one, channels are mixed, long clips are cut."""
    stereo = np.stack([SOUND, np.zeros_like(SOUND)], 1)
    fast = encoded(tone(600, samples=3200, rate=16000), rate=16000)
    contents = [WAV, encoded(stereo), fast, encoded(tone(300, samples=9000)), WAV, WAV]
    rows = [{"bytes": content, "path": f"{number}.wav"} for number, content in enumerate(contents)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"audio": rows, "label": [0, 0, 0, 1, 1, 1]}), path)
    source = load_source(DataConfig(source=str(path), test_fraction=0.34))
    told = list(source.reading.lines("clips"))
    assert "6 clips of 1 file" in told[0]
    assert told[1:4] == [
        "read: train: 1 of 6 clips had several channels, which were mixed down",
        "read: train: 1 of 6 clips were cut to 1 s (--data.clip-seconds)",
        "read: train: 1 of 6 clips were resampled from 16000 to 8000 samples a second",
    ]
    mixed, _ = decode_clip(encoded(stereo), "", rate=RATE, length=1600)
    plain, _ = decode_clip(WAV, "", rate=RATE, length=1600)
    assert np.abs(2 * mixed.astype(int) - plain).max() <= 2


def test_resampling_keeps_a_tone_that_both_rates_can_hold() -> None:
    fast = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    slow = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    clip, _ = decode_clip(encoded(fast, rate=16000), "", rate=RATE, length=RATE)
    assert np.abs(clip[0, 200:-200] / 32768 - slow[200:-200]).max() < 2e-3


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (encoded(np.zeros(1000)), "here.wav: a silent clip; take it away, or record it again"),
        (encoded(SOUND[:1]), "here.wav: a clip of 1 sample(s); take it away, or record it again"),
        (WAV[:-500], "here.wav: a clip that was cut off; copy it again, or take it away"),
        (
            encoded(np.append(np.zeros(RATE), SOUND)),
            "here.wav: a clip that begins with 1 s of silence, and no more is read (--data.clip-seconds); cut the",
        ),
        (b"RIFF" + bytes(60), "here.wav: sound that cannot be read ("),
        (b"no sound", "here.wav: sound that cannot be read ("),
    ],
    ids=["silent", "one sample", "cut off", "silent where it is read", "no format", "text"],
)
def test_a_clip_that_cannot_serve_is_refused_by_its_place(content: bytes, told: str) -> None:
    assert refusal(content).startswith(told)


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "OGG", "FLAC", "MP3"])
def test_a_clip_that_was_cut_off_is_refused_in_any_format(kind: str) -> None:
    whole = encoded(tone(600, samples=5 * RATE), kind=kind)
    assert decode_clip(whole, "here.wav", rate=RATE, length=RATE)[0].any()
    for length in (len(whole) * 9 // 10, len(whole) // 2):
        assert "here.wav: " in refusal(whole[:length])


def test_samples_far_beyond_1_are_told() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, 32768 * SOUND, RATE, format="WAV", subtype="FLOAT")
    _, changed = decode_clip(buffer.getvalue(), "here.wav", rate=RATE, length=RATE)
    assert changed == ["had samples far beyond 1, and were clipped there; write samples from -1 to 1"]


def test_clips_of_fewer_than_nine_frames_are_refused(tmp_path: Path) -> None:
    assert SHORTEST == WINDOW + 8 * HOP
    write_tones(tmp_path, [4, 3])
    with pytest.raises(UserError, match=r"--data.clip-seconds 0.19: is 1520 samples at 8,000 a second.* give 0.192 or"):
        load_source(DataConfig(source=str(tmp_path), clip_seconds=0.19))
    splits = load_splits(DataConfig(source=str(tmp_path), clip_seconds=0.192))
    assert LogMel()(splits.train.take(splits.train.rows[:2])[0]).shape[-1] == 9


def test_clips_are_called_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (write_tones(tmp_path / "tones", [6, 5]) / "300 Hz" / "copy.wav").write_bytes(encoded(tone(300, samples=1200)))
    assert main(["data", "tones"]) == 0
    told = capsys.readouterr().out
    assert "0.1 of the training examples of every class" in told
    assert "clips of every class: data.png" in told
    assert "image" not in told


def test_a_size_of_images_is_refused_for_clips(tmp_path: Path) -> None:
    write_tones(tmp_path, [4, 3])
    with pytest.raises(
        UserError, match=r"--data.image-size 32: .* holds clips, which have no such size; leave the flag"
    ):
        load_source(DataConfig(source=str(tmp_path), image_size=32))


def test_the_spectrogram_is_that_of_torch_stft_and_shows_a_tone_in_its_band() -> None:
    inputs = torch.from_numpy(np.stack([tone(hertz, samples=4000) for hertz in TONES]))[:, None].float()
    front = LogMel()
    heard = front(inputs)
    assert heard.shape == (len(TONES), 1, MELS, (4000 - WINDOW) // HOP + 1)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(inputs[:, 0], WINDOW, HOP, window=window, center=False, return_complex=True) / window.sum()
    power = front.bands.T @ spectrum.abs().square()
    torch.testing.assert_close(heard[:, 0], ((power + 1e-6).log() + 8) / 3, rtol=1e-3, atol=1e-3)
    mels = [2595 * math.log10(1 + hertz / 700) for hertz in (40, 4000)]
    for row, hertz in zip(heard[:, 0].mean(-1), TONES, strict=True):
        place = (2595 * math.log10(1 + hertz / 700) - mels[0]) / (mels[1] - mels[0]) * (MELS + 1) - 1
        assert abs(int(row.argmax()) - place) < 1


def test_silence_has_a_finite_gradient() -> None:
    silence = torch.zeros(1, 1, 1600, requires_grad=True)
    (gradient,) = torch.autograd.grad(LogMel()(silence).sum(), silence)
    assert gradient.isfinite().all()


def test_augmented_clips_are_shifted_and_scaled_alone_and_their_padding_stays() -> None:
    clips = torch.zeros(200, 1, 1000, dtype=torch.int16)
    clips[:, :, 200:600] = 8000
    moved = shift_gain_noise(clips, torch.Generator().manual_seed(0))
    assert torch.equal(moved, shift_gain_noise(clips, torch.Generator().manual_seed(0)))
    ends = (moved != 0).flip(-1).int().argmax(-1).flatten()
    assert (ends >= 1000 - 600 - 100).all()
    assert (ends <= 1000 - 600 + 100).all()
    assert len(set(ends.tolist())) > 50
    loudness = moved[:, 0, 300:500].float().mean(-1) / 8000
    assert 0.48 < loudness.min() < 0.6
    assert 1.7 < loudness.max() < 2.1


def test_masked_clips_lack_a_span_and_a_band_and_nothing_else() -> None:
    """Of white noise: beyond the edges of the span the waveform has no energy in a band, and all of it elsewhere."""
    noise = torch.randn(40, 1, 4000, generator=torch.Generator().manual_seed(1)) * 3000
    clips = noise.round().to(torch.int16)
    clips[:, :, 3600:] = 0
    found = masked(clips, torch.Generator().manual_seed(0))
    assert torch.equal(found, masked(clips, torch.Generator().manual_seed(0)))
    assert (found[:, :, 3600:] == 0).all()
    silent = found[:, 0].unfold(1, 20, 1).eq(0).all(-1).sum(1) - (400 - 19)
    assert (silent <= LONGEST_SPAN * 4000).all()
    assert (silent > 100).float().mean() > 0.6
    loudness = found.float().square().sum((1, 2)) / clips.float().square().sum((1, 2))
    assert loudness.min() > 1 - LONGEST_SPAN - WIDEST_BAND - 0.05
    assert loudness.max() < 1


def test_a_radius_is_told_in_decibels_below_the_median_clip() -> None:
    """A sine of amplitude 0.2 has a power of 0.02: 60 dB above an amplitude of 1.414e-4."""
    time = torch.arange(8000)
    sine = (32768 * 0.2 * torch.sin(2 * math.pi * 440 * time / 8000)).round().to(torch.int16)
    rows = torch.arange(3)
    split = Split(sine.repeat(3, 1)[:, None], torch.zeros(3, dtype=torch.int64), rows, 1)
    assert radius_in_decibels(split, math.sqrt(0.02) * 1e-3) == "60 dB below the median clip"


def waves() -> Tensor:
    inputs = torch.zeros(3, 1, 2000)
    for place, hertz in enumerate(TONES[:3]):
        inputs[place, 0, :1600] = torch.from_numpy(tone(hertz)).float()
    return inputs


def test_noise_has_its_ratio_to_the_signal_before_the_padding() -> None:
    inputs, generator = waves(), torch.Generator().manual_seed(0)
    power = inputs[:, :, :1600].square().mean(-1, keepdim=True)
    torch.testing.assert_close(signal_power(inputs), power)
    noise = white_noise(inputs, 20.0, generator) - inputs
    assert (10 * torch.log10(power / noise.square().mean(-1, keepdim=True))).flatten().tolist() == pytest.approx(
        [20, 20, 20], abs=0.5
    )


def test_an_echo_has_its_energy_and_length() -> None:
    click = torch.zeros(1, 1, 2000)
    click[..., 100] = 0.5
    heard = echo(click, 0.2, torch.Generator().manual_seed(0)) - click
    assert heard[..., :101].abs().max() < 1e-6
    assert heard[..., 501:].abs().max() < 1e-6
    assert heard.norm().item() == pytest.approx(0.5 * WET, rel=1e-3)


def test_clipping_and_the_code_of_telephones_do_what_their_names_say() -> None:
    inputs, none = waves(), torch.Generator()
    assert clipping(inputs, 0.3, none).abs().amax((1, 2)).tolist() == pytest.approx(
        (0.3 * inputs.abs().amax((1, 2))).tolist()
    )
    assert len(mu_law(inputs, 8, none).unique()) <= 9
    assert (mu_law(inputs, 256, none) - inputs).abs().max() < 0.02


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_keeps_shape_and_range_and_changes_a_clip(name: str) -> None:
    inputs = waves()
    corruption, strengths = CORRUPTIONS[name]
    found = [corruption(inputs, strength, torch.Generator().manual_seed(0)) for strength in strengths]
    changes = [(one - inputs).norm().item() for one in found]
    assert all(one.shape == inputs.shape and one.abs().max() <= 1 for one in found)
    assert changes[0] > 0
    assert name == "echo" or changes[0] < changes[-1]


@pytest.mark.slow
def test_the_command_line_trains_and_examines_clips_of_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_tones(tmp_path / "tones", [30, 26, 22, 18]), tmp_path / "one.pt"
    sound = ("--data.clip-seconds", "0.25", "--attack.eps", "0.05", "--epochs", "6", "--evaluate.every", "6")
    assert main(["train", "--data.source", str(source), "--method", "at-bsl", *sound, "--out", str(out)]) == 0
    assert "training clips" in capsys.readouterr().out
    kept, card, picture = (tmp_path / name for name in ("kept.parquet", "card.md", "bars.png"))
    flags = ("--correctness", str(kept), "--card", str(card), "--picture", str(picture), "--attack", "apgd-ce+t")
    assert main(["evaluate", str(out), *flags]) == 0
    told = capsys.readouterr().out
    assert "test clips; accuracies in percent" in told
    assert {"snr40", "snr20", "apgd_ce_t", "corruption"} <= set(told.split())
    assert "within the range [-1, 1] of sound" in card.read_text()
    assert "images" not in card.read_text()
    capsys.readouterr()
    assert main(["predict", str(out), str(source), "--attack"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 96
    assert sum(row["label"] in row["clip"] for row in rows) > 60
    assert {row["stands"] for row in rows} <= {"true", "false"}
    columns = pq.read_table(kept).column_names
    assert {"clean", "snr30", "echo-3", "mu_law-5", "apgd-t"} <= set(columns)


@pytest.mark.skipif(not SPOKEN_DIGITS.exists(), reason="the spoken digits are not here")
def test_the_spoken_digits_are_read() -> None:
    splits = load_splits(DataConfig(source=str(SPOKEN_DIGITS), imbalance_ratio=20.0))
    assert splits.shape == (1, 8000)
    assert len(splits.test) == 300
