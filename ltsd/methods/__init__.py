"""The training methods. To add one, define its METHOD in a new module and list it in METHODS.

A program can register an experimental method in METHODS before it imports `ltsd.config`, which reads the knobs from
METHODS.
"""

from ltsd.methods import at, at_bsl, ltsd, mart, natural, reat, robal, taet, trades
from ltsd.methods.method import Method

METHODS: dict[str, Method] = {
    "natural": natural.METHOD,
    "at": at.METHOD,
    "trades": trades.METHOD,
    "mart": mart.METHOD,
    "robal": robal.METHOD,
    "reat": reat.METHOD,
    "taet": taet.METHOD,
    "at-bsl": at_bsl.METHOD,
    "ltsd": ltsd.METHOD,
}
