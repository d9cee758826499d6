"""Addresses of the stores that a sweep writes to, which may hold a login: shown and written down without it."""

import shlex
from urllib.parse import unquote, unquote_plus

LOGIN = "USER:PASSWORD@"


def without_password(uri: str) -> str:
    """The URI as it may be shown: without user and password, be they before the host or among the options."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    host, question, options = _after_login(rest).partition("?")
    kept = "&".join(option for option in options.split("&") if not _is_login(option))
    return f"{scheme}{separator}{host}{question if kept else ''}{kept}"


def without_secret(text: str, uri: str) -> str:
    """The first line of a message, without the user and password of a URI."""
    line = (text.splitlines() or [""])[0]
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        line = line.replace(secret, "…")
    return line


def given_again(flag: str, uri: str) -> str:
    """A flag as a command has to repeat it that goes on with a sweep: where the URI holds a login, with a place for it,
    since it is written down nowhere; else "", since it is known.
    """
    shown = without_password(uri)
    return "" if shown == uri else f" {flag} {shlex.quote(shown.replace('://', f'://{LOGIN}', 1))}"


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _after_login(rest: str) -> str:
    """What follows the last @; a path, which may have one too, holds no login."""
    return rest if rest.startswith("/") else rest.rpartition("@")[2]


def _is_login(option: str) -> bool:
    name = option.partition("=")[0].lower()
    return name == "user" or "password" in name


def _secrets(uri: str) -> set[str]:
    """Login and password of a URI as they may be found in a message: as they are written, and decoded."""
    rest = uri.partition("://")[2]
    login = "" if rest.startswith("/") else rest.rpartition("@")[0]
    _, _, password = login.partition(":")
    options = [option.partition("=") for option in rest.partition("?")[2].split("&") if _is_login(option)]
    among = [value for name, _, value in options if name.lower() != "user"]
    return {form for text in (login, password, *among) for form in (text, unquote(text), unquote_plus(text)) if form}
