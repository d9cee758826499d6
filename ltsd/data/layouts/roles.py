"""Roles of splits: which train, validate and test, by their names or by `--data.split-map`.

The words for splits are those of Hugging Face's `datasets`, in any case: a word counts where no letter stands beside it
(`Train`, `train-images`, `cifar10_test_2`).
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from ltsd.data.names import listed
from ltsd.errors import UserError

ROLES = ("train", "validation", "test")
ROLE_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
WORD = re.compile(r"[^\W\d_]+")
NONE = "none"

Choices = Mapping[str, tuple[str, ...]]
"""By role, the names of its splits."""


@cache
def role_of(name: str) -> str:
    """Return the role that a split, folder or file name states: train, validation or test; "" if none or several."""
    roles = {ROLE_OF[word] for word in WORD.findall(name.casefold()) if word in ROLE_OF}
    return roles.pop() if len(roles) == 1 else ""


def choices_of(text: str | None) -> dict[str, tuple[str, ...]]:
    """Read `--data.split-map`: `role=name` pairs, separated by commas; `name+name` joins splits, `none` is no split.

    Raises:
        UserError: it is written otherwise.
    """
    choices: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, (part.strip() for part in (text or "").split(","))):
        role, equals, names = (part.strip() for part in pair.partition("="))
        if not equals or not names or role not in ROLES or role in choices:
            raise UserError(
                f"--data.split-map {text}: {pair!r} is not understood; give each of {', '.join(ROLES)} at most once, "
                f"as in train=train+extra,validation=val,test={NONE}"
            )
        choices[role] = () if names == NONE else tuple(name.strip() for name in names.split("+"))
    return choices


def by_role(source: str, names: Sequence[str], choices: Choices) -> dict[str, tuple[str, ...]]:
    """Return the names of the splits of each role: those chosen, else those whose names state it.

    Args:
        names: of the splits that there are.

    Raises:
        UserError: a chosen split is not there, or serves twice; two splits are named for the same role.
    """
    roles = {role: tuple(_known(source, role, name, names) for name in chosen) for role, chosen in choices.items()}
    taken = [name for chosen in roles.values() for name in chosen]
    if len(set(taken)) < len(taken):
        raise UserError(f"--data.split-map: a split serves twice ({', '.join(taken)}); give each to one role")
    for role in ROLES:
        if role not in choices:
            found = tuple(name for name in names if role_of(name) == role and name not in taken)
            if len(found) > 1:
                raise UserError(
                    f"--data.source {source}: has several splits for {role}: {listed(found)}; choose with "
                    f"--data.split-map {role}={found[0]}, or join them with {role}={'+'.join(found)}"
                )
            roles[role] = found
    return {role: roles[role] for role in ROLES}


def _known(source: str, role: str, name: str, names: Sequence[str]) -> str:
    found = name if name in names else next((n for n in names if n.casefold() == name.casefold()), None)
    if found is None:
        raise UserError(
            f"--data.split-map {role}={name}: {source} has no such split; it has {listed(names) or 'none by name'}"
        )
    return found
