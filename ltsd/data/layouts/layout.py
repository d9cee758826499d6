"""Assignment of a source's files to splits and data sets by the names of folders and files."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ltsd.data.layouts.cards import Configuration, DataSetCard
from ltsd.data.layouts.roles import ROLE_OF, WORD, role_of
from ltsd.data.names import listed
from ltsd.errors import UserError

WHOLE = ""
ROOT = "."
SHARD = re.compile(r"data/(\w[\w.]*)-\d{5}-of-\d{5}[^/]*")
HIDDEN = "hidden files, or companions that an operating system made"
COMPANIONS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "@eadir")
OUTSIDE = "files outside the splits"
NOT_CHOSEN = "files of other data sets in the same folder"
UNUSED = "files of splits that are not used"


@dataclass(frozen=True)
class Layout:
    """The files of a data set by the name of their split, each with its path below the folder that names the split.

    `config` is the chosen one of several data sets, "" where there is one; `passed_over` has the paths of all other
    files, by the reason.
    """

    config: str
    splits: Mapping[str, Mapping[str, str]]
    passed_over: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> list[str]:
        """Return the names of the splits; empty if the files name none and are listed under WHOLE."""
        return [name for name in self.splits if name != WHOLE]


@dataclass(frozen=True)
class _Located:
    """A file: the folder of its data set, the name of its split, and its path below what names the split."""

    path: str
    home: str
    split: str
    below: str


def is_hidden(path: str) -> bool:
    """Return whether a path is or is inside something users do not see: a leading dot, `__MACOSX`, `Thumbs.db`.

    `datasets` passes over the same, and over all folders that begin with two underscores.
    """
    *folders, name = path.split("/")
    return any(part.startswith(".") or part.casefold() in COMPANIONS for part in (*folders, name)) or any(
        folder.startswith("__") for folder in folders
    )


def find_layout(
    source: str,
    paths: Sequence[str],
    wanted: str | None,
    card: DataSetCard | None,
    *,
    named: Collection[str],
    by_file: bool,
) -> Layout:
    """Sort the files of a source into splits.

    Args:
        paths: relative to the source, none of them hidden.
        wanted: the one of several data sets that is asked for.
        card: what the source's README.md says of its data sets.
        named: names of folders or files that are splits though no word says so.
        by_file: whether the names of files may name their split; those of images do not.

    Raises:
        UserError: there are several data sets and none is chosen, or there is none of that name.
    """
    if card is not None:
        return _of_card(source, paths, *card.chosen(source, wanted), named=named, by_file=by_file)
    located = _locate(paths, named, by_file)
    if wanted not in (None, ROOT) and not any(one.split for one in located):
        return _inside(source, paths, str(wanted).strip("/"))
    config = _only_home(source, located, wanted)
    chosen = [one for one in located if config is None or one.home == config or not one.split]
    splits = _splits(chosen)
    return Layout(wanted or "", splits, _rest(paths, [one.path for one in chosen], splits))


def _of_card(
    source: str, paths: Sequence[str], name: str, entry: Configuration, *, named: Collection[str], by_file: bool
) -> Layout:
    """Return the layout of a configuration of a card."""
    inside = {path: path.removeprefix(entry.folder) for path in paths if path.startswith(entry.folder)}
    if entry.patterns:
        splits = _by_patterns(source, name, inside, entry.patterns)
        return Layout(name, splits, _rest(paths, {path for files in splits.values() for path in files}, splits))
    of_path = {below: path for path, below in inside.items()}
    located = _locate(list(inside.values()), named, by_file)
    splits = {split: {of_path[p]: b for p, b in files.items()} for split, files in _splits(located).items()}
    return Layout(name, splits, _rest(paths, inside, splits))


def _inside(source: str, paths: Sequence[str], folder: str) -> Layout:
    """Return the layout of a data set whose folder names no split."""
    files = {path: path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")}
    if not files:
        tops = sorted({path.split("/")[0] for path in paths if "/" in path})
        raise UserError(f"--data.config {folder}: {source} has no such data set; it has the folders {listed(tops)}")
    return Layout(folder, {WHOLE: files}, _rest(paths, files, {WHOLE: files}))


def only_home(source: str, homes: Sequence[str], wanted: str | None) -> str | None:
    """Return the folder of the one data set to read of those that lie in `homes`; None if there is none, or none of
    the name that is asked for.

    Raises:
        UserError: there are several, and none is chosen.
    """
    if wanted is not None:
        return next((home for home in homes if (home or ROOT) == wanted.strip("/")), None)
    if len(homes) > 1:
        folders = [home or ROOT for home in homes]
        raise UserError(
            f"--data.source {source}: has {len(homes)} data sets, in the folders {listed(folders)}; choose one with "
            f"--data.config {folders[-1]}"
        )
    return next(iter(homes), None)


def _locate(paths: Sequence[str], named: Collection[str], by_file: bool) -> list[_Located]:
    """Find the split of every file: by the hub's pattern, else by the topmost folder that names one, else by file name.

    Folders that all files share name no split.
    """
    depth = _shared_depth(paths)
    return [_locate_one(path, depth, named, by_file) for path in paths]


def _locate_one(path: str, depth: int, named: Collection[str], by_file: bool) -> _Located:
    *folders, name = path.split("/")
    if by_file and (shard := SHARD.fullmatch(path)):
        return _Located(path, "data", shard[1], name)
    for i, folder in enumerate(folders[depth:], start=depth):
        if role_of(folder) or folder in named:
            return _Located(path, "/".join(folders[:i]), folder, "/".join([*folders[i + 1 :], name]))
    stem = PurePosixPath(name).stem
    if by_file and (stem in named or role_of(stem)):
        return _Located(path, "/".join(folders), stem if stem in named else _spelling(stem), name)
    return _Located(path, "", "", path)


def _spelling(stem: str) -> str:
    """Return the word in a file's name that names its split, as it is written there."""
    words: list[str] = WORD.findall(stem)
    return next(word for word in words if word.casefold() in ROLE_OF)


def _shared_depth(paths: Sequence[str]) -> int:
    """Return how many top folders belong to the whole source, though they may name a split (`test-data/train/…`)."""
    depth = 0
    while True:
        folders = [path.split("/")[:-1] for path in paths]
        tops = {tuple(parts[: depth + 1]) for parts in folders}
        below = {role_of(part) for parts in folders for part in parts[depth + 1 :]} - {""}
        if len(tops) != 1 or len(next(iter(tops))) <= depth or len(below) < 2:
            return depth
        depth += 1


def _only_home(source: str, located: Sequence[_Located], wanted: str | None) -> str | None:
    """Return the folder of the one data set to read; None if nothing distinguishes several."""
    homes: dict[str, set[str]] = {}
    for one in located:
        if one.split:
            homes.setdefault(role_of(one.split), set()).add(one.home)
    found = sorted({home for of_role in homes.values() for home in of_role})
    if wanted is None:
        if any(len(of_role) > 1 for of_role in homes.values()):
            named = [home or ROOT for home in found]
            raise UserError(
                f"--data.source {source}: has {len(found)} data sets, in the folders {listed(named)}; choose one with "
                f"--data.config {named[-1]}, or give its folder"
            )
        return None
    if wanted.strip("/") not in found and wanted != ROOT:
        raise UserError(
            f"--data.config {wanted}: {source} has no such data set; it has "
            f"{listed([home or ROOT for home in found]) or 'one without a name'}"
        )
    return "" if wanted == ROOT else wanted.strip("/")


def _splits(located: Sequence[_Located]) -> dict[str, dict[str, str]]:
    """Return files by the name of their split; all of them under WHOLE if none is named."""
    if not any(one.split for one in located):
        return {WHOLE: {one.path: one.below for one in located}}
    splits: dict[str, dict[str, str]] = {}
    for one in located:
        if one.split:
            splits.setdefault(one.split, {})[one.path] = one.below
    return splits


def _by_patterns(
    source: str, config: str, inside: Mapping[str, str], patterns: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Return the files of each split of a card by its patterns, which are globs relative to the card's folder."""
    from fsspec.utils import glob_translate

    splits: dict[str, dict[str, str]] = {}
    for split, globs in patterns.items():
        matching = [re.compile(glob_translate(glob.removeprefix("./"))) for glob in globs]
        files = {path: below for path, below in inside.items() if any(one.match(below) for one in matching)}
        if not files:
            raise UserError(
                f"--data.source {source}: its README.md says that split {split!r} of {config!r} is "
                f"{', '.join(globs)}, and no such file is there; bring it, or choose another with --data.config"
            )
        splits[split] = {path: _below_class_root(below) for path, below in files.items()}
    return splits


def _below_class_root(path: str) -> str:
    """Return the last folder and the name of a file: `datasets` takes the last folder for the class."""
    return "/".join(path.split("/")[-2:])


def _rest(
    paths: Sequence[str], of_config: Collection[str], splits: Mapping[str, Mapping[str, str]]
) -> dict[str, tuple[str, ...]]:
    inside, used = set(of_config), {path for files in splits.values() for path in files}
    rest = {
        NOT_CHOSEN: tuple(path for path in paths if path not in inside),
        OUTSIDE: tuple(path for path in paths if path in inside and path not in used),
    }
    return {reason: found for reason, found in rest.items() if found}
