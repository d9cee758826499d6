"""Report of what was read from a source and what was left out: kept beside the images, printed before training."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ltsd.data.decode import Encoded
from ltsd.data.layouts.members import Member
from ltsd.data.layouts.roles import ROLES, Choices
from ltsd.data.names import shortened
from ltsd.data.units import Kind
from ltsd.errors import UserError

EXAMPLE_WIDTH = 60


@dataclass(frozen=True)
class PartRead:
    """A part of a source: the names of its splits, its files and the first of them, its images."""

    splits: str
    files: int
    first_file: str
    images: int = 0

    def described(self, items: str) -> str:
        """Return the part in words, its inputs called `items`."""
        where = f"split {self.splits!r}, " if self.splits else ""
        first = shortened(self.first_file, EXAMPLE_WIDTH) + (", …" if self.files > 1 else "")
        of = f" of {self.files:,} file{'s' if self.files > 1 else ''} ({where}{first})" if self.files else ""
        return f"{self.images:,} {items}{of}"


@dataclass(frozen=True)
class Reading:
    """What was read from a source.

    It has the parts by role, the number of skipped files and the first of them by reason, the number of images turned
    upright by their orientation tag, further remarks, and whether the test set is a share of the training images.
    """

    source: str
    config: str = ""
    parts: Mapping[str, PartRead] = dataclasses.field(default_factory=dict)
    passed_over: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    oriented: int = 0
    notes: Sequence[str] = ()
    is_test_held_out: bool = False

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` returned."""
        content = json.loads(text)
        parts = {role: PartRead(**part) for role, part in content.pop("parts").items()}
        passed_over = {reason: tuple(found) for reason, found in content.pop("passed_over").items()}
        return cls(parts=parts, passed_over=passed_over, **content)

    def lines(self, items: str = "images") -> Iterator[str]:
        """Yield the report in words, line by line, the inputs called `items`."""
        config = f", data set {self.config!r}" if self.config else ""
        yield f"read: {self.source}{config}; " + "; ".join(
            f"{role}: {part.described(items)}" for role, part in self.parts.items()
        )
        yield from (f"read: {note}" for note in self.notes)
        if self.oriented:
            yield f"read: {self.oriented:,} images were turned upright, as their orientation tags say"
        for reason, (count, first) in self.passed_over.items():
            yield f"left out: {reason}: {count:,} ({shortened(first, EXAMPLE_WIDTH)}{', …' if count > 1 else ''})"


@dataclass(frozen=True)
class Opened:
    """A source before its images are decoded.

    It has the rows and relative file paths of each split, the splits by role, the splits without published labels,
    and the paths of skipped files by reason. `class_names` is empty if labels are maps and nothing names their classes.
    `groups` has the members by split, in the order of its rows, if a column names groups. `kind` is what is to be
    decoded.
    """

    class_names: Sequence[str]
    config: str
    rows: Mapping[str, Encoded]
    files: Mapping[str, Sequence[str]]
    roles: Mapping[str, Sequence[str]]
    unlabelled: Collection[str]
    passed_over: Mapping[str, Sequence[str]]
    groups: Mapping[str, Sequence[Member]] = dataclasses.field(default_factory=dict)
    kind: Kind = "image"

    def settled(self, choices: Choices) -> tuple[dict[str, Sequence[str]], list[str]]:
        """Return the splits to read by role, and remarks on that choice.

        Splits without labels are left aside. A validation split is the test set where there is no other and none was
        chosen, as with Tiny-ImageNet and ImageNet, whose test labels are not published.

        Raises:
            UserError: a chosen split has no labels.
        """
        roles, notes = dict(self.roles), list[str]()
        for role, names in self.roles.items():
            if set(names) & set(self.unlabelled):
                if role in choices:
                    raise UserError(f"--data.split-map {role}={'+'.join(names)}: its images have no labels")
                roles[role] = ()
                notes.append(f"split {'+'.join(names)!r} has no labels and is left aside")
        names = roles["validation"]
        if names and not self.roles["test"] and not {"validation", "test"} & choices.keys():
            roles |= {"test": names, "validation": ()}
            title = "+".join(names)
            notes.append(
                f"split {title!r} is the test set, since there is no other; --data.split-map validation={title} "
                f"validates on it, and a share of the training images is the test set then"
            )
        return {role: roles[role] for role in ROLES if roles[role]}, notes
