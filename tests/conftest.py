"""What all tests share: one thread, a cache of their own, and a run so small that it takes a moment."""

import os
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from small import SMALL
from torch import nn

import sweeps.machines.environment  # noqa: F401  # before a test imports Ray
from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.state import TrainState
from ltsd.train import train


def pytest_configure(config: pytest.Config) -> None:
    """Before anything is imported or run: images are cached in a folder that goes when the tests are over."""
    cache = tempfile.TemporaryDirectory(prefix="ltsd-tests-")
    config.add_cleanup(cache.cleanup)
    config.addinivalue_line("markers", "timed: holds a clock against a limit; .ci/run gives it the machine for itself")
    os.environ["XDG_CACHE_HOME"] = cache.name
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    settings.register_profile("busy-machine", deadline=None, max_examples=50)
    settings.load_profile("busy-machine")


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A folder in memory, where a file is synced at once."""
    with tempfile.TemporaryDirectory(prefix="ltsd-tests-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def storage(memory: Path) -> Path:
    """An empty one, for one test."""
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="session")
def small() -> Config:
    """A run on the digits of 3 epochs with 5 batches each."""
    return Config.preset("digits").override(SMALL)


@pytest.fixture(scope="session")
def small_flags() -> list[str]:
    """The same on the command line."""
    return [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="session")
def splits(small: Config) -> Splits:
    """Its images."""
    return load_splits(small.data)


@pytest.fixture(scope="session")
def trained(small: Config, splits: Splits) -> nn.Module:
    """A network that tells many digits apart, and is easily attacked."""
    config = small.override({"method": "natural", "epochs": 8, "seed": 1000})
    state = TrainState.fresh(config, splits.shape[0], splits.train.num_classes, torch.device("cpu"))
    for _ in train(config, state, splits.train, None, None):
        pass
    return state.model


@pytest.fixture
def teacher(trained: nn.Module) -> nn.Module:
    """A copy of it, for one test."""
    return deepcopy(trained)
