"""What `dense.py` measures on: the digits scenes, CamVid and BCCD made smaller."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ltsd.config import AttackConfig, Config
from ltsd.files import publishing
from ltsd.knobs import Value

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
MERGED: Mapping[str, Value] = {"data.split_map": "train=train+validation,validation=none"}
WORST_MAPS = (
    "*Worst of 6*: of each image one of PGD-20 on cross-entropy, SegPGD-20, PGD-20 on the three losses of SEA, and SEA."
)
WORST_BOXES = "*Lowest of 3*: PGD-20 on the loss of classes, of boxes and of both, whichever leaves the lowest mean."


@dataclass(frozen=True)
class Request:
    """What the command line sets; None for what it leaves: the folder of the tables, WIDTHxHEIGHT, the radii in 255ths,
    comma-separated, and knobs by dotted name.
    """

    source: Path | None
    size: str | None
    eps: str | None
    knobs: Mapping[str, Value | None]

    def own(self) -> dict[str, Value]:
        """Return the knobs that are set."""
        return {name: value for name, value in self.knobs.items() if value is not None}


@dataclass(frozen=True)
class Measurement:
    """What is measured: the data, their defaults, and the radii of the exam, the first of which has corruptions too.
    `last_attack` is the part of an exam before these, `worst` a sentence on the strongest column.
    """

    name: str
    title: str
    config: Config
    radii: Mapping[str, AttackConfig]
    folder: Path
    last_attack: str
    worst: str

    @property
    def first(self) -> str:
        """Return the name of the first radius."""
        return next(iter(self.radii))

    def titled(self, title: str, radius: str) -> str:
        """Return the title of a column at a radius."""
        return f"{title}, {radius}/255" if radius and "clean" not in title else title

    def kept(self, method: str, seed: int, radius: str) -> Path:
        """Return the file of an exam's numbers; its counts lie beside it."""
        return self.folder / f"{method}-s{seed}{f'-eps{radius}' if radius else ''}.json"


def digits_scenes(folder: Path, asked: Request) -> Measurement:
    """The embedded scenes, a class for every pixel, under the attack of their defaults."""
    config = Config.preset("digits-scenes").override(asked.own())
    radii = {"": config.attack}
    return Measurement(
        "digits-scenes", "Label maps: digits scenes", config, radii, folder, last_attack="SEA-20", worst=WORST_MAPS
    )


def digits_boxes(folder: Path, asked: Request) -> Measurement:
    """The embedded scenes, digits as boxes, under the attack of their defaults."""
    config = Config.preset("digits-scenes", "detection").override(asked.own())
    radii = {"": config.attack}
    return Measurement(
        "digits-scenes", "Boxes: digits scenes", config, radii, folder, last_attack="both-20", worst=WORST_BOXES
    )


def camvid(folder: Path, asked: Request) -> Measurement:
    """CamVid, made smaller."""
    size = asked.size or "96x72"
    small = smaller(folder / size, asked.source or DATA / "camvid", size)
    knobs = MERGED | {"data.group_by": "sequence"} | asked.own()
    config = Config.preset(str(small), "segmentation").override(knobs)
    radii = attacks_of(asked.eps or "4,2,8")
    return Measurement("camvid", "Label maps: CamVid", config, radii, folder, last_attack="SEA-20", worst=WORST_MAPS)


def bccd(folder: Path, asked: Request) -> Measurement:
    """Blood cells as boxes, read smaller."""
    width, height = (asked.size or "128x96").split("x")
    knobs = MERGED | {"data.image_size": int(width), "data.image_height": int(height)} | asked.own()
    config = Config.preset(str(asked.source or DATA / "bccd"), "detection").override(knobs)
    radii = attacks_of(asked.eps or "4,2")
    return Measurement("bccd", "Boxes: blood cells", config, radii, folder, last_attack="both-20", worst=WORST_BOXES)


MEASUREMENTS: Mapping[str, Callable[[Path, Request], Measurement]] = {
    "digits-scenes": digits_scenes,
    "digits-boxes": digits_boxes,
    "camvid": camvid,
    "bccd": bccd,
}


def attacks_of(radii: str) -> dict[str, AttackConfig]:
    """Return the attack of each radius, in 255ths, by how it is written."""
    return {radius: AttackConfig(eps=float(Fraction(radius) / 255)) for radius in radii.split(",")}


def smaller(folder: Path, source: Path, size: str) -> Path:
    """Write the tables of a source with images and masks of WIDTHxHEIGHT; return their folder."""
    width, height = map(int, size.split("x"))
    for path in sorted(source.glob("*.parquet")):
        resize(path, folder / path.name, (width, height))
    return folder


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
