"""The description of a sweep in MLflow: what was asked, the command that does it again, the tables."""

import dataclasses
import shlex

from sweeps.settings.flags import Settings
from sweeps.settings.sweep import Sweep

LIMIT = 8000
"""Characters that MLflow keeps of a description."""
REST = "\nThe rest is in the artifact `table.md`.\n"
PLACES = (*("name", "storage", "shared", "tracking_uri", "study_uri", "ray_address", "concurrency", "gpus_per_trial"),)
"""Settings that say where a sweep runs and writes, and change nothing of what it finds."""


def note(sweep: Sweep, table: str = "") -> str:
    """Return the description in Markdown, at most `LIMIT` characters; without a table, that of a running sweep.

    Args:
        sweep: the sweep.
        table: the text of its `table.md`; paragraphs that do not fit are left out.
    """
    text, made_by = f"{_asked(sweep)}\n", f"\nMade by\n\n```\n{command(sweep)}\n```\n"
    if not table:
        return f"{text}\nThe sweep runs, or was interrupted: its trials are nested under this run.\n{made_by}"
    paragraphs = table.strip().split("\n\n")
    for number, paragraph in enumerate(paragraphs, 1):
        rest = REST if number < len(paragraphs) else ""
        if len(text) + len(paragraph) + 2 + len(rest) + len(made_by) > LIMIT:
            return text + REST + made_by
        text += f"\n{paragraph}\n"
    return text + made_by


def command(sweep: Sweep) -> str:
    """Return the command that finds the same again: every setting other than its default, and every fixed knob."""
    settings, defaults = dataclasses.asdict(sweep.settings), dataclasses.asdict(Settings())
    given = {name: value for name, value in settings.items() if name not in PLACES and value != defaults[name]}
    flags = [f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in (given | sweep.fixed).items()]
    return " ".join(["python sweeps/search.py", *flags])


def _asked(sweep: Sweep) -> str:
    base, settings = sweep.base, sweep.settings
    if not settings.trials:
        return f"**{', '.join(settings.rows)}** compared on `{base.data.source}`."
    rivals = [row for row in sweep.searched if row]
    tuned = f"; {', '.join(rivals)} tuned alike" if rivals else ""
    return (
        f"**{base.method}** on `{base.data.source}`: {settings.trials} trials, {settings.objectives} maximised on "
        f"validation{tuned}."
    )
