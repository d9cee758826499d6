"""Exchange of checkpoints, teachers, correctness files and pictures between machines: by a folder or a bucket.

Every machine works on files at its own paths. If these are not in a shared folder, a file is published after it is
written and brought before it is read; its name in the bucket is its path relative to the storage.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Protocol

from filelock import FileLock, Timeout

from ltsd.data.arrow import cache_folder
from ltsd.errors import UserError
from ltsd.files import publishing
from sweeps.journal.bucket import FLAG, Bucket
from sweeps.journal.jobs import FOLDERS, Job
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import SETTINGS_FILE


class Exchange(Protocol):
    """Exchanges files between the machines of a sweep. A failure raises OSError, and halts the sweep."""

    def begin(self, settings: Settings, *, is_new: bool) -> None:
        """Check, on the driver's machine, whether a sweep can start or continue.

        Raises:
            UserError: it cannot.
        """

    def lacks(self, folder: Path) -> str:
        """Return a sentence about what this machine lacks to take part in the sweep in a folder; "" for nothing."""

    def at_hand(self, job: Job) -> AbstractContextManager[tuple[Job, "Exchange"]]:
        """Yield a job whose checkpoints are where its paths say, and the exchange for its files."""

    def publish(self, path: Path, rank: int) -> None:
        """Publish the state of a file after `rank` steps: epochs, or parts of an exam."""

    def bring(self, path: Path) -> bool:
        """Bring the published file to `path`; return False if there is none, whatever is at `path`."""

    def bring_checkpoint(self, job: Job) -> None:
        """Bring a job's latest checkpoint and the one before."""

    def gather(self, job: Job) -> None:
        """Bring the correctness file and the pictures of a finished job into the sweep's folder, and the model of a
        final run.
        """

    def settle(self, job: Job) -> None:
        """Remove the published spare checkpoint of a finished job."""

    def drop_shards(self, job: Job) -> None:
        """Remove the remaining shards of a finished exam."""


@dataclass(frozen=True)
class SharedFolder:
    """An `Exchange` by a folder that all machines see, so that files need not be moved."""

    def begin(self, settings: Settings, *, is_new: bool) -> None:
        """Do nothing."""

    def lacks(self, folder: Path) -> str:
        """See `Exchange`."""
        if (folder / SETTINGS_FILE).exists():
            return ""
        return (
            f"it does not see {folder}; give a --storage that all nodes share, such as a folder of an NFS server that "
            f"is mounted under the same path everywhere, or {FLAG} s3://bucket/folder"
        )

    @contextlib.contextmanager
    def at_hand(self, job: Job) -> Iterator[tuple[Job, Exchange]]:
        """See `Exchange`."""
        yield job, self

    def publish(self, path: Path, rank: int) -> None:
        """Do nothing."""

    def bring(self, path: Path) -> bool:
        """See `Exchange`."""
        return path.exists()

    def bring_checkpoint(self, job: Job) -> None:
        """Do nothing."""

    def gather(self, job: Job) -> None:
        """Do nothing."""

    def settle(self, job: Job) -> None:
        """Do nothing."""

    def drop_shards(self, job: Job) -> None:
        """See `Exchange`."""
        shutil.rmtree(job.shards, ignore_errors=True)


@dataclass(frozen=True)
class SharedBucket:
    """An `Exchange` by a bucket; `root` is this machine's folder that mirrors it."""

    bucket: Bucket
    root: Path

    def begin(self, settings: Settings, *, is_new: bool) -> None:
        """See `Exchange`."""
        self.bucket.check()
        if is_new and self.bucket.folders(str(settings.name)):
            raise UserError(
                f"--name {settings.name}: {self.bucket.uri} has a sweep of that name already; add --resume to go on "
                f"with it, or give another name"
            )

    def lacks(self, folder: Path) -> str:
        """See `Exchange`."""
        try:
            self.bucket.check()
        except UserError as error:
            return f"{error}"
        return ""

    @contextlib.contextmanager
    def at_hand(self, job: Job) -> Iterator[tuple[Job, Exchange]]:
        """See `Exchange`; the files are in a folder that is removed afterwards."""
        with scratch_folder() as scratch:
            here = replace(self, root=scratch)

            def moved(path: str) -> str:
                return str(here.root / self._name(Path(path))) if self._is_shared(Path(path)) else path

            job = replace(job, folder=moved(job.folder), teacher=moved(job.teacher), resume=moved(job.resume))
            here.bring_checkpoint(job)
            if job.resume:
                here.bring(Path(job.resume))
            yield job, here

    def publish(self, path: Path, rank: int) -> None:
        """See `Exchange`."""
        self.bucket.put(self._name(path), rank, path.read_bytes())

    def bring(self, path: Path) -> bool:
        """See `Exchange`."""
        return self._is_shared(path) and self._bring(path, [path])

    def bring_checkpoint(self, job: Job) -> None:
        """See `Exchange`."""
        self._bring(job.checkpoint, [job.checkpoint, job.spare])

    def gather(self, job: Job) -> None:
        """See `Exchange`."""
        pictures = (job.pictures / f"{name}.png" for name in self.bucket.folders(self._name(job.pictures)))
        for path in (job.correctness, *pictures):
            self.bring(path)
        if job.kind == "final":
            self.bring(job.checkpoint)

    def settle(self, job: Job) -> None:
        """See `Exchange`."""
        self.bucket.trim(self._name(job.checkpoint), 1)

    def drop_shards(self, job: Job) -> None:
        """See `Exchange`."""
        shards = self._name(job.shards)
        if self.bucket.folders(shards):
            self.bucket.remove(shards)

    def forget_others(self, sweep: str, jobs: Collection[str]) -> None:
        """Remove the files of a sweep's jobs other than these from the bucket."""
        for kind in self.bucket.folders(sweep):
            if kind in FOLDERS:
                for job in self.bucket.folders(f"{sweep}/{kind}"):
                    if PurePath(job).stem not in jobs:  # or the shards of one
                        self.bucket.remove(f"{sweep}/{kind}/{job}")

    def _bring(self, path: Path, states: list[Path]) -> bool:
        """Write the newest states of a file to `states`, as many as there are; return whether there are any."""
        found = False
        for state, content in zip(states, self.bucket.newest(self._name(path)), strict=False):
            with publishing(state) as temporary:
                temporary.write_bytes(content)
            found = True
        return found

    def _is_shared(self, path: Path) -> bool:
        """Return whether a path is in the storage; a path from before the storage was moved is not."""
        return path.is_relative_to(self.root)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a folder for this process and remove it at the end; first remove the folders that killed processes left."""
    base = cache_folder() / "jobs"
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / "lock"):
        for folder in (path for path in base.iterdir() if path.is_dir()):
            with contextlib.suppress(Timeout, OSError), FileLock(folder / "lock", blocking=False):
                shutil.rmtree(folder, ignore_errors=True)
        own = Path(tempfile.mkdtemp(dir=base))
        lock = FileLock(own / "lock")
        lock.acquire()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.release()


def exchange_of(settings: Settings) -> Exchange:
    """Return the exchange that the settings ask for."""
    if settings.shared is None:
        return SharedFolder()
    return SharedBucket(Bucket(settings.shared), Path(settings.storage).absolute())
