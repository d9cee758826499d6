"""Class names as people are shown them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ltsd.data.names import listed, padded, shortened, told_apart


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lynx", "lynx"),
        ("Ursus arctos", "Ursus…ctos"),
        ("a\nb\t c", "a b c"),
        ("\x1b[31mred", "�[31mred"),
        ("\u202eevil", "�evil"),
        ("\ud800", "�"),
        ("大熊貓科動物", "大熊…動物"),
        (" \n", "''"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_a_name_is_shown_on_one_line_of_ten_cells(name: str, shown: str) -> None:
    assert shortened(name, 10) == shown


@given(st.text(), st.integers(2, 40))
def test_whatever_a_name_holds_it_fits(name: str, width: int) -> None:
    shown = shortened(name, width)
    assert 1 <= cell_len(shown) <= width
    assert len(shown.splitlines()) == 1
    assert cell_len(padded(shown, width)) == width


def test_names_that_differ_at_their_end_are_told_apart() -> None:
    names = {shortened(f"{'a long beginning of all names':070}{number:04d}", 12) for number in range(1000)}
    assert len(names) == 1000


def test_of_many_names_a_few_are_listed_and_the_others_counted() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([f"c{c}" for c in range(1203)], 3) == "c0, c1, c2, … and 1,200 more"
    assert len(listed(["x" * 70] * 1203)) < 300


def test_names_that_would_look_the_same_end_in_their_number() -> None:
    names = ["lynx", f"{'x' * 20} brown {'y' * 20}", f"{'x' * 20} black {'y' * 20}", "bear", "bear"]
    assert told_apart(names, 12) == ["lynx", "xxxx…yyyy #1", "xxxx…yyyy #2", "bear #3", "bear #4"]
