"""Location of a source: a path of this machine, or a URI of any file system that pyarrow reads, such as S3."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from ltsd.errors import UserError

FLAG = "--data.source"
DENIALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN", "ExpiredToken")
NOWHERE = "links that lead nowhere"
CIRCLE = "links to a folder above them"


@dataclass(frozen=True)
class Place:
    """The files of a source, sorted by path: the source itself if it is a file, else all files below it.

    Links are followed; `passed_over` has the paths of those that cannot be, by the reason. If the source is a list that
    names its files one by one, none of them is hidden.
    """

    source: str
    filesystem: FileSystem
    root: str
    files: tuple[FileInfo, ...]
    passed_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names_its_files: bool = False

    @property
    def is_local(self) -> bool:
        """Whether `root` is a path of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def is_file(self) -> bool:
        """Whether the source is one file."""
        return len(self.files) == 1 and self.files[0].path == self.root

    def shown(self, file: FileInfo) -> str:
        """Return the address of a file as the user would write it."""
        return str(file.path) if self.is_local else f"{self.source.partition('://')[0]}://{file.path}"

    def relative(self, file: FileInfo) -> str:
        """Return the path of a file below the root; its name if the source is that file."""
        path = str(file.path)
        return path.rpartition("/")[2] if self.is_file else path.removeprefix(self.root).lstrip("/")

    def read(self, relative: str) -> bytes:
        """Return the content of a file below the root.

        Raises:
            OSError: it cannot be read.
        """
        with self.filesystem.open_input_file(f"{self.root.rstrip('/')}/{relative}") as file:
            return bytes(file.read())

    def content(self, relative: str) -> bytes:
        """Return the content of a file below the root.

        Raises:
            UserError: it cannot be read.
        """
        try:
            return self.read(relative)
        except OSError as error:
            raise UserError(f"{self.root}/{relative}: cannot be read ({error.strerror})") from error

    def identity(self) -> list[tuple[str, int, int]]:
        """Return (path, bytes, modification time in ns) of every file; S3 rounds the last to seconds."""
        return [(file.path, file.size, file.mtime_ns) for file in self.files]


def find_place(source: str) -> Place:
    """Return the files of a path or URI.

    Credentials of S3 are read from the environment; its server from the URI's query,
    `s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http`.

    Raises:
        UserError: nothing is there, or it may not or cannot be read; a URI that holds credentials.
    """
    if "://" not in source:
        return _listed(source, LocalFileSystem(use_mmap=True), str(Path(source).expanduser().absolute()))
    return _listed(source, *open_uri(source, FLAG))


def open_uri(uri: str, flag: str) -> tuple[FileSystem, str]:
    """Return the file system of a URI that a flag gave, and the path on it; see `find_place`.

    Raises:
        UserError: nothing reads such a URI, it names no bucket, or it holds credentials.
    """
    _refuse_credentials(uri, flag)
    try:
        filesystem, root = FileSystem.from_uri(uri)
    except (ArrowException, ImportError, OSError, ValueError) as error:
        raise unusable(uri, flag, error) from error
    if not root:
        raise UserError(f"{flag} {uri}: names no bucket; give s3://bucket/folder")
    return filesystem, root


def _listed(source: str, filesystem: FileSystem, root: str) -> Place:
    try:
        found = filesystem.get_file_info(root)
        if found.type == FileType.NotFound:
            raise _missing(source, filesystem, root)
        if found.type == FileType.File:
            return Place(source, filesystem, root, (found,))
        if isinstance(filesystem, LocalFileSystem):
            return _local(source, filesystem, root)
        inside = filesystem.get_file_info(FileSelector(root, recursive=True))
    except (ArrowException, OSError, ValueError) as error:
        raise unusable(source, FLAG, error) from error
    return Place(source, filesystem, root, _sorted_files(inside))


def _local(source: str, filesystem: FileSystem, root: str) -> Place:
    """Return the files below a folder of this machine.

    pyarrow alone would omit broken links silently, and follow circular ones 40 times.
    """
    circles, knots = list[str](), list[str]()
    found = filesystem.get_file_info(list(_walk(root, (), circles, knots)))
    nowhere = tuple(file.path for file in found if file.type == FileType.NotFound)
    passed_over = {NOWHERE: (*nowhere, *knots), CIRCLE: tuple(circles)}
    told = {reason: paths for reason, paths in passed_over.items() if paths}
    return Place(source, filesystem, root, _sorted_files(found), told)


def _walk(folder: str, above: tuple[str, ...], circles: list[str], knots: list[str]) -> Iterator[str]:
    """Yield the paths of all files below a folder, through links; add links to a folder in `above` to `circles`, and
    links that lead to themselves to `knots`.

    Raises:
        UserError: a name that is not UTF-8.
    """
    real = os.path.realpath(folder)
    if real in above:
        circles.append(folder)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if (name := os.fsencode(entry.name)) != entry.name.encode(errors="replace"):
                raise UserError(f"{folder}: holds the name {name!r}, which is not UTF-8; rename it")
            try:
                is_folder = entry.is_dir()
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                knots.append(entry.path)
                continue
            if is_folder:
                yield from _walk(entry.path, (*above, real), circles, knots)
            else:
                yield entry.path


def _sorted_files(found: list[FileInfo]) -> tuple[FileInfo, ...]:
    files = (file for file in found if file.type == FileType.File)
    return tuple(sorted(files, key=lambda file: str(file.path)))


def _missing(source: str, filesystem: FileSystem, root: str) -> UserError:
    bucket, _, key = root.partition("/")
    if filesystem.type_name != "s3":
        return UserError(
            f"--data.source {source}: no such file or folder; give digits, digits-scenes, cifar10, cifar100 or the "
            f"path of a Parquet or Arrow file, of an image folder or of a list of images"
        )
    if filesystem.get_file_info(bucket).type == FileType.NotFound:
        return no_bucket(source, FLAG, bucket)
    return UserError(f"--data.source {source}: the bucket {bucket!r} holds nothing named {key!r}")


def no_bucket(uri: str, flag: str, bucket: str) -> UserError:
    """Return the error for a URI whose bucket does not exist."""
    return UserError(
        f"{flag} {uri}: there is no bucket {bucket!r}; a server other than Amazon's is given as "
        f"?endpoint_override=HOST:PORT&scheme=http"
    )


def _refuse_credentials(uri: str, flag: str) -> None:
    """Refuse a URI with a password: URIs are written to journals and shown by MLflow."""
    scheme, _, rest = uri.partition("://")
    address, _, query = rest.partition("?")
    if ":" in address.rpartition("@")[0] or re.search(r"(?i)secret|passw|token|key|sig|sas", query):
        raise UserError(
            f"{flag} {scheme}://…: the URI holds credentials, which would be written to the sweep's records; "
            f"leave them out and set them in the environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def unusable(uri: str, flag: str, error: Exception) -> UserError:
    """Return the error for a URI that a file system refused."""
    denied = "access is denied: " if any(denial in str(error) for denial in DENIALS) else ""
    remedy = (
        "; credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        if uri.startswith("s3://")
        else ""
    )
    return UserError(f"{flag} {uri}: cannot be used ({denied}{str(error).splitlines()[0]}){remedy}")
