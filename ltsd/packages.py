"""Packages that an extra of ltsd installs, asked for where they are needed."""

from collections.abc import Sequence
from importlib.util import find_spec

from ltsd.errors import UserError


class MissingPackageError(UserError):
    """A package is not installed."""


def require(packages: Sequence[str], extra: str, what: str) -> None:
    """Check that packages are installed.

    Args:
        packages: their names as they are imported.
        extra: the extra that installs them.
        what: what needs them, in words.

    Raises:
        MissingPackageError: one is missing.
    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingPackageError(
            f"{what} needs {', '.join(missing)}, not installed here; "
            f"pip install -c constraints.txt -e '.[{extra}]', or of a wheel 'ltsd[{extra}]'"
        )
