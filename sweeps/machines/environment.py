"""The environment of a sweep: which variables are obeyed or overridden, and where Ray's own files are.

Import this before anything of Ray, which reads its environment when it is imported.
"""

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ltsd.errors import UserError
from ltsd.packages import require

# Ray is quiet and without telemetry, and Tune neither prints nor stores nor waits by itself.
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_WARN_THRESHOLD_S": "10",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ELSEWHERE = "this sweep starts a Ray of its own; --ray-address joins another"
PRIVATE = "the Ray that this sweep starts has a token of its own"
KEPT = "all that is kept of a sweep lies in --storage"
ITS_OWN = "a sweep has Tune do what it needs"
SIZE = "--concurrency and --gpus-per-trial say what this machine gives"
STARTED: dict[str, str] = {
    **dict.fromkeys(("RAY_ADDRESS", "RAY_GCS_SERVER_PORT"), ELSEWHERE),
    **dict.fromkeys(("RAY_REDIS_ADDRESS", "RAY_gcs_storage", "RAY_gcs_storage_path"), ELSEWHERE),
    **dict.fromkeys(
        ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK", "RAY_ENABLE_UV_RUN_RUNTIME_ENV"), ELSEWHERE
    ),
    **dict.fromkeys(("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), PRIVATE),
    **dict.fromkeys(("RAY_OVERRIDE_RESOURCES", "RAY_OVERRIDE_LABELS", "RAY_OVERRIDE_NODE_ID_FOR_TESTING"), SIZE),
}
"""The variables that are hidden from a Ray that the sweep starts, with the reason."""
TUNE: dict[str, str] = {
    **dict.fromkeys(("TUNE_RESULT_DIR", "RAY_AIR_LOCAL_CACHE_DIR", "RAY_STORAGE"), KEPT),
    **dict.fromkeys(("RAY_TUNE_CALLBACKS", "RAY_CHDIR_TO_TRIAL_DIR"), ITS_OWN),
    "PYTHONWARNINGS": "a sweep stops at errors, and leaves the warnings of libraries out",
}
"""The variables that are hidden from Tune wherever it runs jobs, besides all others that begin with TUNE_."""
JOINED: dict[str, str] = {
    "RAY_ADDRESS": "--ray-address auto is the Ray at that address",
    **dict.fromkeys(("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), "it is how the cluster is joined"),
    **dict.fromkeys(("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_RUNTIME_ENV_HOOK"), "the cluster's workers get what it says"),
}
"""The variables that are obeyed if a sweep joins a cluster, with their effect."""
NAMED = ("RAY_CLIENT_MODE", "RAY_TMPDIR")
SCRATCH = f"ltsd-{secrets.token_hex(4)}"
"""The name of the folder for Ray's own files. The driver inherits it from its supervisor, which can remove the folder.
"""
SOCKET = "session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST_PLACE = 107 - len(f"/{SCRATCH}/{SOCKET}")
"""The longest path of a folder for SCRATCH, in bytes: a socket's path has at most 107 on Linux."""

PACKAGES = ("ray", "optuna", "mlflow", "sqlalchemy", "plotly")
"""The packages of the extra `sweep`, in addition to those of `ltsd`."""

GIVEN = frozenset(os.environ)
"""The variables that the user has set; Ray sets some itself later."""

os.environ |= QUIET
# Others may reach the ports of this machine, so Ray accepts commands only with its token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
WAS_CLIENT = os.environ.pop("RAY_CLIENT_MODE", "0") != "0"


def require_packages() -> None:
    """Check that the packages of a sweep are installed.

    Raises:
        UserError: a package is missing.
    """
    require(PACKAGES, "sweep", "a sweep")


def told(*, joins: bool) -> Iterator[str]:
    """Return a sentence for each variable that is set and obeyed or overridden; without values, since some are secret.

    Args:
        joins: whether the sweep joins a cluster instead of starting Ray.
    """
    if WAS_CLIENT:
        yield "RAY_CLIENT_MODE is overridden: a sweep speaks to Ray itself"
    for name, why in overridden(joins=joins).items():
        yield f"{name} is overridden: {why}"
    for name, what in JOINED.items() if joins else ():
        if name in os.environ and os.environ[name] != "token":
            yield f"{name} is obeyed: {what}"
    for name in obeyed_by_ray():
        yield f"{name} is obeyed by Ray"
    if "XDG_CACHE_HOME" in os.environ:
        yield "XDG_CACHE_HOME is obeyed: decoded images lie there"
    if os.environ.get("OMP_NUM_THREADS", "1") != "1":
        yield "OMP_NUM_THREADS is overridden: every trial computes on one thread"
    if not joins:
        yield from _scratch_told()


def overridden(*, joins: bool) -> dict[str, str]:
    """Return the variables that are set and hidden from Ray, with the reason."""
    others = [name for name in os.environ if name.startswith("TUNE_") and name not in QUIET]
    hidden = TUNE | {name: TUNE.get(name, ITS_OWN) for name in others}
    hidden |= {} if joins else STARTED
    return {
        name: why
        for name, why in hidden.items()
        if name in os.environ and (name, os.environ[name]) != ("RAY_AUTH_MODE", "token")
    }


def obeyed_by_ray() -> list[str]:
    """Return Ray's other variables that are set."""
    known = QUIET | STARTED | TUNE | JOINED
    return sorted(name for name in GIVEN if name.startswith("RAY_") and name not in known and name not in NAMED)


def quiet() -> None:
    """Silence the warnings of libraries, whatever PYTHONWARNINGS says.

    Call this before the first thread: a thread inside `warnings.catch_warnings` would undo it.
    """
    if "PYTHONWARNINGS" in os.environ:
        warnings.simplefilter("ignore")


def hide(*, joins: bool) -> None:
    """Remove the overridden variables; a Ray that is started gets its own token."""
    for name in overridden(joins=joins):
        del os.environ[name]
    if not joins:
        os.environ.pop("RAY_AUTH_MODE", None)  # if unset, `ray.init` enables tokens, also in a Ray imported before this
        os.environ["RAY_AUTH_TOKEN"] = _own_token()


def remedy() -> str:
    """Return what may help if Ray does not start."""
    others = obeyed_by_ray()
    unset = f"unset {', '.join(others)}, which Ray obeys; " if others else ""
    return (
        f"{unset}see to it that there is memory, room on the disk and in /dev/shm, and that processes may be started, "
        f"or join a Ray that runs with --ray-address"
    )


@cache
def _own_token() -> str:
    """Return one token for the whole process: Ray keeps the first that it reads."""
    return secrets.token_hex(32)


def make_scratch() -> Path:
    """Make the folder for the files of a Ray that is started, with a path short enough for its sockets.

    Raises:
        UserError: no place can be written.
    """
    reasons = []
    for place in _places():
        try:
            if len(os.fsencode(place)) > LONGEST_PLACE:
                raise OSError(0, f"longer than the {LONGEST_PLACE} bytes that leave room for a socket's name")
            (place / SCRATCH).mkdir(mode=0o700, exist_ok=True)
            return place / SCRATCH
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    raise UserError(
        f"Ray finds no folder for its own files ({'; '.join(reasons)}); set TMPDIR to one that can be written, with a "
        f"path of at most {LONGEST_PLACE} bytes"
    )


def remove_scratch() -> None:
    """Remove the folder that `make_scratch` made, wherever it is."""
    for place in _places():
        shutil.rmtree(place / SCRATCH, ignore_errors=True)


def _places() -> list[Path]:
    asked = [os.environ.get(name, "") for name in ("RAY_TMPDIR", "TMPDIR")]
    return [Path(place).absolute() for place in (*asked, "/tmp", "/var/tmp", "/dev/shm") if place]


def _scratch_told() -> Iterator[str]:
    asked = [name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)]
    if asked:
        place = make_scratch().parent
        remove_scratch()
        for name in asked:
            obeyed = place == Path(os.environ[name]).absolute()
            yield f"{name} is {'obeyed' if obeyed else 'overridden'}: Ray's own files lie in {place}"
