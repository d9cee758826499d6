"""Markdown: what is written is what a reader of Markdown reads."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltsd.markdown import escaped, listed, percent, spread, table, within

REST = "\nThe rest is elsewhere.\n"
paragraphs = st.lists(st.text("abc# ", min_size=1, max_size=40).map(lambda text: f"x{text}x"), min_size=1, max_size=9)


def test_a_table_has_a_head_and_columns_of_one_width() -> None:
    assert table([["", "b"], ["long", "2"]]) == "|      | b |\n|------|---|\n| long | 2 |\n"


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_several_values_are_told_by_mean_and_standard_deviation(values: list[float]) -> None:
    mean, deviation = map(float, percent(*spread(values)).split(" ± "))
    assert mean == pytest.approx(100 * statistics.fmean(values), abs=0.0501)
    assert deviation == pytest.approx(100 * statistics.stdev(values), abs=0.0501)


def test_one_value_has_no_deviation() -> None:
    assert percent(*spread([0.25])) == percent(0.25) == "25.0"


def test_a_list_has_an_entry_a_line() -> None:
    assert listed(["a", "b"]) == "- a\n- b\n"


def test_no_character_of_a_name_is_markup() -> None:
    assert escaped("a|b *c* `d` <e> [f] \\g_") == "a\\|b \\*c\\* \\`d\\` \\<e\\> \\[f\\] \\\\g\\_"


@given(paragraphs, st.integers(len(REST) + 1, 300))
def test_a_text_over_the_limit_keeps_as_many_whole_paragraphs_as_fit(parts: list[str], limit: int) -> None:
    text = "\n\n".join(parts) + "\n"
    told = within(text, limit, REST)
    if len(text) <= limit:
        assert told == text
        return
    assert len(told) <= limit
    kept = [part for part in told.removesuffix(REST).removesuffix("\n").split("\n\n") if part]
    assert kept == parts[: len(kept)]
    longer = "\n\n".join(parts[: len(kept) + 1]) + "\n" + REST
    assert len(longer) > limit


def test_no_heading_is_left_without_what_it_heads() -> None:
    text = f"one\n\n## Two\n\n{'long' * 20}\n"
    assert within(text, 60, REST) == f"one\n{REST}"
    assert within(text, len(text), REST) == text
