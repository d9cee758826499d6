"""Published sets of label maps as their archives unpack: PASCAL VOC, Cityscapes and Oxford-IIIT Pet."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ltsd.answers import VOID
from ltsd.config import DataConfig
from ltsd.data.filesystems import Place
from ltsd.data.layouts.layout import OUTSIDE, only_home
from ltsd.data.layouts.mask_folders import Pairs, encoded_pairs
from ltsd.data.layouts.reading import Opened
from ltsd.data.layouts.roles import by_role, choices_of
from ltsd.errors import UserError

JOINED = "trainval"
WITHHELD = "images whose masks are not published"
VOC_LIST = re.compile(r"(?:(.*)/)?ImageSets/Segmentation/(train|val|trainval|test)\.txt")
CITY_IMAGE = re.compile(r"(?:(.*)/)?leftImg8bit/(train|val|test)/([^/]+/[^/]+)_leftImg8bit\.png")
PET_LIST = re.compile(r"(?:(.*)/)?annotations/(trainval|test)\.txt")
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITY_CLASSES = {
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
"""The classes that are evaluated, by their label id; all other ids are void."""
PET_CLASSES = {1: "pet", 2: "background"}
"""By the value in a trimap; 3 is the border, which its authors call not classified."""


@dataclass(frozen=True)
class _Published:
    """A set: the folder it lies in, its classes by the value of a mask's pixel, its pairs by split, the lists that name
    them, and the images whose masks are withheld.
    """

    home: str
    classes: Mapping[int, str]
    pairs: Mapping[str, Pairs]
    lists: Mapping[str, str]
    withheld: Sequence[str]

    def indices(self) -> bytes:
        """Return the class index of every value of a mask's pixel."""
        table = bytearray([VOID] * 256)
        for index, value in enumerate(self.classes):
            table[value] = index
        return bytes(table)


def open_mask_layout(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Return the images and label maps of a published set by split, not decoded yet; None if there is none.

    Its splits are those of its lists, or folders. Where none is named train, that of `trainval` trains.

    Args:
        place: the folder.
        paths: relative to the folder, none of them hidden.
        data: the data configuration.

    Raises:
        UserError: several sets, and `data.config` names none of them; a list names an image that is not there, or one
            without a mask.
    """
    if not place.is_local:
        return None
    known = frozenset(paths)
    found = [one for find in (_voc, _cityscapes, _pets) for one in find(place, known)]
    home = only_home(place.source, [one.home for one in found], data.config)
    chosen = next((one for one in found if one.home == home), None)
    return None if chosen is None else _opened(place, paths, data, chosen)


def _opened(place: Place, paths: Sequence[str], data: DataConfig, found: _Published) -> Opened:
    roles = by_role(place.source, list(found.pairs), choices_of(data.split_map))
    if not roles["train"] and JOINED in found.pairs:
        roles["train"] = (JOINED,)
    files = {
        split: [*([found.lists[split]] if split in found.lists else []), *(path for pair in pairs for path in pair)]
        for split, pairs in found.pairs.items()
    }
    used = {path for of_split in files.values() for path in of_split}
    return Opened(
        class_names=list(found.classes.values()),
        config=data.config or "",
        rows={split: encoded_pairs(place, pairs, found.indices()) for split, pairs in found.pairs.items()},
        files=files,
        roles=roles,
        unlabelled=(),
        passed_over={
            WITHHELD: found.withheld,
            OUTSIDE: [path for path in paths if path not in used.union(found.withheld)],
        },
    )


def _voc(place: Place, paths: frozenset[str]) -> list[_Published]:
    """Return the years of PASCAL VOC that have lists of segmented images."""
    folders = ("JPEGImages/{}.jpg", "SegmentationClass/{}.png")
    return _of_lists(place, paths, VOC_LIST, folders, dict(enumerate(VOC_CLASSES)))


def _pets(place: Place, paths: frozenset[str]) -> list[_Published]:
    """Return Oxford-IIIT Pet: pets, their ground, and void borders."""
    folders = ("images/{}.jpg", "annotations/trimaps/{}.png")
    if not any("annotations/trimaps/" in path for path in paths):
        return []
    return _of_lists(place, paths, PET_LIST, folders, PET_CLASSES)


def _of_lists(
    place: Place, paths: frozenset[str], pattern: re.Pattern[str], folders: Sequence[str], classes: Mapping[int, str]
) -> list[_Published]:
    """Return the sets whose splits are lists of names, the first words of their lines. One without any mask is none.

    Raises:
        UserError: an image or mask of a list is not there.
    """
    homes: dict[str, dict[str, str]] = {}
    for path in sorted(paths):
        if match := pattern.fullmatch(path):
            homes.setdefault(match[1] or "", {})[match[2]] = path
    found = list[_Published]()
    for home, lists in homes.items():
        pairs, withheld = dict[str, Pairs](), list[str]()
        for split, path in lists.items():
            lines = place.read(path).decode(errors="replace").splitlines()
            names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
            image, mask = (str(PurePosixPath(home, folder)) for folder in folders)
            listed_pairs = [(image.format(name), mask.format(name)) for name in names]
            if not any(one in paths for _, one in listed_pairs):
                withheld += [one for one, _ in listed_pairs if one in paths]
                continue
            pairs[split] = listed_pairs
            lacking = next((one for pair in listed_pairs for one in pair if one not in paths), None)
            if lacking is not None:
                raise UserError(f"{place.root}/{path}: lists what is not there, {lacking}; unpack the whole archive")
        if pairs:
            found.append(_Published(home, classes, pairs, lists, withheld))
    return found


def _cityscapes(place: Place, paths: frozenset[str]) -> list[_Published]:
    """Return Cityscapes with its fine label maps; those of its test images are not published.

    Raises:
        UserError: another image has no mask.
    """
    homes: dict[str, dict[str, list[tuple[str, str]]]] = {}
    withheld = [path for path in sorted(paths) if (match := CITY_IMAGE.fullmatch(path)) and match[2] == "test"]
    for path in sorted(paths.difference(withheld)):
        if match := CITY_IMAGE.fullmatch(path):
            home, split, name = match.groups()
            mask = str(PurePosixPath(home or "", "gtFine", split, f"{name}_gtFine_labelIds.png"))
            if mask not in paths:
                raise UserError(f"{place.root}/{path}: has no mask {mask}; unpack gtFine_trainvaltest.zip beside it")
            homes.setdefault(home or "", {}).setdefault(split, []).append((path, mask))
    return [_Published(home, CITY_CLASSES, pairs, {}, withheld) for home, pairs in homes.items()]
