"""Room on the disk of the cache for the images of a source: whether they are stored decoded, encoded, or not at all."""

import shutil
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from ltsd.config import DataConfig
from ltsd.data.decode import Encoded, Mask, Size, decode_image
from ltsd.errors import UserError

SAMPLE = 64
"""Images of a part that are looked at to tell the size of all."""
GIB = 2**30
WHILE_WRITTEN = 2
"""Images are in a temporary file before they are in the file of the cache."""


def stays_encoded(
    rows: Mapping[str, Encoded],
    sizes: Mapping[str, int],
    files: Mapping[str, Sequence[str]],
    size: Size | None,
    data: DataConfig,
    folder: Path,
) -> tuple[dict[str, Encoded], bool]:
    """Return the rows of each part, all still to come, and whether images are to be stored as they are encoded.

    The number of images is estimated: the bytes of a part's files by those of an image, a mean of the first ones.

    Args:
        rows: by part.
        sizes: bytes of every file by path.
        files: paths by part.
        size: (width, height) that images are resized to; None for their own.
        data: the data configuration.
        folder: of the cache.

    Raises:
        UserError: the disk has room for neither; as `decode_image`.
    """
    decoded, encoded, whole = 0.0, 0.0, dict[str, Encoded]()
    for part, of_part in rows.items():
        first = list(islice(of_part, SAMPLE))
        whole[part] = chain(first, of_part)
        if first:
            on_disk = sum(sizes.get(path, 0) for path in files[part])
            count = (
                on_disk * len(first) / sum(_stored_bytes(row) for row in first) if len(first) == SAMPLE else len(first)
            )
            place, content, label = first[0]
            pixels = decode_image(content, place, size)[0]
            maps = count * pixels.nbytes / len(pixels) if isinstance(label, Mask) else 0
            decoded += count * pixels.nbytes + maps
            encoded += count * sum(len(content) for _, content, _ in first) / len(first) + maps
    free = shutil.disk_usage(folder).free / WHILE_WRITTEN
    most = free if data.decoded_gib is None else min(free, data.decoded_gib * GIB)
    if decoded <= most:
        return whole, False
    if encoded > free:
        raise UserError(
            f"--data.source {data.source}: its images take about {decoded / GIB:.1f} GiB decoded and "
            f"{encoded / GIB:.1f} GiB encoded, twice that while they are written, and {folder} has "
            f"{free * WHILE_WRITTEN / GIB:.1f} GiB free; set XDG_CACHE_HOME to a folder of a larger disk, or leave "
            f"some images out"
        )
    return whole, True


def _stored_bytes(row: tuple[str, bytes, object]) -> int:
    _, content, label = row
    return len(content) + (len(label.content) if isinstance(label, Mask) else 0)
