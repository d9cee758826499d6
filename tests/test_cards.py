"""The model cards of a finalist's final runs."""

from dataclasses import replace
from pathlib import Path

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.evaluation.exam import TITLES
from sweeps.journal.jobs import Job, Report
from sweeps.journal.record import Record
from sweeps.results.cards import write_cards
from sweeps.results.confirm import Choice
from sweeps.settings.objectives import Preference


def test_each_final_model_has_its_numbers_beside_the_mean_over_the_seeds(
    small: Config, splits: Splits, tmp_path: Path
) -> None:
    record = Record.open(tmp_path)
    for seed, recall in enumerate((0.25, 0.75)):
        for key in (f"final-finalist-0003-s{seed}", f"final-finalist-0001-s{seed}", f"final-at-s{seed}"):
            job = Job("final", key, replace(small, seed=seed), "complete", str(tmp_path), exam="none")
            exam = {"images": 40, "per_class": {attack: [recall] * 10 for attack in TITLES}, "doubts": []}
            record.started(job, 0)
            record.reported(job, Report(3, "examined", values={"test/clean_acc": recall}, exam=exam))
            record.ended(job, "done", "")
    write_cards(record, Choice(finalist=3, ends={}, found={}, preference=Preference((), ())), splits)
    cards = sorted((tmp_path / "checkpoints").iterdir())
    assert [path.name for path in cards] == ["final-finalist-0003-s0.md", "final-finalist-0003-s1.md"]
    for path, accuracy in zip(cards, ("25.0", "75.0"), strict=True):
        lines = path.read_text().split("## Limits")[0].splitlines()
        own, mean = (line.split("|")[2].strip() for line in lines if line.startswith("| clean"))
        assert (own, mean) == (accuracy, "50.0 ± 35.4")
        assert f"seed {path.stem[-1]}" in path.read_text()
