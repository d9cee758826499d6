"""The table of the final runs: what each row was measured on is what it says."""

from pathlib import Path

from ltsd.evaluation.exams import CLASSIFICATION
from sweeps.results.finals import Examined, table


def examined(seed: int, **metrics: float) -> Examined:
    return Examined(seed, {"metrics": {f"test/{name}": value for name, value in metrics.items()}}, Path())


def test_a_deviation_is_told_of_several_seeds_alone_and_a_row_that_lacks_some_says_so() -> None:
    results = {
        "finalist": [examined(seed, clean_acc=0.9 + seed / 100, aa_acc=0.5) for seed in range(3)],
        "at-bsl": [examined(0, clean_acc=0.25)],
    }
    assert table(results, CLASSIFICATION, ["clean", "PGD-20", "AutoAttack"]) == [
        ["", "clean", "AutoAttack"],
        ["finalist", "91.0 ± 1.0", "50.0 ± 0.0"],
        ["AT-BSL (1 of 3 seeds)", "25.0", "–"],
    ]
