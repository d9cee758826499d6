"""Images to pixels: what is resized, and what is refused."""

import struct
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagesets import PNG, encoded, images_of, refusal, write_parquet

from ltsd.config import DataConfig
from ltsd.data.decode import decode_image
from ltsd.data.sources import load_source
from ltsd.errors import UserError


def header_of_a_huge_png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_images_are_resized_where_a_size_is_asked_for_or_sizes_differ(tmp_path: Path) -> None:
    small, large = images_of(1, size=6)[0], images_of(1, size=8)[0]
    path = write_parquet(tmp_path / "one.parquet", [encoded(small)] * 4 + [encoded(large)], [0, 1, 0, 1, 0])
    mixed = load_source(DataConfig(source=str(path)))
    assert mixed.train.images.shape[1:] == mixed.test.images.shape[1:] == (3, 64, 64)
    assert mixed.reading.notes == ["images of several sizes, resized to 64x64; --data.image-size sets another size"]
    assert load_source(DataConfig(source=str(path), image_size=5)).train.images.shape[1:] == (3, 5, 5)
    wide = DataConfig(source=str(path), image_size=7, image_height=5)
    assert load_source(wide).train.images.shape[1:] == (3, 5, 7)
    assert "--data.image-height 5: needs the width beside it; add --data.image-size" in refusal(path, image_height=5)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(5000, 4000), (12000, 10000), (20000, 20000)])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, size: tuple[int, int]) -> None:
    """Told from its header: there are no pixels in this file that could be decoded."""
    path = write_parquet(tmp_path / "one.parquet", [PNG, header_of_a_huge_png(*size)], [0, 1])
    message = refusal(path, image_size=8)
    assert f"{path} row 1: " in message
    assert "pixels" in message
    assert "truncated" not in message


@given(st.data())
def test_no_image_however_damaged_gives_anything_but_pixels_or_a_refusal(data: st.DataObject) -> None:
    content = bytearray(encoded(images_of(1, size=12)[0], data.draw(st.sampled_from(["png", "jpeg", "webp", "bmp"]))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image, _ = decode_image(bytes(content), "the place", None)
            outcome = f"{image.dtype} of {len(image)} channels"
        except UserError as error:
            outcome = str(error)
    assert outcome == "uint8 of 3 channels" or outcome.startswith("the place: ")
