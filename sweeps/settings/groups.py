"""The searchable knobs, those with a range, in groups."""

from collections.abc import Collection

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import nearest, walk
from ltsd.methods import METHODS
from ltsd.methods.method import Method

TEACHER_GAMMA = "balance.teacher_gamma"
MEMBERS = {
    "awp": "plugins",
    "robustlt": "balance",
    **dict.fromkeys(("optim.backbone_lr_scale", "optim.warmup_epochs", "optim.clip_grad_norm"), "fine-tune"),
}
"""The groups of the knobs whose dotted names do not begin with their group, by the first part of the name or by name.
"""
OWN = tuple(method.knobs[0] for method in METHODS.values() if method.knobs)
SHARED = ("balance", "optim", "fine-tune", "teacher", "plugins")
GROUPS = (*OWN, *SHARED)
"""The groups: one per method, with the name of its knobs, and those that methods share."""
SEARCHED = ("balance", "optim")
"""The shared groups that are searched by default, together with the method's own group."""


def groups_of(method: str) -> tuple[str, ...]:
    """Return the groups in which a method has knobs."""
    own = METHODS[method].knobs
    found = (*([own[0]] if own else []), *SHARED)
    return tuple(group for group in found if searched_knobs(method, (group,)))


def groups_named(text: str | None, method: str) -> tuple[str, ...]:
    """Return the groups of a comma-separated list that a method has; without a list, its own and the usual shared ones.

    Raises:
        UserError: a group does not exist.
    """
    known = groups_of(method)
    if text is None:
        return tuple(group for group in known if group in (*OWN, *SEARCHED))
    asked = [part.strip() for part in text.split(",") if part.strip()]
    for group in asked:
        if group not in GROUPS:
            raise UserError(
                f"--search {text}: {group!r} is no group of knobs; {method} has {', '.join(known)}"
                f"{nearest(group, GROUPS)}"
            )
    return tuple(group for group in known if group in asked)


def group_of(name: str) -> str:
    """Return the group of a knob by its dotted name."""
    prefix = name.partition(".")[0]
    return MEMBERS.get(name, MEMBERS.get(prefix, prefix))


def searched_knobs(method: str, groups: Collection[str]) -> tuple[str, ...]:
    """Return the knobs of some groups that have a range and that a method reads, group by group."""
    ranged = [name for name, _, _, item in walk(Config()) if item.metadata["search"] or name == TEACHER_GAMMA]
    names = [name for name in ranged if group_of(name) in groups and reads(METHODS[method], name)]
    return tuple(sorted(names, key=lambda name: GROUPS.index(group_of(name))))


def reads(method: Method, name: str) -> bool:
    """Return whether a knob affects a method."""
    group = name.partition(".")[0]
    if group in OWN:
        return method.knobs is not None and method.knobs[0] == group
    if group == "balance":
        return name in method.shared
    return method.needs_teacher or group != "teacher"
