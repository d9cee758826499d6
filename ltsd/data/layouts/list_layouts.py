"""Images that text files list: their splits, labels and class names."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from posixpath import basename, dirname

from ltsd.config import DataConfig
from ltsd.data.decode import Encoded
from ltsd.data.filesystems import Place
from ltsd.data.layouts.annotated import SHOWN
from ltsd.data.layouts.lists import Entry, entries_of, images_folder, lists_by_role, paths_of
from ltsd.data.layouts.reading import Opened
from ltsd.data.names import listed
from ltsd.errors import UserError

Lists = Mapping[str, Sequence[Entry]]
"""By the path of each list, its lines."""


def open_lists(place: Place, paths: Sequence[str], data: DataConfig) -> Opened | None:
    """Return the images of a list and those beside it by split, not decoded yet; None if the source is none.

    A class is called as the folder of its training images is, if all of them lie in folders of one name, and as its
    number is otherwise.

    Args:
        place: what `lists.with_images` returned.
        paths: relative to its root.
        data: the data configuration.

    Raises:
        UserError: `data.config` is set; a list names images that are not there, or an image with two labels; labels
            leave a gap; as `lists_by_role`.
    """
    if not place.names_its_files:
        return None
    if data.config is not None:
        raise UserError(f"--data.config {data.config}: a list of images is one data set; leave the flag out")
    splits, roles = lists_by_role(place, data)
    used = [split for of_role in roles.values() for split in of_role]
    folder = images_folder(place, data)
    found = {splits[split]: entries_of(splits[split]) for split in used}
    _refuse_missing(place, found, folder, frozenset(paths))
    _refuse_two_labels(found)
    _refuse_gaps(found)
    num_classes = 1 + max(entry.label for entries in found.values() for entry in entries)
    train = [entry for split in roles["train"] for entry in found[splits[split]]]
    files = {split: [os.path.relpath(path, place.root)] for split, path in splits.items()}
    for split in used:
        files[split] += _relative(place, paths_of(splits[split], folder))
    return Opened(
        class_names=_class_names(train, folder, num_classes),
        config="",
        rows={split: _rows(place, files[split][1:], found[splits[split]]) for split in used},
        files=files,
        roles=roles,
        unlabelled=(),
        passed_over={},
    )


def _relative(place: Place, paths: Sequence[str]) -> list[str]:
    return [path.removeprefix(place.root).lstrip("/") for path in paths]


def _rows(place: Place, paths: Sequence[str], entries: Sequence[Entry]) -> Encoded:
    for path, entry in zip(paths, entries, strict=True):
        yield f"{place.root.rstrip('/')}/{path}", place.content(path), entry.label


def _refuse_missing(place: Place, lists: Lists, folder: str, known: frozenset[str]) -> None:
    for path, entries in lists.items():
        relative = _relative(place, paths_of(path, folder))
        missing = [entry.path for entry, one in zip(entries, relative, strict=True) if one not in known]
        if missing:
            raise UserError(
                f"{path}: names {len(missing):,} image(s) that are not in {folder}: {listed(missing, SHOWN)}; give the "
                f"folder that its paths are relative to with --data.root, or bring the images"
            )


def _refuse_two_labels(lists: Lists) -> None:
    first: dict[str, tuple[str, Entry]] = {}
    for path, entries in lists.items():
        for entry in entries:
            other_list, other = first.setdefault(entry.path, (path, entry))
            if other.label != entry.label:
                raise UserError(
                    f"{path} line {entry.line}: {entry.path} has the label {entry.label}, and in {other_list} line "
                    f"{other.line} the label {other.label}; keep one"
                )


def _refuse_gaps(lists: Lists) -> None:
    labels = {entry.label for entries in lists.values() for entry in entries}
    without = max(labels) + 1 - len(labels)
    if without:
        some = [str(c) for c in islice((c for c in range(max(labels)) if c not in labels), SHOWN)]
        more = "" if without <= SHOWN else f", … and {without - SHOWN:,} more"
        raise UserError(
            f"{next(iter(lists))}: labels go up to {max(labels)}, and no image has the label {', '.join(some)}{more}; "
            f"number classes from 0 without a gap"
        )


def _class_names(train: Sequence[Entry], folder: str, num_classes: int) -> list[str]:
    """Return the names of the classes; numbers for all if some would be alike."""
    folders: dict[int, set[str]] = {}
    for entry in train:
        folders.setdefault(entry.label, set()).add(dirname(entry.path) or basename(folder))
    named = dict(_folder_names(folders))
    names = [named.get(c, str(c)) for c in range(num_classes)]
    return names if len(set(names)) == num_classes else [str(c) for c in range(num_classes)]


def _folder_names(folders: Mapping[int, set[str]]) -> Iterator[tuple[int, str]]:
    """Yield classes whose images lie in folders of one name, with that name, and the folder above where several classes
    have it: Places has `apartment_building/outdoor`, `church/outdoor` and more.
    """
    last = {c: {one.rpartition("/")[2] for one in of_class} for c, of_class in folders.items()}
    times = Counter(name for of_class in last.values() for name in of_class)
    for c, of_class in folders.items():
        shared = any(times[name] > 1 for name in last[c])
        names = {"/".join(one.split("/")[-2:]) for one in of_class} if shared else last[c]
        if len(names) == 1:
            yield c, names.pop()
