"""The settings of a sweep: the flags that are not of the configuration of its runs."""

from dataclasses import dataclass
from pathlib import Path

from ltsd.knobs import knob
from sweeps.settings.groups import groups_named
from sweeps.settings.objectives import Objectives, Preference
from sweeps.settings.rows import PLUGINS, rows_named

AUTO = "auto"
TUNED = "tuned"
ENSEMBLES = ("standard", "apgd-ce+t", "none")


@dataclass(frozen=True)
class Settings:
    """The flags of `sweeps/search.py` that are not the configuration of a run."""

    name: str | None = knob(None, "name of the sweep", unset="data set, method and time")
    trials: int = knob(
        24, "configurations that are tried; 0: none, the --references alone are trained and compared", at_least=0
    )
    search: str | None = knob(
        None,
        "groups of knobs that are searched, comma-separated: the method's own (distill for ltsd), balance (RobustLT's "
        "budgets among it), optim (learning rate, weight decay, batch size, EMA), teacher (its epochs), plugins (AWP)",
        unset="the method's own, balance and optim",
    )
    trial_steps: int | None = knob(
        None,
        "PGD steps with which trials are trained, and trained again where the best are confirmed; the finalist and the "
        "references are trained with --attack.steps",
        at_least=1,
        unset="two fifths of --attack.steps, which rank configurations as well in half the time",
    )
    start_from: str | None = knob(
        None,
        "earlier sweeps in --storage, by name, and files of points (.json), comma-separated, whose best points are "
        "tried first",
        unset="none, the defaults alone are",
    )
    objectives: str = knob(
        "robust,tail",
        "what is maximised on validation, comma-separated: robust (the worst case over three attacks, all classes), "
        "tail (the same, rare classes), clean, tail-clean, worst-class; of several the front is searched",
    )
    prefer: str | None = knob(
        None,
        "which point of the front becomes the finalist: bounds and weights, as in 'tail>=0.6' or 'robust+2*tail'",
        unset="three times the first objective and once each other, and none below the defaults by more than its error",
    )
    concurrency: int | None = knob(
        None,
        "trials at a time",
        at_least=1,
        unset="as many as the processors, or the GPUs by --gpus-per-trial, carry",
    )
    gpus_per_trial: float | str | None = knob(
        None,
        "share of a GPU for each trial; 0: none; auto: the share with which a GPU trains most, tried out with 1, 2, 4 "
        "and 8 trials before the sweep begins",
        at_least=0,
        unset="1 where there is a GPU, else 0",
        word=AUTO,
    )
    ray_address: str | None = knob(
        None,
        "the Ray cluster to run on; auto: the one that this machine belongs to",
        unset="none, this machine alone",
    )
    storage: str = knob("runs", "folder of all sweeps; all of a sweep but MLflow's records lies in <storage>/<name>")
    shared: str | None = knob(
        None,
        "s3://bucket/folder by which nodes exchange checkpoints, teachers and verdicts where they do not all see "
        "--storage, which is then the driver's alone",
    )
    tracking_uri: str = knob(
        "sqlite:///mlflow.db",
        "where MLflow keeps its records: the address of its server, or of a database, such as "
        "postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    study_uri: str | None = knob(
        None,
        "PostgreSQL database of the Optuna study, postgresql://USER:PASSWORD@HOST/DATABASE, which sweeps may share; "
        "users and passwords are written down nowhere, so give the flag again with --resume",
        unset="'', the file study.db in the sweep's folder",
    )
    confirm: int = knob(
        6,
        "best trials that are scored again on more images, with the defaults; the better half of them is trained on a "
        "second seed, the better half of these on a third, to choose the finalist",
        at_least=1,
    )
    final_seeds: int = knob(3, "seeds on which the best configuration and the references are retrained", at_least=1)
    references: str = knob(
        "ltsd,at-bsl,at",
        "rows beside the finalist, comma-separated: methods with their defaults, but for the knobs that are fixed, "
        f"alone or with plug-ins, such as ltsd+robustlt ({', '.join(PLUGINS)}); all: every method and some variants",
    )
    compare: str = knob(
        "untuned",
        "how the references are compared: untuned, with their defaults; tuned: beside that, each one but the method "
        "that is searched gets a search of its own, with as many trials, the same race and the same final attack",
        choices=("untuned", TUNED),
    )
    final_attack: str = knob(
        "standard", "AutoAttack of the finalist, and of references that are tuned", choices=ENSEMBLES
    )
    reference_attack: str = knob(
        "apgd-ce+t", "AutoAttack of the reference rows; apgd-ce+t is its first half", choices=ENSEMBLES
    )

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return Path(self.storage) / str(self.name)

    @property
    def stores(self) -> dict[str, str]:
        """The addresses of what is written to, which may hold logins, by the names of their settings."""
        named = {"tracking_uri": self.tracking_uri, "study_uri": self.study_uri}
        return {name: uri for name, uri in named.items() if uri}

    def groups(self, method: str) -> tuple[str, ...]:
        """The groups of knobs that are searched of a method.

        Raises:
            UserError: one of them is none.
        """
        return groups_named(self.search, method)

    @property
    def tunes_references(self) -> bool:
        """Whether references get searches of their own."""
        return self.compare == TUNED

    @property
    def maximised(self) -> Objectives:
        """The objectives.

        Raises:
            UserError: one of them is none.
        """
        return Objectives.named(self.objectives)

    @property
    def preference(self) -> Preference:
        """Which point of the front is wanted.

        Raises:
            UserError: it cannot be read, or is of something that is not maximised.
        """
        return Preference.read(self.prefer, self.maximised)

    @property
    def rows(self) -> tuple[str, ...]:
        """The reference rows.

        Raises:
            UserError: one of them is none.
        """
        return rows_named(self.references)
