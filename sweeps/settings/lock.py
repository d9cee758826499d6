"""The folder of a sweep: whether it can be used, and the lock that lets one process work in it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ltsd.errors import UserError
from sweeps.settings.flags import Settings

LOCK_FILE = "lock"
LOCK_HOLDER_FILE = "lock.holder"


@contextlib.contextmanager
def held(settings: Settings, *, is_new: bool) -> Iterator[None]:
    """Hold the sweep for this process; make its folder if it is new.

    The lock is the operating system's and ends with the process, however that ends.

    Raises:
        UserError: another process works on the sweep; the storage cannot be written; a new sweep's folder exists.
    """
    lock = _acquire(settings, is_new=is_new)
    try:
        yield
    finally:
        lock.release()


def _acquire(settings: Settings, *, is_new: bool) -> BaseFileLock:
    folder = settings.folder
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=not is_new)
        lock.acquire()
        (folder / LOCK_HOLDER_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        for unfinished in folder.rglob(".*.tmp"):
            unfinished.unlink()
    except Timeout:
        holder = (folder / LOCK_HOLDER_FILE).read_text()
        raise UserError(
            f"--name {settings.name}: {holder} works on this sweep; wait for it, or stop it first"
        ) from None
    except FileExistsError:
        raise taken(settings) from None
    except OSError as error:
        raise unusable(settings, error) from error
    return lock


def is_there(settings: Settings, path: Path) -> bool:
    """Return whether a path exists.

    Raises:
        UserError: its folder may not be looked into, or its name is too long.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unusable(settings, error) from error
    return True


def unusable(settings: Settings, error: OSError) -> UserError:
    """Return the error of a folder that cannot be used."""
    return UserError(
        f"--storage {settings.storage}: {settings.folder} cannot be used ({error.strerror}); give a folder that can be "
        f"read and written, and a --name that fits"
    )


def taken(settings: Settings) -> UserError:
    """Return the error of a new sweep whose folder exists."""
    return UserError(
        f"--name {settings.name}: {settings.folder} exists already; add --resume to go on with it, or give another name"
    )
