"""The settings of a sweep: its flags in addition to the configuration of its runs."""

from dataclasses import dataclass
from pathlib import Path

from ltsd.evaluation.ensembles import ENSEMBLE_TITLE
from ltsd.knobs import knob
from sweeps.settings.groups import groups_named
from sweeps.settings.objectives import Objectives, Preference
from sweeps.settings.rows import PLUGINS

AUTO = "auto"
TUNED = "tuned"
ENSEMBLES = (*ENSEMBLE_TITLE, "none")


@dataclass(frozen=True)
class Settings:
    """The flags of `sweeps/search.py` in addition to the configuration of a run."""

    name: str | None = knob(None, "name of the sweep", unset="data set, method and time")
    trials: int = knob(
        24, "configurations to try; 0: no search, only the --references are trained and compared", at_least=0
    )
    search: str | None = knob(
        None,
        "groups of knobs to search, comma-separated: the method's own (distill for ltsd), balance (with RobustLT's "
        "budgets), optim (learning rate, weight decay, batch size, EMA), teacher (its epochs), plugins (AWP)",
        unset="the method's own, balance and optim",
    )
    trial_steps: int | None = knob(
        None,
        "PGD steps in the training of trials and confirmations; final runs use --attack.steps",
        at_least=1,
        unset="two fifths of --attack.steps; they rank configurations as well, in half the time",
    )
    start_from: str | None = knob(
        None,
        "earlier sweeps in --storage, by name, or files of points (.json), comma-separated: their best points are "
        "tried first, after the defaults",
        unset="none",
    )
    objectives: str = knob(
        "robust,tail",
        "what to maximise on validation, comma-separated: robust (the worst case of three attacks, all classes), tail "
        "(the same, rare classes), clean, tail-clean, worst-class; with several, the front is searched",
    )
    prefer: str | None = knob(
        None,
        "which point of the front becomes the finalist: bounds and weights, such as 'tail>=0.6' or 'robust+2*tail'",
        unset="weight 3 for the first objective, 1 for each other; nothing below the defaults by more than the error",
    )
    concurrency: int | None = knob(
        None,
        "trials at a time",
        at_least=1,
        unset="as many as there are processors, or as the GPUs carry with --gpus-per-trial",
    )
    gpus_per_trial: float | str | None = knob(
        None,
        "share of a GPU for each trial; 2 and more: so many GPUs of a machine train each trial together; 0: none; "
        "auto: measure 1, 2, 4 and 8 trials before the sweep starts and take the share that trains most",
        at_least=0,
        unset="1 where there is a GPU, else 0",
        word=AUTO,
    )
    ray_address: str | None = knob(
        None,
        "Ray cluster to run on; auto: the one that this machine belongs to",
        unset="none, this machine alone",
    )
    storage: str = knob(
        "runs", "folder of all sweeps; <storage>/<name> holds everything of a sweep but MLflow's records"
    )
    shared: str | None = knob(
        None,
        "s3://bucket/folder through which nodes exchange files if they do not all see --storage, which then belongs to "
        "the driver alone",
    )
    tracking_uri: str = knob(
        "sqlite:///mlflow.db",
        "where MLflow keeps its records: the address of a server, or of a database such as "
        "postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    study_uri: str | None = knob(
        None,
        "PostgreSQL database of the Optuna study, postgresql://USER:PASSWORD@HOST/DATABASE; sweeps may share it. "
        "Logins are not stored: give the flag again with --resume",
        unset="'', the file study.db in the sweep's folder",
    )
    confirm: int = knob(
        6,
        "best trials to score again on more images, with the defaults; the better half is trained on a second seed, "
        "the better half of those on a third, to choose the finalist",
        at_least=1,
    )
    final_seeds: int = knob(3, "seeds of the final runs, for the finalist and each reference", at_least=1)
    references: str = knob(
        "ltsd,at-bsl,at",
        "rows beside the finalist, comma-separated: methods with their defaults and your fixed knobs, "
        f"alone or with plug-ins, such as ltsd+robustlt ({', '.join(PLUGINS)}); all: every method and some variants",
    )
    compare: str = knob(
        "untuned",
        "untuned: references have their defaults; tuned: beside that, each reference other than the searched method "
        "gets its own search, with as many trials, the same race and the same final attack",
        choices=("untuned", TUNED),
    )
    final_attack: str | None = knob(
        None,
        "AutoAttack of the finalist, and of references that are tuned, where an image has one label; aafew is "
        "AA-few, for two or three classes",
        choices=ENSEMBLES,
        unset="standard, with two or three classes aafew",
    )
    reference_attack: str | None = knob(
        None,
        "AutoAttack of the reference rows, where an image has one label; apgd-ce+t is its first half, aafew "
        "is AA-few, for two or three classes",
        choices=ENSEMBLES,
        unset="apgd-ce+t, with two or three classes aafew",
    )

    @property
    def folder(self) -> Path:
        """The folder of the sweep."""
        return Path(self.storage) / str(self.name)

    @property
    def stores(self) -> dict[str, str]:
        """Addresses of the stores, which may hold logins, by the names of their settings."""
        named = {"tracking_uri": self.tracking_uri, "study_uri": self.study_uri}
        return {name: uri for name, uri in named.items() if uri}

    def groups(self, method: str) -> tuple[str, ...]:
        """Return the searched groups of knobs of a method.

        Raises:
            UserError: a group does not exist.
        """
        return groups_named(self.search, method)

    @property
    def tunes_references(self) -> bool:
        """Whether references get their own searches."""
        return self.compare == TUNED

    @property
    def preference(self) -> Preference:
        """The preferred point of the front.

        Raises:
            UserError: it cannot be read, or names something that is not maximised; an objective does not exist.
        """
        return Preference.read(self.prefer, Objectives.named(self.objectives))
