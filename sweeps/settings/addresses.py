"""Addresses of the stores that a sweep writes to. They may hold a login, and are shown and stored without it."""

import shlex
from urllib.parse import unquote, unquote_plus

LOGIN = "USER:PASSWORD@"


def without_password(uri: str) -> str:
    """Return the URI to show: without user and password, whether before the host or among the options."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    host, question, options = _after_login(rest).partition("?")
    kept = "&".join(option for option in options.split("&") if not _is_login(option))
    return f"{scheme}{separator}{host}{question if kept else ''}{kept}"


def without_secret(text: str, uri: str) -> str:
    """Return the first line of a message, without the user and password of a URI."""
    line = (text.splitlines() or [""])[0]
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        line = line.replace(secret, "…")
    return line


def given_again(flag: str, uri: str) -> str:
    """Return the flag that a command must repeat to continue a sweep: with a placeholder for the login, if the URI
    holds one, since logins are not stored; otherwise "".
    """
    shown = without_password(uri)
    return "" if shown == uri else f" {flag} {shlex.quote(shown.replace('://', f'://{LOGIN}', 1))}"


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def _after_login(rest: str) -> str:
    """Return what follows the last @; a path, which may also have one, holds no login."""
    return rest if rest.startswith("/") else rest.rpartition("@")[2]


def _is_login(option: str) -> bool:
    name = option.partition("=")[0].lower()
    return name == "user" or "password" in name


def _secrets(uri: str) -> set[str]:
    """Return login and password of a URI as a message may contain them: as written, and decoded."""
    rest = uri.partition("://")[2]
    login = "" if rest.startswith("/") else rest.rpartition("@")[0]
    _, _, password = login.partition(":")
    options = [option.partition("=") for option in rest.partition("?")[2].split("&") if _is_login(option)]
    among = [value for name, _, value in options if name.lower() != "user"]
    return {form for text in (login, password, *among) for form in (text, unquote(text), unquote_plus(text)) if form}
