"""The model cards of a search's finalist, one beside the model of each final run."""

from ltsd.data import Splits
from ltsd.files import publishing
from ltsd.model_card import ModelFacts, model_card
from sweeps.journal.record import Record
from sweeps.results.confirm import Choice
from sweeps.results.finals import finalist_runs


def write_cards(record: Record, choice: Choice, splits: Splits) -> None:
    """Write the card of every final run of the finalist, with the mean over their seeds beside its own numbers."""
    runs = [(known.job, known.result.exam) for known in finalist_runs(record, choice) if known.result is not None]
    examined = [(job, exam) for job, exam in runs if exam is not None]
    for job, exam in examined:
        facts = ModelFacts.of(
            job.config, splits, splits.complete.class_counts(), exam, [other for _, other in examined]
        )
        with publishing(job.card) as temporary:
            temporary.write_text(model_card(facts), encoding="utf-8")
