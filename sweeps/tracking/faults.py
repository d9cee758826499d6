"""MLflow's errors, translated into messages with their remedies."""

import re
import textwrap
from pathlib import Path

from mlflow.store import db_migrations

from ltsd.errors import UserError
from sweeps.settings.addresses import without_password, without_secret

LONGEST_REASON = 400
OTHER = "give another --tracking-uri"
FAULTS = (
    (
        r"Invalid Host header",
        "the server does not answer to that name",
        "start it with `mlflow server --allowed-hosts` and the name, or give the name that it knows",
    ),
    (
        r"error code 401\b|authentication failed|no password supplied",
        "the login is refused",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, for a server, or give "
        "USER:PASSWORD in the address of a database",
    ),
    (
        r"error code 403\b|permission denied for",
        "the login may not do that",
        "use one that may create experiments, runs and models there",
    ),
    (
        r"not in a valid JSON format|error code (30\d|404)\b",
        "what answers is no MLflow",
        "give the address of an `mlflow server`, with its path where it has one",
    ),
    (
        r"too many 5\d\d error responses|error code 5\d\d\b",
        "the server fails",
        f"look into its log and mend that, or {OTHER}",
    ),
    (
        r"Can't locate revision|no such table|no such column",
        "the database is none of MLflow's",
        OTHER,
    ),
    (
        r"file is not a database|malformed",
        "the file is no database, or damaged",
        f"move it away or bring a whole one back, or {OTHER}",
    ),
    (
        r"readonly database|Read-only file system|Permission denied",
        "it cannot be written",
        f"make the file and its folder writable, or {OTHER}",
    ),
    (r"disk is full|No space left", "its disk is full", f"make room there, or {OTHER}"),
    (r"database is locked", "another program holds the database", f"wait until it lets go, or end it, or {OTHER}"),
    (
        r"unable to open database file|No such file or directory|Not a directory",
        "its folder cannot be used",
        f"make the folder, or {OTHER}",
    ),
    (
        r"unsupported URI|maintenance mode|[Cc]ould not parse|[Ii]nvalid.* URI|Can't load plugin",
        "MLflow keeps no records at such an address",
        "give http://HOST:PORT of an `mlflow server`, sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE",
    ),
)


def fault(error: Exception, uri: str) -> UserError:
    """Return the message for an error of MLflow, with the tracking URI."""
    text = f"{error}\n{error.__cause__ or ''}"
    if version := re.search(r"found version (\w+)", text):
        what, remedy = _schema(version[1], uri)
    else:
        known = ((what, remedy) for pattern, what, remedy in FAULTS if re.search(pattern, text))
        what, remedy = next(known, ("MLflow does not answer there", _start(uri)))
    reason = textwrap.shorten(without_secret(str(error).strip(), uri), LONGEST_REASON, placeholder=" …")
    return UserError(f"--tracking-uri {without_password(uri)}: {what} ({reason or type(error).__name__}); {remedy}")


def in_the_bin(experiment: str, number: str, uri: str) -> UserError:
    """Return the message for an experiment that was deleted but not removed; it still occupies its name."""
    shown = without_password(uri)
    return UserError(
        f"--tracking-uri {shown}: the experiment {experiment} is in MLflow's bin; bring it back with: "
        f"MLFLOW_TRACKING_URI={shown} mlflow experiments restore --experiment-id {number}"
    )


def _schema(version: str, uri: str) -> tuple[str, str]:
    """Return the remedy for a database whose tables have another version than this MLflow."""
    if any(Path(db_migrations.__file__).parent.glob(f"versions/{version}*.py")):
        upgrade = f"mlflow db upgrade {without_password(uri)}"
        return "the database is of an older MLflow", f"keep a copy of it, then run: {upgrade}"
    return "the database is of another MLflow, most likely a newer one", f"use the MLflow that wrote it, or {OTHER}"


def _start(uri: str) -> str:
    if uri.startswith("http"):
        return "start the server, or leave the flag out to keep the records in ./mlflow.db"
    return f"see to it that the database is there and answers, or {OTHER}"
