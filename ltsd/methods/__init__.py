"""The training methods. To add one: write its file, which ends with its METHOD, and add its line to METHODS."""

from collections.abc import Mapping

from ltsd.methods import at, at_bsl, ltsd, mart, natural, reat, robal, taet, trades
from ltsd.methods.method import Method

METHODS: Mapping[str, Method] = {
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
