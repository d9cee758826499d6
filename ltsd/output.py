"""Standard output and error: readable in every encoding, and quiet once nobody reads them."""

import codecs
import io
import os
import select
import signal
import sys
import unicodedata

CLOSED = 128 + signal.SIGPIPE
"""The exit code where whoever read the output left, as `| head` does: what a shell tells of other programs then."""
STDOUT, STDERR = 1, 2
READABLE = "ltsd.readable"
SUBSTITUTES = {"–": "-", "—": "-", "−": "-", "±": "+-", "×": "x", "·": "*", "ε": "eps", "→": "->"}


def prepare_output() -> None:
    """Let both streams write readable substitutes for characters that their encoding lacks.

    A stream that was closed before the process started is redirected to nowhere.
    """
    codecs.register_error(READABLE, substituted)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", errors=READABLE))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=READABLE)


def substituted(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: return the substitute, and the position to continue at."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return SUBSTITUTES.get(character) or plain or "?"


def discard_output() -> None:
    """Discard what waits for a reader who has left, and everything written from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (STDOUT, STDERR):
        if _is_left(descriptor):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_left(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
