"""A folder in S3 that keeps each file as a series of objects. Writes are atomic, and an old state never replaces a
newer one.

The state of `name.pt` after epoch 7 is the object `name/000007.pt`; the two latest states are kept. So a worker that
was taken for dead, but still writes, does not hide the newer states of its successor.
"""

import contextlib
import functools
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType

from ltsd.data.filesystems import no_bucket, open_uri, unusable
from ltsd.errors import UserError

FLAG = "--shared"
PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
KEPT = 2
Answer = TypeVar("Answer")


class UnreachableError(OSError):
    """The bucket did not answer, or refused, until the retries ended."""


@dataclass(frozen=True)
class Bucket:
    """The content of `s3://bucket/folder`. The login comes from the environment, the server from the URI's query.

    Every method but `check` retries for a minute before it raises UnreachableError.
    """

    uri: str

    def check(self) -> None:
        """Write an object, list it, read it and delete it.

        Raises:
            UserError: one of these fails.
        """
        filesystem, root = _opened(self.uri)
        name, content = f"{root}/probe-{uuid.uuid4().hex}", b"ltsd"
        try:
            _write(filesystem, name, content)
            if _read(filesystem, name) != content:
                raise UserError(f"{FLAG} {self.uri}: an object that was written there is read with other bytes")
            if name.rpartition("/")[2] not in _listed(filesystem, root, FileType.File):
                raise UserError(f"{FLAG} {self.uri}: an object that was written there is not listed")
            filesystem.delete_file(name)
        except (OSError, ArrowException) as error:
            if "NO_SUCH_BUCKET" in str(error):
                raise no_bucket(self.uri, FLAG, root.partition("/")[0]) from error
            raise unusable(self.uri, FLAG, error) from error

    def put(self, name: str, rank: int, content: bytes) -> None:
        """Write the state of a file after `rank` steps; keep its KEPT latest states."""
        self._insist(lambda filesystem, root: _write(filesystem, f"{root}/{_object(name, rank)}", content))
        self.trim(name, KEPT)

    def newest(self, name: str) -> Iterator[bytes]:
        """Return the states of a file, newest first; none if the file does not exist."""
        for path in self._series(name):
            yield self._insist(lambda filesystem, root, path=path: _read(filesystem, f"{root}/{path}"))

    def trim(self, name: str, keep: int) -> None:
        """Remove all but the `keep` newest states of a file."""
        for path in self._series(name)[keep:]:
            self._insist(lambda filesystem, root, path=path: _delete(filesystem, f"{root}/{path}"))

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders in a folder."""
        return self._insist(lambda filesystem, root: _listed(filesystem, f"{root}/{folder}", FileType.Directory))

    def remove(self, folder: str) -> None:
        """Remove a folder with everything below it."""
        self._insist(lambda filesystem, root: filesystem.delete_dir(f"{root}/{folder}"))

    def _series(self, name: str) -> list[str]:
        """Return the paths of a file's states, newest first."""
        path = PurePosixPath(name)
        folder = path.with_suffix("").as_posix()
        names = self._insist(lambda filesystem, root: _listed(filesystem, f"{root}/{folder}", FileType.File))
        ranks = [int(rank) for rank, suffix in map(os.path.splitext, names) if rank.isdigit() and suffix == path.suffix]
        return [_object(name, rank) for rank in sorted(ranks, reverse=True)]

    def _insist(self, ask: Callable[..., Answer]) -> Answer:
        """Retry until there is an answer, for a limited time; `ask` receives the file system and the root on it."""
        deadline, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                return ask(*_opened(self.uri))
            except (OSError, ArrowException, UserError) as error:
                if time.monotonic() + pause > deadline:
                    raise UnreachableError(f"{self.uri} cannot be used ({str(error).splitlines()[0]})") from error
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


@functools.cache
def _opened(uri: str) -> tuple[FileSystem, str]:
    """Return the file system and the root on it; the result is cached."""
    if not uri.startswith("s3://"):
        raise UserError(
            f"{FLAG} {uri}: is no bucket of S3; give s3://bucket/folder, or leave the flag out where all nodes see the "
            f"folder of --storage"
        )
    return open_uri(uri, FLAG)


def _object(name: str, rank: int) -> str:
    path = PurePosixPath(name)
    return f"{path.with_suffix('')}/{rank:06d}{path.suffix}"


def _write(filesystem: FileSystem, path: str, content: bytes) -> None:
    # A single write: if a later one failed, pyarrow would still make an object of the earlier ones.
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def _read(filesystem: FileSystem, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content


def _delete(filesystem: FileSystem, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(path)


def _listed(filesystem: FileSystem, folder: str, kind: FileType) -> list[str]:
    found = filesystem.get_file_info(FileSelector(folder, allow_not_found=True))
    return [str(file.base_name) for file in found if file.type == kind]
