"""How many trials a GPU carries best; on processors here, with the same workers."""

import itertools
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltsd.config import Config
from ltsd.data import Splits
from ltsd.errors import UserError
from sweeps.journal.exchange import SharedFolder
from sweeps.machines import sharing
from sweeps.machines.machine import OwnMachine
from sweeps.machines.sharing import WORTH, Load, Probe, best, pays, tried_out
from sweeps.search import read_flags
from sweeps.settings.flags import Settings


@given(st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=4))
def test_takes_the_last_number_of_trials_that_trains_enough_more_than_the_one_before(rates: list[float]) -> None:
    """Told as the loads come in: after one that does not pay no more are tried."""
    loads = [Load(2**index, rate, 0.1) for index, rate in enumerate(rates)]
    tried = next((loads[: n + 1] for n in range(len(loads)) if not pays(loads[: n + 1])), loads)
    chosen = best(tried)
    before = tried[: tried.index(chosen) + 1]
    assert all(more.images_per_s >= WORTH * less.images_per_s for less, more in pairwise(before))
    assert chosen is tried[-1] or tried[-1].images_per_s < WORTH * chosen.images_per_s


@pytest.fixture
def machine(splits: Splits) -> Iterator[OwnMachine]:
    machine = OwnMachine(Settings(concurrency=2, gpus_per_trial=0.0))
    machine.start(Path("runs"), splits, SharedFolder())
    yield machine
    machine.stop()


@pytest.mark.slow
def test_workers_train_as_the_trials_will_one_alone_and_then_two_at_a_time(
    machine: OwnMachine, small: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "SECONDS", 0.5)
    monkeypatch.setattr(sharing, "WORTH", 0.0)
    loads = list(tried_out(small, machine.shipment, most=machine.carries(), gpus=0))
    assert [load.trials for load in loads] == [1, 2]
    with pytest.raises(UserError, match="--gpus-per-trial auto: a trial on a GPU could not be tried out"):
        list(tried_out(small.override({"data.source": "/nowhere"}), None, most=2, gpus=0))


def test_a_worker_counts_the_images_of_whole_epochs_by_the_clock(
    small: Config, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count()
    monkeypatch.setattr(sharing, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    probe = Probe(small.override({"method": "at"}), 0.0, None)
    size = small.optim.batch_size
    assert probe.images_per_s(3.0) == 2 * (len(splits.train) // size * size) / 4


def test_auto_is_a_share_of_a_gpu_or_none_where_there_is_none() -> None:
    assert read_flags(["--gpus-per-trial", "auto"]).settings.gpus_per_trial == "auto"
    assert read_flags(["--gpus-per-trial", "1/4"]).settings.gpus_per_trial == 0.25
    with pytest.raises(
        UserError, match=r"--gpus-per-trial lots: expected a number or a fraction such as 8/255, or auto"
    ):
        read_flags(["--gpus-per-trial", "lots"])
    assert OwnMachine(Settings(gpus_per_trial="auto")).gpus_per_trial == float(torch.cuda.is_available())
