"""The ensembles of attacks on classifiers: their names, and how many classes they attack."""

from ltsd.attacks.autoattack import AAFEW
from ltsd.errors import UserError

ENSEMBLE_METRIC = {"standard": "aa_acc", "apgd-ce+t": "apgd_ce_t_acc", AAFEW: "aafew_acc"}
ENSEMBLE_TITLE = {"standard": "AutoAttack", "apgd-ce+t": "APGD-CE+T", AAFEW: "AA-few"}
ENOUGH = 4
"""The least number of classes for the targeted attacks of AutoAttack."""


def check_classes(ensemble: str, num_classes: int) -> None:
    """Check that an ensemble supports the number of classes.

    Raises:
        UserError: it does not.
    """
    few, title = num_classes < ENOUGH, ENSEMBLE_TITLE.get(ensemble, "")
    if ensemble != "none" and few != (ensemble == AAFEW):
        if few:
            raise UserError(
                f"{title} needs at least {ENOUGH} classes and there are {num_classes}; choose {AAFEW}, its counterpart "
                "for two and three, or none"
            )
        raise UserError(f"{title} is for two or three classes and there are {num_classes}; choose standard, or none")


def check_none(ensemble: str, num_classes: int) -> None:
    """Check that no ensemble is requested: none can attack texts.

    Raises:
        UserError: one is requested.
    """
    if ensemble != "none":
        raise UserError(
            f"{ENSEMBLE_TITLE[ensemble]} needs inputs with a range, such as pixels, and the exam of texts has edits "
            "instead; choose none"
        )


def usual_ensembles(num_classes: int | None) -> tuple[str, str]:
    """Return the default ensembles of a sweep's finalist and of its references; `num_classes` is None while it is
    unknown.
    """
    return (AAFEW, AAFEW) if num_classes is not None and num_classes < ENOUGH else ("standard", "apgd-ce+t")
