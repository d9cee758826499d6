"""The storage of a study: a file in its sweep's folder, or a PostgreSQL database that sweeps share."""

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from ltsd.errors import UserError
from sweeps.settings.addresses import flag_of, without_password, without_secret
from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep

STUDY_FILE = "study.db"
LOCK_TIMEOUT_S = 60.0
POSTGRES = "postgres"
POSTGRES_PORT = 5432
# A lost host is noticed within these seconds (tcp_user_timeout: milliseconds), not after the system's 15 minutes.
WITHIN = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 20_000}
INSTALL = "pip install -c constraints.txt -e '.[postgres]'"


class UnreachableError(UserError):
    """A database refuses the connection: it is down, or its address or login is wrong."""


class StudyStorage(Protocol):
    """The storage of a sweep's study; `str` of it is its name in messages."""

    @property
    def study(self) -> str:
        """The study's name there."""

    def storage(self) -> RDBStorage:
        """Return the storage through which Optuna reads and writes it.

        Raises:
            UnreachableError: a shared database does not answer.
            UserError: it cannot hold studies.
        """

    def check(self) -> None:
        """Raise an error if the content is damaged, as far as this can be seen without reading all of it."""

    def set_aside(self, error: Exception) -> None:
        """Rename content that cannot be read, or that contradicts the journal.

        Raises:
            UserError: the storage itself is at fault, not its content.
        """

    def remove(self) -> None:
        """Remove the study of a sweep that never started."""


@dataclass(frozen=True)
class StudyFile:
    """A sqlite file in the folder of its sweep."""

    folder: Path
    row: str = ""
    study: ClassVar[str] = "sweep"

    def __str__(self) -> str:
        return str(self.file)

    @property
    def file(self) -> Path:
        """Its path."""
        return self.folder.absolute() / (f"study-{self.row}.db" if self.row else STUDY_FILE)

    def storage(self) -> RDBStorage:
        """See `StudyStorage`."""
        return RDBStorage(f"sqlite:///{self.file}", engine_kwargs={"connect_args": {"timeout": LOCK_TIMEOUT_S}})

    def check(self) -> None:
        """Let sqlite check the structure of the file, if there is one.

        Raises:
            sqlite3.DatabaseError: it is damaged.
        """
        if self.file.exists():
            with contextlib.closing(sqlite3.connect(self.file, timeout=LOCK_TIMEOUT_S)) as connection:
                verdict = connection.execute("PRAGMA integrity_check").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)

    def set_aside(self, error: Exception) -> None:
        """See `StudyStorage`."""
        for path in self.folder.glob(f"{self.file.name}*"):
            if ".damaged-" not in path.name:
                path.replace(path.with_name(f"{path.name}.damaged-{time.time_ns()}"))

    def remove(self) -> None:
        """Do nothing: the file is removed with the folder."""


@dataclass(frozen=True)
class StudyDatabase:
    """A study among others in a PostgreSQL database."""

    uri: str
    study: str

    def __str__(self) -> str:
        return f"the study {self.study} in {without_password(self.uri)}"

    def storage(self) -> RDBStorage:
        """See `StudyStorage`. Connections that break later are opened again."""
        check_address("--study-uri", self.uri)
        try:
            return RDBStorage(self.uri, engine_kwargs={"pool_pre_ping": True, "connect_args": WITHIN})
        except Exception as error:  # an older or newer Optuna's tables, rights that are missing, and the like
            raise self._unfit(error) from None

    def check(self) -> None:
        """Do nothing: PostgreSQL checks what it reads."""

    def set_aside(self, error: Exception) -> None:
        """See `StudyStorage`."""
        if isinstance(error, StorageInternalError):
            raise self._unfit(error.__cause__ or error) from None
        rename = sqlalchemy.text("UPDATE studies SET study_name = :aside WHERE study_name = :name")
        names = {"name": self.study, "aside": f"{self.study}.damaged-{time.time_ns()}"}
        try:
            with self.storage().engine.begin() as connection:
                connection.execute(rename, names)
        except SQLAlchemyError as failed:
            raise self._unfit(failed) from None

    def remove(self) -> None:
        """See `StudyStorage`."""
        with contextlib.suppress(KeyError, UserError, StorageInternalError):
            optuna.delete_study(study_name=self.study, storage=self.storage())

    def _unfit(self, error: BaseException) -> UserError:
        return UserError(
            f"--study-uri {without_password(self.uri)}: Optuna cannot keep a study there "
            f"({without_secret(str(error), self.uri)[:200]}); give another database, or --study-uri '' for a file in "
            f"the sweep's folder"
        )


def study_storage_of(sweep: Sweep, row: str = "") -> StudyStorage:
    """Return the storage of the study of a row's search. In a database, its name is made of the sweep's name, its
    identity and the row: sweeps in other folders may have the same name.
    """
    uri = sweep.settings.study_uri
    if not uri:
        return StudyFile(sweep.settings.folder.absolute(), row)
    return StudyDatabase(uri, "-".join(filter(None, (str(sweep.settings.name), sweep.identity, row))))


def check_stores(settings: Settings) -> None:
    """Check that the databases in the settings can be used. MLflow's must answer now, since MLflow would wait for it
    for minutes; the study's may be down.

    Raises:
        UserError: MLflow's does not answer, or the study's cannot hold a study.
    """
    study = settings.study_uri
    if study and not study.startswith(POSTGRES):
        raise UserError(
            f"--study-uri {without_password(study)}: must be a PostgreSQL database, "
            f"postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or '' for a file in the sweep's folder"
        )
    if settings.tracking_uri.startswith(POSTGRES):
        check_address(flag_of("tracking_uri"), settings.tracking_uri)
    if study and settings.tracking_uri.startswith(POSTGRES) and _database(study) == _database(settings.tracking_uri):
        raise UserError(
            f"--study-uri {without_password(study)}: MLflow writes to the same database, and both would keep the "
            f"version of their tables in one place; give each a database of its own, made by `createdb`"
        )


def _database(uri: str) -> tuple[str | None, int, str | None]:
    address = sqlalchemy.make_url(uri)
    return address.host, address.port or POSTGRES_PORT, address.database


def check_address(flag: str, uri: str) -> None:
    """Connect to a PostgreSQL database once.

    Raises:
        UnreachableError: the address cannot be read, or no server there admits us.
        UserError: its driver is not installed.
    """
    shown = f"{flag} {without_password(uri)}"
    try:
        engine = sqlalchemy.create_engine(uri, connect_args=WITHIN)
        with contextlib.closing(engine.raw_connection()):
            pass
        engine.dispose()
    except ImportError as error:
        raise UserError(f"{shown}: its driver is not installed ({error}); {INSTALL}") from None
    except Exception as error:  # SQLAlchemy's if it cannot read the address, the driver's if it cannot connect
        reason = " ".join(without_secret(str(error), uri).split())[:200]
        raise UnreachableError(
            f"{shown}: PostgreSQL does not let us in there ({reason}); start the server, and give the flag as "
            f"postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or keep the password in ~/.pgpass"
        ) from None
