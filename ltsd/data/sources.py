"""Training and test `ImageSet` of a source, given by name, path or URI; decoded once per machine."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock

from ltsd.answers import VOID
from ltsd.config import DataConfig
from ltsd.data.arrow import ImageSet, cache_folder, check_image_set, read_image_set, write_image_set
from ltsd.data.clips import decode_clips
from ltsd.data.decode import Encoded
from ltsd.data.decoding import Decoded, SizesDiffer, decode_all, resized_to
from ltsd.data.filesystems import Place, find_place
from ltsd.data.layouts import coco, lists
from ltsd.data.layouts.box_layouts import open_box_layout
from ltsd.data.layouts.folders import open_folder
from ltsd.data.layouts.label_maps import numbered_names
from ltsd.data.layouts.layout import HIDDEN, UNUSED, is_hidden
from ltsd.data.layouts.list_layouts import open_lists
from ltsd.data.layouts.mask_folders import open_mask_folder
from ltsd.data.layouts.mask_layouts import open_mask_layout
from ltsd.data.layouts.reading import Opened, PartRead, Reading
from ltsd.data.layouts.roles import choices_of, role_of
from ltsd.data.layouts.tables import open_tables
from ltsd.data.layouts.text_files import open_text_files
from ltsd.data.named import NAMED
from ltsd.data.names import listed
from ltsd.data.parts import Parts, grouped, held_out, joined
from ltsd.data.room import stays_encoded
from ltsd.data.texts import DIGEST, TOKENIZER, Text, number_texts, read_texts, vocabulary_for, vocabulary_in
from ltsd.data.units import ITEMS, unit_of
from ltsd.data.vocabulary import Vocabulary
from ltsd.encoders import digest_of
from ltsd.errors import UserError

DECODER_VERSION = 6
SIDE = 64
"""Of images that have several sizes, where no size is given; the networks from nothing are made for 8 to 64 pixels."""
DECODED_FILES = ("train.arrow", "test.arrow")
DESCRIBED = (
    *("readme.md", "license", "license.txt", "dataset_info.json", "dataset_infos.json", "dataset_dict.json"),
    *("state.json", "wnids.txt", "words.txt", "val_annotations.txt"),
)
"""Files that describe a data set: they are not reported as left out."""
OTHERS = "files that are no images, Parquet or Arrow"


@dataclass(frozen=True)
class Source:
    """The images of a data set: those to train on, from row `validation_from` of `train` on those of a validation split
    that it brings, and those to test on; what was read and what was left out.
    """

    train: ImageSet
    test: ImageSet
    validation_from: int
    reading: Reading

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of texts."""
        return vocabulary_in(self.train.about)

    @property
    def fingerprint(self) -> str:
        """Return a string that identifies these images."""
        brings = self.validation_from < len(self.train.labels)
        validation = f"-{self.validation_from}" if brings else ""
        # Not of vectors that were learnt: their last bits differ between machines.
        vocabulary = self.train.about.get(TOKENIZER, self.train.about.get(DIGEST, ""))
        words = hashlib.sha256(vocabulary.encode()).hexdigest()[:8] if vocabulary else ""
        return "-".join(filter(None, (self.train.fingerprint[:16], self.test.fingerprint[:16] + validation, words)))


def load_source(data: DataConfig, *, check: bool = False) -> Source:
    """Return the images of `data.source`, decoded on first use and memory-mapped from then on; see `decoded`."""
    return read_decoded(decoded(data, check=check))


def read_decoded(folder: Path) -> Source:
    """Map the images into memory that `decoded` wrote to a folder."""
    train, test = (read_image_set(folder / part) for part in DECODED_FILES)
    return Source(train, test, int(train.about["validation_from"]), Reading.from_json(train.about["reading"]))


def decoded(data: DataConfig, *, check: bool = False) -> Path:
    """Return the folder of this machine with the decoded images of `data.source`, in `DECODED_FILES`.

    With `check`, compare them with their checksum; decode damaged ones again, with a warning.

    Raises:
        UserError: a path or URI that is missing, cannot be read or holds no images; a broken or huge image or mask (its
            row is named), a label outside the classes, sizes that differ where images have masks or boxes, an image
            without a mask; a size for the images of a named source.
    """
    place = _place_of(data)
    folder = cache_folder() / _key(data, place)
    train, test = (folder / part for part in DECODED_FILES)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the image cache {folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can"
        ) from error
    with FileLock(folder / "lock"):
        if not (train.exists() and test.exists()) or (check and _are_damaged(train, test)):
            _decode(data, place, train, test)
    return folder


def _place_of(data: DataConfig) -> Place | None:
    """Return the files of a source, with the images that it names if it is one file; None for a named source."""
    place = None if data.source in NAMED else find_place(data.source)
    if place is not None and data.root is not None and place.is_local and not place.is_file:
        place = lists.in_folder(place)
    if place is not None and lists.is_list(place):
        return lists.with_images(place, data)
    if data.root is not None:
        raise UserError(
            f"--data.root {data.root}: is the folder that the paths in a list of images are relative to, and "
            f"{data.source} is no such list; leave the flag out"
        )
    return coco.with_images(place) if place is not None and coco.is_annotation(place) else place


def _are_damaged(*paths: Path) -> bool:
    try:
        for path in paths:
            check_image_set(path)
    except UserError as error:
        warnings.warn(f"{error}; they are decoded again", stacklevel=3)
        return True
    return False


def _decode(data: DataConfig, place: Place | None, train: Path, test: Path) -> None:
    folder = train.parent
    if place is None:
        _refuse_groups(data)
        _refuse_size(data, f"the images of {data.source} have one size and are read as they are")
        names, parts = NAMED[data.source](data)
        own = dict[str, str]()
        reading = Reading(data.source, parts={role: PartRead("", 0, "", len(p.labels)) for role, p in parts.items()})
    else:
        names, parts, reading, own = _read_alike(data, place, folder)
    _refuse_splits_as_classes(data.source, names)
    if "test" not in parts:
        parts |= held_out(data, names, parts["train"], folder)
        reading = replace(reading, is_test_held_out=True)
    about = {"validation_from": str(len(parts["train"].labels)), "reading": reading.to_json(), **own}
    pool = [parts[role] for role in ("train", "validation") if role in parts]
    whole = pool[0] if len(pool) == 1 else joined(pool, folder)  # a copy of all images is worth avoiding
    write_image_set(train, whole.images, whole.labels, names, about, whole.groups)
    write_image_set(test, parts["test"].images, parts["test"].labels, names, groups=parts["test"].groups)


def _read_alike(data: DataConfig, place: Place, folder: Path) -> tuple[list[str], Parts, Reading, dict[str, str]]:
    """As `_read`, with images of one size: those that have a class each, and several sizes, are resized to SIDE."""
    try:
        found = _read(data, place, folder)
        _refuse_sizes(data, found[1])
    except SizesDiffer:
        names, parts, reading, own = _read(replace(data, image_size=SIDE), place, folder)
        note = f"images of several sizes, resized to {SIDE}x{SIDE}; --data.image-size sets another size"
        return names, parts, replace(reading, notes=[*reading.notes, note]), own
    return found


def _read(data: DataConfig, place: Place, folder: Path) -> tuple[list[str], Parts, Reading, dict[str, str]]:
    """Return class names, decoded images by role, a report that accounts for every file of the source, and what else
    belongs to the training images.
    """
    paths = [place.relative(file) for file in place.files]
    hidden = [path for path in paths if is_hidden(path) and not (place.is_file or place.names_its_files)]
    seen = paths if not hidden else [path for path in paths if not is_hidden(path)]
    opened = next(filter(None, (way(place, seen, data) for way in _ways(data))), None) or open_folder(place, seen, data)
    roles, notes = opened.settled(choices_of(data.split_map))
    num_classes = len(opened.class_names) or VOID
    if opened.kind != "image":
        _refuse_size(data, f"{data.source} holds {ITEMS[opened.kind]}, which have no such size")
    size = resized_to(data)
    rows = {role: _chained(opened, splits) for role, splits in roles.items()}
    files = {role: [path for split in splits for path in opened.files[split]] for role, splits in roles.items()}
    parts, own = Parts(), dict[str, str]()
    holds_out = opened.kind == "text" and "test" not in rows and not opened.groups
    if opened.kind == "text":
        texts = read_texts(rows, data.source)
        if holds_out:  # first, so that nothing is learnt of the test texts
            texts |= _held_out_texts(data, opened.class_names, texts["train"], folder)
        vocabulary, own = vocabulary_for(
            texts["train"], encoder=data.encoder, pieces=data.vocabulary, length=data.tokens
        )
        parts, changed = number_texts(texts, vocabulary, data.tokens)
        notes = [*notes, *changed]
    elif opened.kind == "clip":
        for role, of_role in rows.items():
            parts[role], changed = decode_clips(
                of_role, data.source, rate=data.sampling_rate, seconds=data.clip_seconds
            )
            notes += [f"{role}: {what}" for what in changed]
    else:
        rows, encoded = stays_encoded(rows, {place.relative(f): f.size for f in place.files}, files, size, data, folder)
        for role, of_role in rows.items():
            parts[role] = decode_all(of_role, data.source, size, num_classes, folder=folder, stays_encoded=encoded)
    if opened.groups:
        found = {
            role: [member for split in splits for member in opened.groups[split]] for role, splits in roles.items()
        }
        parts, remarks = grouped(parts, found, str(data.group_by), folder)
        notes += remarks
    else:
        _refuse_groups(data)
    names = list(opened.class_names) or numbered_names(data.source, [part.labels for part in parts.values()])
    used = {path for of_role in files.values() for path in of_role}
    unused = [path for of_split in opened.files.values() for path in of_split if path not in used]
    passed_over = {HIDDEN: hidden, **opened.passed_over, UNUSED: unused, **place.passed_over}
    known = used.union(*passed_over.values())
    sizes = {role: len(part.labels) for role, part in parts.items()}
    sizes["train"] += sizes["test"] if holds_out else 0
    passed_over[OTHERS] = [p for p in seen if p not in known and p.rpartition("/")[2].casefold() not in DESCRIBED]
    reading = Reading(
        source=data.source,
        config=opened.config,
        parts={
            role: PartRead("+".join(filter(None, roles[role])), len(of_role), of_role[0], sizes[role])
            for role, of_role in files.items()
        },
        is_test_held_out=holds_out,
        passed_over={reason: (len(found), found[0]) for reason, found in passed_over.items() if found},
        oriented=sum(part.oriented for part in parts.values()),
        notes=notes,
    )
    return names, parts, reading, own


def _held_out_texts(
    data: DataConfig, names: Sequence[str], texts: Sequence[Text], folder: Path
) -> dict[str, list[Text]]:
    """Divide texts as `held_out` divides images."""
    labels = np.asarray([label for *_, label in texts], dtype=np.int64)
    numbered = Decoded(np.arange(len(texts), dtype=np.int64)[:, None], labels, 0)
    parts = held_out(data, names, numbered, folder)
    return {role: [texts[row] for row in np.asarray(part.images)[:, 0]] for role, part in parts.items()}


def _ways(data: DataConfig) -> Sequence[Callable[[Place, Sequence[str], DataConfig], Opened | None]]:
    """Return what opens a source other than a folder for each class: masks come before boxes, unless boxes are asked
    for.
    """
    masks = (open_mask_layout, open_mask_folder)
    if data.labels == "boxes" or data.source.casefold().endswith(coco.SUFFIX):
        return open_lists, open_tables, open_box_layout, *masks
    return open_lists, open_tables, open_text_files, *masks, open_box_layout


def _chained(opened: Opened, splits: Sequence[str]) -> Encoded:
    for split in splits:
        yield from opened.rows[split]


def _refuse_sizes(data: DataConfig, parts: Parts) -> None:
    if len({part.images.shape[1:] for part in parts.values()}) > 1:
        told = f"--data.source {data.source}: its splits have images of several sizes; give --data.image-size"
        raise (SizesDiffer if unit_of(parts["train"].labels) == "image" else UserError)(told)


def _refuse_groups(data: DataConfig) -> None:
    if data.group_by is not None:
        raise UserError(
            f"--data.group-by {data.group_by}: names a column of Parquet or Arrow files, and {data.source} has none; "
            f"leave the flag out"
        )


def _refuse_size(data: DataConfig, why: str) -> None:
    if data.image_size is not None or data.image_height is not None:
        raise UserError(f"--data.image-size {data.image_size or data.image_height}: {why}; leave the flag out")


def _refuse_splits_as_classes(source: str, names: Sequence[str]) -> None:
    if names and all(role_of(name) or role_of(name.casefold().removesuffix("set")) for name in names):
        raise UserError(
            f"--data.source {source}: its only classes, {listed(names)}, are named as splits are; put the images of "
            f"each split into one folder, or one column of labels, per class"
        )


def _key(data: DataConfig, place: Place | None) -> str:
    """Return the cache key of a source: it changes with the files and with how they are decoded."""
    knobs = [
        data.image_size,
        data.image_height,
        data.test_fraction,
        data.config,
        data.split_map,
        data.group_by,
        data.labels,
        data.sampling_rate,
        data.clip_seconds,
        data.vocabulary,
        data.tokens,
    ]
    if data.encoder is not None:
        knobs.append(digest_of(data.encoder))
    if data.decoded_gib is not None:
        knobs.append(data.decoded_gib)
    found = json.dumps([DECODER_VERSION, data.source, *knobs, place and place.identity()])
    return hashlib.sha256(found.encode()).hexdigest()[:16]
