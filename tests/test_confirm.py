"""Who becomes the finalist."""

import pytest

from sweeps.findings.confirm import chosen


@pytest.mark.parametrize(
    ("scores", "finalist"),
    [
        ({}, None),
        ({3: [0.7, 0.6, 0.65]}, 3),
        ({0: [0.70, 0.72, 0.74], 5: [0.80, 0.81, 0.82]}, 5),
        ({0: [0.716, 0.758, 0.747], 10: [0.741, 0.743, 0.752]}, 0),
        ({0: [0.75, 0.76, 0.77], 2: [0.70, 0.71, 0.72]}, 0),
        ({4: [0.70, 0.71, 0.72], 2: [0.71, 0.72, 0.73]}, 2),
        ({0: [0.70, 0.72, 0.74], 5: [0.76]}, 0),
        ({0: [0.70, 0.72, 0.74], 5: [0.80, 0.82]}, 0),
        ({0: [0.70], 5: [0.76]}, 0),
        ({3: [0.70], 5: [0.76]}, 5),
    ],
)
def test_the_defaults_give_way_only_to_a_lead_beyond_its_standard_error(
    scores: dict[int, list[float]], finalist: int | None
) -> None:
    assert chosen(scores) == finalist
