"""The rows of a comparison: a row is a method, plain or with plug-ins, such as `ltsd+robustlt`."""

from collections.abc import Mapping

from ltsd.errors import UserError
from ltsd.knobs import Value, nearest
from ltsd.methods import METHODS
from sweeps.settings.groups import reads

FINALIST = "finalist"
END = "best-"
"""The prefix of the row of an end of the front, before the name of the objective."""
TUNED = "tuned-"
"""The prefix of the row of a tuned reference, before the name of the reference."""
BASELINE = "at-bsl"
EVERY = "all"
PLUGINS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "awp": ("AWP", {"awp.gamma": 5e-3}),
    "ema": ("EMA", {"optim.ema_decay": 0.999}),
    "robustlt": ("RobustLT", {"robustlt.strength": 0.3, "robustlt.ramp": 0.8}),
    "clean-teacher": ("clean teacher", {"teacher.adversarial": False}),
    # It learns nothing, but sees the images once, so that its normalisation fits them.
    "random-teacher": ("random teacher", {"teacher.epochs": 1, "teacher.lr": 1e-9}),
    "distillation-alone": ("distillation alone", {"distill.igdm_weight": 0.0}),
    "matching-alone": ("gradient matching alone", {"distill.kl_weight": 0.0}),
    "smooth": ("label smoothing", {"bsl.label_smoothing": 0.1}),
}
VARIANTS = ("at+awp", "at-bsl+robustlt", "ltsd+clean-teacher", "ltsd+robustlt")


def rows_named(text: str, *, of_images: bool = True) -> tuple[str, ...]:
    """Read a comma-separated list of rows; `all` stands for every method and the usual variants.

    Args:
        text: the list.
        of_images: whether `all` includes methods that compare the features of whole images.

    Raises:
        UserError: a method or plug-in does not exist, or a plug-in does not affect its method.
    """
    rows: list[str] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        every = [method for method, known in METHODS.items() if of_images or not known.of_images]
        rows += [*every, *VARIANTS] if name == EVERY else [name]
    for row in rows:
        method, *plugins = row.split("+")
        for part, known in [(method, METHODS), *((plugin, PLUGINS) for plugin in plugins)]:
            if part not in known:
                raise UserError(
                    f"--references {row}: {part!r} is not one of {', '.join(known)} "
                    f"(a row is a method, or a method with plug-ins such as ltsd+robustlt){nearest(part, known)}"
                )
        for plugin in plugins:
            for knob in PLUGINS[plugin][1]:
                if not reads(METHODS[method], knob):
                    raise UserError(f"--references {row}: {plugin} sets {knob}, which {method} does not read")
    return tuple(dict.fromkeys(rows))


def overrides(row: str) -> dict[str, Value]:
    """Return what a row sets in the configuration, by dotted name."""
    method, *plugins = row.split("+")
    values: dict[str, Value] = {"method": method}
    for plugin in plugins:
        values |= PLUGINS[plugin][1]
    return values


def title_of(row: str) -> str:
    """Return a row's name in tables."""
    if row == FINALIST:
        return FINALIST
    if row.startswith(END):
        return f"best {row.removeprefix(END)}"
    if row.startswith(TUNED):
        return f"{title_of(row.removeprefix(TUNED))}, tuned"
    method, *plugins = row.split("+")
    return " + ".join([METHODS[method].title, *(PLUGINS[plugin][0] for plugin in plugins)])
