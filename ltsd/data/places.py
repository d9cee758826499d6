"""Where a source lies: a path of this machine, or a URI of any file system that pyarrow reads, such as S3."""

import re
from dataclasses import dataclass
from pathlib import Path

from pyarrow import ArrowException
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from ltsd.errors import UserError

FLAG = "--data.source"
DENIALS = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN", "ExpiredToken")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "valid", "val", "dev"),
}
"""What training and test data are called; of the names for test data the first that is there."""


@dataclass(frozen=True)
class Place:
    """The files of a source, sorted by path: the source itself where it is a file, else all below it."""

    source: str
    filesystem: FileSystem
    root: str
    files: tuple[FileInfo, ...]

    @property
    def is_local(self) -> bool:
        """Whether `root` is a path of this machine."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def is_file(self) -> bool:
        """Whether the source is one file."""
        return [file.path for file in self.files] == [self.root]

    def shown(self, file: FileInfo) -> str:
        """A file as the user would write it."""
        return str(file.path) if self.is_local else f"{self.source.partition('://')[0]}://{file.path}"

    def identity(self) -> list[tuple[str, int, int]]:
        """(path, bytes, nanoseconds of the last change) of every file; S3 rounds the last to seconds."""
        return [(file.path, file.size, file.mtime_ns) for file in self.files]


def find_place(source: str) -> Place:
    """The files of a path or URI.

    Credentials of S3 are read from the environment; its server from the URI's query,
    `s3://bucket/folder?endpoint_override=HOST:PORT&scheme=http`.

    Raises:
        UserError: nothing is there, or it may not or cannot be read; a URI that holds credentials.
    """
    if "://" not in source:
        return _listed(source, LocalFileSystem(use_mmap=True), str(Path(source).expanduser().absolute()))
    return _listed(source, *open_uri(source, FLAG))


def open_uri(uri: str, flag: str) -> tuple[FileSystem, str]:
    """The file system of a URI that a flag gave, and the path on it; see `find_place`.

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
        is_file = found.type == FileType.File
        inside = [found] if is_file else filesystem.get_file_info(FileSelector(root, recursive=True))
    except (ArrowException, OSError, ValueError) as error:
        raise unusable(source, FLAG, error) from error
    files = sorted((file for file in inside if file.type == FileType.File), key=lambda file: str(file.path))
    return Place(source, filesystem, root, tuple(files))


def _missing(source: str, filesystem: FileSystem, root: str) -> UserError:
    bucket, _, key = root.partition("/")
    if filesystem.type_name != "s3":
        return UserError(
            f"--data.source {source}: no such file or folder; give digits, cifar10, cifar100 or the path of a Parquet "
            f"or Arrow file or of an image folder"
        )
    if filesystem.get_file_info(bucket).type == FileType.NotFound:
        return no_bucket(source, FLAG, bucket)
    return UserError(f"--data.source {source}: the bucket {bucket!r} holds nothing named {key!r}")


def no_bucket(uri: str, flag: str, bucket: str) -> UserError:
    """What is said of a URI whose bucket is not there."""
    return UserError(
        f"{flag} {uri}: there is no bucket {bucket!r}; a server other than Amazon's is given as "
        f"?endpoint_override=HOST:PORT&scheme=http"
    )


def _refuse_credentials(uri: str, flag: str) -> None:
    """A URI is written to journals and shown by MLflow: it is no place for secrets."""
    scheme, _, rest = uri.partition("://")
    address, _, query = rest.partition("?")
    if ":" in address.rpartition("@")[0] or re.search(r"(?i)secret|passw|token|key|sig|sas", query):
        raise UserError(
            f"{flag} {scheme}://…: the URI holds credentials, which would be written to the sweep's records; "
            f"leave them out and set them in the environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def unusable(uri: str, flag: str, error: Exception) -> UserError:
    """What is said of a URI that a file system refused."""
    denied = "access is denied: " if any(denial in str(error) for denial in DENIALS) else ""
    remedy = (
        "; credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        if uri.startswith("s3://")
        else ""
    )
    return UserError(f"{flag} {uri}: cannot be used ({denied}{str(error).splitlines()[0]}){remedy}")
