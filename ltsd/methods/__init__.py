"""The training methods. To add one: write its file, which ends with its METHOD, and add its line to METHODS.

A program that tries a method may add it before it imports `ltsd.config`, which makes the knobs of a run from METHODS.
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
