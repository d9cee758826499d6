"""Files that appear whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ltsd.errors import UserError


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on leaving, sync it and rename it to `path`.

    After an error, or a kill, `path` is what it was before; after an error, folders that were made for it are gone.
    """
    missing = _missing_folders(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _remove_empty(missing)


def check_writable(path: Path) -> None:
    """Check that a file can be written, and leave nothing behind: its folder is made when it is written.

    Raises:
        UserError: the file could not be written there.
    """
    missing = _missing_folders(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_refused = path.is_dir() or not os.access(path.parent, os.W_OK)
    except OSError as error:
        raise UserError(f"{path}: its folder cannot be made ({error.strerror}); give another path") from error
    finally:
        _remove_empty(missing)
    if is_refused:
        raise UserError(f"{path}: cannot be written; give another path")


def check_apart(outputs: Iterable[Path | None], inputs: Iterable[Path | str]) -> None:
    """Check that no file that will be written is one that is read, lies in a folder that is read, or is written twice.

    Raises:
        UserError: one is.
    """
    read, seen = [Path(one).resolve() for one in inputs if "://" not in str(one)], set[Path]()
    for path in filter(None, outputs):
        real = path.resolve()
        if real.is_file() and any(real.is_relative_to(one) for one in read):
            raise UserError(f"{path}: is among what is read, and would be overwritten; give another path")
        if real in seen:
            raise UserError(f"{path}: would be written twice; give another path to one of the flags")
        seen.add(real)


def _missing_folders(path: Path) -> list[Path]:
    """Return the folders above a path that do not exist, the nearest first."""
    return [folder for folder in path.parents if not folder.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
