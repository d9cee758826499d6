"""A sweep: its settings and fixed knobs, kept in its folder so that it can be resumed."""

import dataclasses
import json
import math
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.evaluation.exams import EXAMS, Exam
from ltsd.files import publishing
from ltsd.knobs import Value
from ltsd.tasks import TASKS, validated
from sweeps.settings.addresses import without_password
from sweeps.settings.flags import Settings
from sweeps.settings.groups import groups_of
from sweeps.settings.lock import held, is_there, taken, unusable
from sweeps.settings.objectives import Objectives
from sweeps.settings.rows import overrides, rows_named

SETTINGS_FILE = "sweep.json"
JOURNAL_FILE = "journal.jsonl"
TEACHERS = "teachers"
KEPT: Mapping[str, Any] = {"identity": "", "images": "", "score": "", "points": ()}
"""The other content of SETTINGS_FILE, with the values for files that lack it."""
DIGITS, CLASSIFICATION = ("data.source", "digits"), ("task", "classification")
"""The default source and task of a sweep."""
TRIAL_STEPS = 0.4
"""The number of attack steps in the training of trials, as a share of `attack.steps`: benchmarks/results/effects.md."""
REACH = 1.25
"""The least total length of the steps of a trial's attack, in units of eps."""
BEFORE: Mapping[str, Any] = {"trial_steps": 10**9}
"""Settings that older sweeps do not have, with the values that repeat their behaviour."""
ELSEWHERE = "give the --storage it was started with, or leave --resume out to start a new one"
CHANGEABLE = (
    "trials",
    "references",
    "confirm",
    "prefer",
    "final_seeds",
    "concurrency",
    "gpus_per_trial",
    "ray_address",
    "storage",
    "tracking_uri",
    "study_uri",
)


@dataclass(frozen=True)
class Sweep:
    """A sweep as requested: its settings, and the knobs that the user fixed by dotted name.

    `identity` is drawn at the start and distinguishes sweeps of the same name in other folders, which may write to the
    same databases; "" for a sweep from before identities. `images` is the fingerprint of its images; "" before they are
    known. `score` describes the score that compares its trials. `points` are tried first, after the defaults.
    `num_classes` is None before the images are read.
    """

    settings: Settings
    fixed: dict[str, Value]
    is_new: bool = True
    identity: str = field(default_factory=lambda: secrets.token_hex(4))
    images: str = ""
    score: str = ""
    points: Sequence[dict[str, Value]] = ()
    num_classes: int | None = None

    @property
    def base(self) -> Config:
        """The configuration of every run before anything is searched."""
        source, task = (str(self.fixed.get(name, usual)) for name, usual in (DIGITS, CLASSIFICATION))
        return Config.preset(source, task).override(self.fixed)

    @property
    def objectives(self) -> Objectives:
        """The objectives, in the measure of the task.

        Raises:
            UserError: an objective does not exist.
        """
        return Objectives.named(self.settings.objectives, TASKS[self.base.task].measure)

    @property
    def exam(self) -> Exam:
        """The exam of its final runs."""
        return EXAMS[self.base.task]

    @property
    def attacks(self) -> tuple[str, str]:
        """The ensembles of attacks in the exams of the finalist and of the references."""
        finalist, reference = self.exam.ensembles(self.num_classes)
        return self.settings.final_attack or finalist, self.settings.reference_attack or reference

    @property
    def rows(self) -> tuple[str, ...]:
        """The reference rows.

        Raises:
            UserError: a row does not exist.
        """
        return rows_named(self.settings.references, of_images=self.base.task == CLASSIFICATION[1])

    @property
    def searched(self) -> tuple[str, ...]:
        """The rows that are tuned: "", the sweep's own method, and with `--compare tuned` the other references."""
        rivals = self.rows if self.settings.tunes_references and self.settings.trials else ()
        return ("", *(row for row in rivals if row != self.base.method))

    def base_of(self, row: str) -> Config:
        """Return the configuration of a row's runs before anything is searched."""
        return self.base.override(overrides(row)) if row else self.base

    def tried_of(self, row: str) -> Config:
        """Return the configuration of a row's trials and confirmations before anything is searched.

        It is `base_of` with `--trial-steps` PGD steps, if these are fewer; their total length is at least REACH * eps.
        """
        base = self.base_of(row)
        attack = base.attack
        steps = min(attack.steps, self.settings.trial_steps or math.ceil(TRIAL_STEPS * attack.steps))
        if steps == attack.steps:
            return base
        return base.override(
            {
                "attack.steps": steps,
                "attack.step_size": min(1.0, max(attack.resolved_step_size, REACH * attack.eps / steps)),
            }
        )

    def fixed_in(self, row: str) -> frozenset[str]:
        """Return the knobs that are not searched in a row: those that the user or the row itself sets."""
        return frozenset([*self.fixed, *(overrides(row) if row else ())])

    def on(self, images: str) -> Self:
        """Return the sweep with the fingerprint of its images.

        Raises:
            UserError: it started with other images, or with another score than this version's.
        """
        score = validated(self.base)
        if not self.is_new and self.score != score:
            raise UserError(
                f"--name {self.settings.name}: its trials were compared by {self.score or 'PGD on cross-entropy'}, and "
                f"this version compares by {score}; go on with the version that it began with, or start another sweep"
            )
        if self.images and self.images != images:
            raise UserError(
                f"--data {self.base.data.source}: the images are not those that the sweep {self.settings.name} began "
                f"with; bring the old ones back, or start another sweep"
            )
        return dataclasses.replace(self, images=images)

    def on_record(self) -> int:
        """Return the size of the journal in bytes."""
        journal = self.settings.folder / JOURNAL_FILE
        return journal.stat().st_size if journal.exists() else 0

    def claimed(self) -> AbstractContextManager[None]:
        """Hold the sweep for this process, see `held`."""
        return held(self.settings, is_new=self.is_new)

    def keep(self) -> None:
        """Write the settings into the sweep's folder, with addresses without logins.

        Raises:
            UserError: the storage cannot be written.
        """
        stores = {name: without_password(uri) for name, uri in self.settings.stores.items()}
        settings = dataclasses.asdict(self.settings) | stores
        kept = {name: getattr(self, name) for name in KEPT}
        content = {"settings": settings, "fixed": self.fixed, **kept}
        try:
            with publishing(self.settings.folder / SETTINGS_FILE) as temporary:
                temporary.write_text(json.dumps(content, indent=1))
        except OSError as error:
            raise unusable(self.settings, error) from error

    @classmethod
    def new(cls, given: dict[str, Any], fixed: dict[str, Value]) -> Self:
        """Return a sweep whose folder does not exist yet; `claimed` makes it.

        Raises:
            UserError: the name is taken or is no plain folder name; a knob is out of range; there is nothing to do.
        """
        settings = Settings(**given)
        sweep = cls(settings, fixed)
        method = sweep.base.method
        rows, _, _ = sweep.rows, settings.groups(method), settings.preference
        if not rows and not settings.trials:
            raise UserError("--trials 0 compares the --references, and there are none; name some, or try more trials")
        if settings.tunes_references and len(sweep.searched) < 2:
            raise UserError(
                f"--compare tuned: --trials {settings.trials} and --references {settings.references or repr('')} leave "
                f"nothing to tune beside {method}; try trials, and name a reference of another method"
            )
        for method in (sweep.base_of(row).method for row in sweep.searched):
            if settings.trials and not settings.groups(method):
                raise UserError(
                    f"--search {settings.search}: {method} has knobs in {', '.join(groups_of(method))} alone"
                )
        if settings.name is None:
            what = sweep.base.method if settings.trials else "comparison"
            name = f"{data_name(sweep.base.data.source)}-{what}-{time.strftime('%Y%m%d-%H%M%S')}"
            settings = dataclasses.replace(settings, name=name)
        name = str(settings.name)
        if not re.fullmatch(r"[^\W_][\w.-]*", name, re.ASCII) or name == TEACHERS:
            raise UserError(
                f"--name {name}: must be letters, digits, '-', '_' and '.', begin with a letter or digit, and not be "
                f"{TEACHERS!r}"
            )
        if is_there(settings, settings.folder):
            raise taken(settings)
        return cls(settings, fixed, score=validated(sweep.base))

    @classmethod
    def resumed(cls, given: dict[str, Any], fixed: dict[str, Value], *, remedy: str = ELSEWHERE) -> Self:
        """Return a sweep from its folder. Only the flags in CHANGEABLE may differ from those at its start. `remedy`
        ends the message about a sweep that does not exist.

        Raises:
            UserError: the sweep does not exist, cannot be read, or a flag contradicts what it started with.
        """
        asked = Settings(**given)
        rows_named(asked.references)
        if asked.name is None:
            found = sorted(path.parent.name for path in Path(asked.storage).glob(f"*/{SETTINGS_FILE}"))
            raise UserError(f"--resume needs --name; sweeps in {asked.storage}: {', '.join(found) or 'none'}")
        path = asked.folder / SETTINGS_FILE
        if not is_there(asked, path):
            raise UserError(f"there is no sweep in {asked.folder}; {remedy}")
        try:
            content = json.loads(path.read_text())
            saved, known = Settings(**BEFORE | content["settings"]), content["fixed"]
            kept = {name: content.get(name, absent) for name, absent in KEPT.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); the sweep cannot be resumed") from error
        changeable = set(CHANGEABLE) - ({"references"} if saved.tunes_references else set())
        now = {name: value for name, value in given.items() if name in changeable}
        base = cls(saved, known).base.flatten()
        for name, value in [*given.items(), *fixed.items()]:
            before = base[name] if name in fixed else getattr(saved, name)
            if name not in now and value != before:
                raise UserError(
                    f"--{name.replace('_', '-')} {value}: the sweep was started with {before}; leave the flag out, or "
                    f"start another sweep"
                )
        # The storage is where the sweep was found: its folder may have been moved, or restored from a bucket.
        now["storage"] = asked.storage
        settings = dataclasses.replace(saved, **now)
        if settings.prefer:
            _ = settings.preference
        return cls(settings, known, is_new=False, **kept)


def data_name(source: str) -> str:
    """Return a short name of a source, fit for experiments, models and filters."""
    name = re.sub(r"(\.parquet|\.arrow|\.json|\.jsonl|\.csv|\.tsv|\.txt)$", "", Path(source.partition("?")[0]).name)
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-._") or "data"
