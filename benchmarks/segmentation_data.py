"""What `segmentation.py` measures on: the digits scenes, or CamVid made smaller."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ltsd.config import AttackConfig, Config
from ltsd.files import publishing
from ltsd.knobs import Value

CAMVID = Path(__file__).parent.parent.parent / "shared" / "data" / "camvid"
FRAMES: Mapping[str, Value] = {
    "data.group_by": "sequence",
    "data.split_map": "train=train+validation,validation=none",
}


@dataclass(frozen=True)
class Measurement:
    """What is measured: the data, their defaults, and the radii of the exam, the first of which has corruptions too."""

    name: str
    config: Config
    radii: Mapping[str, AttackConfig]
    folder: Path

    @property
    def first(self) -> str:
        """Return the name of the first radius."""
        return next(iter(self.radii))

    def kept(self, method: str, seed: int, radius: str) -> Path:
        """Return the file of an exam's numbers; its counts lie beside it."""
        return self.folder / f"{method}-s{seed}{f'-eps{radius}' if radius else ''}.json"


def digits_scenes(folder: Path) -> Measurement:
    """The embedded scenes, under the attack of their defaults."""
    config = Config.preset("digits-scenes")
    return Measurement("digits-scenes", config, {"": config.attack}, folder)


def camvid(
    folder: Path, source: Path, size: tuple[int, int], own: Mapping[str, Value], radii: Sequence[str]
) -> Measurement:
    """CamVid at (width, height), under attacks of several radii in 255ths."""
    small = folder / f"{size[0]}x{size[1]}"
    for path in sorted(source.glob("*.parquet")):
        resize(path, small / path.name, size)
    config = Config.preset(str(small), "segmentation").override(FRAMES | own)
    of_radius = {radius: AttackConfig(eps=float(Fraction(radius) / 255)) for radius in radii}
    return Measurement("camvid", config, of_radius, folder)


def resize(path: Path, to: Path, size: tuple[int, int]) -> None:
    """Write a table with images resized bilinearly and masks to the nearest pixel; nothing if it is there."""
    if to.exists():
        return
    found = pq.read_table(path)
    for column, how in (("image", Image.Resampling.BILINEAR), ("annotation", Image.Resampling.NEAREST)):
        rows = [row | {"bytes": _resized(row["bytes"], size, how)} for row in found[column].to_pylist()]
        place = found.column_names.index(column)
        found = found.set_column(place, found.schema.field(column), pa.array(rows, found[column].type))
    to.parent.mkdir(parents=True, exist_ok=True)
    with publishing(to) as temporary:
        pq.write_table(found, temporary)


def _resized(encoded: bytes, size: tuple[int, int], how: Image.Resampling) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as image:
        image.resize(size, how).save(buffer, "png")
    return buffer.getvalue()
