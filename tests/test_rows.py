"""Rows of a comparison: methods, alone or with plug-ins."""

import re

import pytest

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.methods import METHODS
from sweeps.settings.rows import PLUGINS, VARIANTS, overrides, rows_named, title_of


def test_all_is_every_method_and_the_variants_each_once() -> None:
    assert rows_named("all") == (*METHODS, *VARIANTS)
    assert rows_named("ltsd, at ,ltsd") == ("ltsd", "at")
    assert rows_named("") == ()


OF_TEACHER = ("clean-teacher", "random-teacher", "distillation-alone", "matching-alone")
PLUGGED = [f"{'ltsd' if plugin in OF_TEACHER else 'at-bsl'}+{plugin}" for plugin in PLUGINS]


@pytest.mark.parametrize("row", [*METHODS, *VARIANTS, *PLUGGED])
def test_a_row_is_a_configuration_that_can_be_run(row: str) -> None:
    flat = Config.preset("digits").override(overrides(row)).flatten()
    assert flat["method"] == row.split("+")[0]
    assert {name: flat[name] for name in overrides(row)} == overrides(row)
    assert rows_named(row) == (row,)


def test_plugins_add_up_and_are_told() -> None:
    assert overrides("at+awp+robustlt") == {
        "method": "at",
        "awp.gamma": 5e-3,
        "robustlt.strength": 0.3,
        "robustlt.ramp": 0.8,
    }
    assert title_of("at+awp+robustlt") == "AT + AWP + RobustLT"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tradse", "'tradse' is not one of natural, at, trades, mart, robal, reat, taet, at-bsl, ltsd (a row is"),
        ("tradse", "such as ltsd+robustlt); did you mean 'trades'?"),
        ("ltsd+apw", "--references ltsd+apw: 'apw' is not one of awp, ema, robustlt, clean-teacher"),
        ("ltsd+", "'' is not one of awp"),
        ("ltsd+smooth", "--references ltsd+smooth: smooth sets bsl.label_smoothing, which ltsd does not read"),
        ("at+clean-teacher", "clean-teacher sets teacher.adversarial, which at does not read"),
    ],
)
def test_what_is_no_row_is_refused_with_those_that_are(text: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        rows_named(text)
