"""The ensemble of an exam, in shards that other processes may attack; a shard is a file until all are joined."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ltsd.attacks.autoattack import AAFEW, ROUNDS, Round, Shard
from ltsd.attacks.domains import PIXELS, Domain, Range
from ltsd.data.batches import Split
from ltsd.evaluation.correctness import read_correctness, write_correctness
from ltsd.evaluation.ensembles import ENSEMBLE_TITLE
from ltsd.evaluation.evaluate import CHUNK, Correctness
from ltsd.evaluation.kept import kept

Part = tuple[str, dict[str, Correctness], Sequence[Shard]]
"""(title of what was just done, its results, the shards that other processes can attack now)"""


class Sharing(Protocol):
    """Exchanges files with other processes."""

    def publish(self, path: Path, rank: int) -> None:
        """Publish the state of a file after `rank` steps."""

    def bring(self, path: Path) -> bool:
        """Bring the published file to `path`; return False if there is none."""


class OwnDisk:
    """`Sharing` with processes that see the same folder."""

    def publish(self, path: Path, rank: int) -> None:
        """Do nothing."""

    def bring(self, path: Path) -> bool:
        """See `Sharing`."""
        return path.exists()


class AsImages(nn.Module):
    """A model of sound [B, C, T] in the range of its domain, wrapped as a model of images [B, C, 1, T] in [0, 1] for
    AutoAttack.
    """

    def __init__(self, model: nn.Module, domain: Range) -> None:
        super().__init__()
        self.model, self.domain = model, domain

    def images(self, inputs: Tensor) -> Tensor:
        """Return sound [B, C, T] as images [B, C, 1, T] in [0, 1]."""
        return (inputs[:, :, None] - self.domain.low) / (self.domain.high - self.domain.low)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's answers to images [B, C, 1, T] in [0, 1]."""
        answers: Tensor = self.model(self.domain.low + (self.domain.high - self.domain.low) * images[:, :, 0])
        return answers


def folder_of_shards(keep: Path) -> Path:
    """Return the folder of an exam's shards, beside its correctness file."""
    return keep.with_name(f"{keep.stem}.shards")


@dataclass(frozen=True)
class Ensemble:
    """An ensemble of attacks on the test images.

    Attributes:
        name: one of ROUNDS, or `none`.
        model: frozen, inputs [B, ...] -> logits.
        test: on the model's device.
        domain: of the inputs; a `Range` unless `name` is `none`.
        eps: radius in units of the domain.
        seed: of the random starts.
        keep: the correctness file of the exam; None to keep nothing.
        fingerprint: of the exam.
        sharing: how other processes see the files.
    """

    name: str
    model: nn.Module
    test: Split
    domain: Domain
    eps: float
    seed: int
    keep: Path | None
    fingerprint: str
    sharing: Sharing

    def parts(self, clean: Tensor, known: Mapping[str, Correctness]) -> Iterator[Part]:
        """Attack shard by shard, and yield the correctness of every member when its round ends.

        Args:
            clean: bool [N], the images that are classified correctly without an attack.
            known: results of members in an earlier run of the same exam; a round is skipped if all its members are
                known.
        """
        rounds = [*ROUNDS.get(self.name, ()), ()]
        missing = [() if known.keys() >= set(members) else members for members in rounds]
        one = self._round(clean, missing[0])
        for members, further in zip(rounds[:-1], missing[1:], strict=True):
            found, todo = dict[Shard, Tensor](), one.shards
            for number, shard in enumerate(todo, 1):
                found[shard] = self._attacked(one, shard)
                if number < len(todo):
                    yield f"{self._title} {shard.member} {number}/{len(todo)}", {}, todo[number + 1 :]
            standing = dict(one.joined(found)) or {member: known[member].right for member in members}
            one = self._round(standing[members[-1]], further)
            for member in members:
                judged = Correctness(standing[member].cpu(), one.labels.cpu(), self.test.num_classes)
                left = one.shards[1:] if member == members[-1] else ()
                yield f"{self._title} {member.removeprefix(f'{AAFEW}-')}", {member: judged}, left

    def attack(self, name: str, known: Mapping[str, Correctness]) -> None:
        """Attack the shard with a name; do nothing if it is done, or if its images are not known yet.

        Args:
            name: of a shard.
            known: the results of the exam so far: `clean` and members.
        """
        before = "clean"
        for members in ROUNDS[self.name]:
            if before in known:
                one = self._round(known[before].right, members)
                for shard in (shard for shard in one.shards if str(shard) == name):
                    self._attacked(one, shard)
            before = members[-1]

    def drop_shards(self) -> None:
        """Remove the files of shards on this machine; the correctness file has their results."""
        if self.keep is not None:
            shutil.rmtree(folder_of_shards(self.keep), ignore_errors=True)

    @property
    def _title(self) -> str:
        return ENSEMBLE_TITLE[self.name]

    def _round(self, standing: Tensor, members: Sequence[str]) -> Round:
        labels = self.test.labels[self.test.rows]
        model, eps = self.model, self.eps
        inputs = torch.cat([inputs for inputs, _ in self.test.chunks(CHUNK)])
        if self.domain != PIXELS:
            assert isinstance(self.domain, Range)
            model = AsImages(self.model, self.domain)
            inputs, eps = model.images(inputs), eps / (self.domain.high - self.domain.low)
        return Round(
            model=model,
            inputs=inputs,
            labels=labels,
            num_classes=self.test.num_classes,
            standing=standing.to(labels.device),
            members=members,
            eps=eps,
            seed=self.seed,
            batch_size=CHUNK,
        )

    def _attacked(self, one: Round, shard: Shard) -> Tensor:
        """Attack a shard unless another process has; return which images are right afterwards, bool [B] on the CPU."""
        if self.keep is None:
            return one.attacked(shard).cpu()
        name, path = str(shard), folder_of_shards(self.keep) / f"{shard}.parquet"
        self.sharing.bring(path)
        found = kept(path, self.fingerprint, None, read_correctness, write_correctness)
        if name not in found:
            labels = one.labels[one.rows(shard)].cpu()
            found[name] = Correctness(one.attacked(shard).cpu(), labels, one.num_classes)
            write_correctness(path, found, self.fingerprint)
            self.sharing.publish(path, 1)
        right: Tensor = found[name].right
        return right
