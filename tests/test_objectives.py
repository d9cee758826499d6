"""What a sweep maximises, and what its user prefers."""

import re

import pytest

from ltsd.errors import UserError
from sweeps.settings.objectives import Objectives, Preference

BOTH = Objectives(("robust", "tail"))


def test_scores_are_read_in_the_users_order_and_only_where_all_are_numbers() -> None:
    values = {"val/robust_acc": 0.5, "val/tail_robust_acc": 0.25, "val/clean_acc": 0.75, "confirm/robust_acc": 0.125}
    assert Objectives.named("clean, tail").of(values) == (0.75, 0.25)
    assert Objectives.named("robust").of(values, "confirm") == (0.125,)
    assert Objectives.named("robust,tail").of(values, "confirm") is None
    assert Objectives.named("robust").of({"val/robust_acc": float("nan")}) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "robust,tial",
            "--objectives robust,tial: 'tial' is not measured; robust, tail, clean, tail-clean",
        ),
        ("robust,tial", "; did you mean 'tail'?"),
        ("", "must name one or more of robust, tail"),
        ("tail,tail", "each once"),
    ],
)
def test_what_is_not_measured_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        Objectives.named(text)


def test_a_preference_is_bounds_and_weights() -> None:
    preference = Preference.read("tail>=0.6, robust + 3*tail", BOTH)
    assert preference.worth((0.8, 0.4)) == pytest.approx(0.5)
    assert (preference.is_met((0.1, 0.6)), preference.is_met((0.9, 0.59))) == (True, False)
    assert sorted([(0.9, 0.5), (0.5, 0.6), (0.5, 0.7), ()], key=lambda scores: preference.key(scores, (0.9, 0.9))) == [
        (),
        (0.9, 0.5),
        (0.5, 0.6),
        (0.5, 0.7),
    ]
    nothing = Preference.read(None, BOTH)
    found = [(0.6, 0.9), (0.7, 0.4), (0.7, 0.5)]  # the first counts three times
    assert max(found, key=lambda scores: nothing.key(scores, (0.7, 0.4))) == (0.7, 0.5), "nowhere below the defaults"
    assert max(found, key=lambda scores: nothing.key(scores, ())) == (0.6, 0.9), "the defaults are unknown"
    assert (nothing.worth((0.8, 0.4)), nothing.is_met((0.0, 0.0)), nothing.is_stated) == (
        pytest.approx(0.7),
        True,
        False,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "tale>=0.6",
            "--prefer tale>=0.6: 'tale' is not maximised; robust, tail by --objectives; did you mean",
        ),
        ("clean", "'clean' is not maximised"),
        ("tail>=60", "60 is out of range: scores lie in [0, 1], write 0.6, not 60"),
        ("tail>=much", "'much' is no number; write bounds as tail>=0.6, weights as robust+2*tail"),
        ("-1*tail", "'-1' is no number"),
        ("0*tail", "some weight must be above 0"),
        ("tail<=0.6", "'tail<=0.6' is not maximised"),
    ],
)
def test_what_is_no_preference_is_refused(text: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        Preference.read(text, BOTH)
