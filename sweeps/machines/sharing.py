"""Measure, before a sweep starts, the best number of trials per GPU, with workers that train as its trials do."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ltsd.config import Config
from ltsd.cuda_graphs import WARM_STEPS, stepper_for
from ltsd.data.batches import Split
from ltsd.data.longtail import class_groups
from ltsd.errors import UserError
from ltsd.methods import METHODS
from ltsd.models import build_model
from ltsd.models.frozen import frozen
from ltsd.state import TrainState
from ltsd.tasks import TASKS
from ltsd.train import train_epoch
from sweeps.machines.machine import Machines
from sweeps.worker.node_setup import Shipment
from sweeps.worker.trial import CONTEXT_BYTES, claim_device, splits_of

TRIALS = (1, 2, 4, 8)
WORTH = 1.1
SECONDS = 10.0
BATCHES = 50
PLACED_WITHIN_S = 900.0


@dataclass(frozen=True)
class Load:
    """Measurements of several trials on one GPU: their total throughput in images per second, and the largest share of
    the GPU's memory that one of them uses.
    """

    trials: int
    images_per_s: float
    memory: float


def tried_out(config: Config, shipment: Shipment | None, *, most: int, gpus: int = 1) -> Iterator[Load]:
    """Measure increasing numbers of trials on one GPU, while the throughput grows, the memory suffices and `most`
    allows it.

    Args:
        config: of a trial of the sweep; an untrained network replaces its teacher.
        shipment: the data that workers bring to the nodes of a cluster.
        most: the number of concurrent trials that the processors allow.
        gpus: 1; or 0 to measure on processors.

    Raises:
        UserError: not even one trial could run.
    """
    loads: list[Load] = []
    for trials in TRIALS:
        if trials > most or (loads and (trials * loads[0].memory > 1 or not pays(loads))):
            return
        try:
            loads.append(load_of(config, shipment, trials, gpus))
        except ray.exceptions.RayError as error:  # out of memory, or no machine has so many processors
            if loads:
                return
            told = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise UserError(f"--gpus-per-trial auto: a trial on a GPU could not be tried out ({told})") from error
        yield loads[-1]


def pays(loads: Sequence[Load]) -> bool:
    """Return whether the throughput of the last load is at least WORTH times that of the one before."""
    return len(loads) < 2 or loads[-1].images_per_s >= WORTH * loads[-2].images_per_s


def best(loads: Sequence[Load]) -> Load:
    """Return the load for the sweep: the last that pays."""
    return loads[-1] if pays(loads) else loads[-2]


def share_out(machines: Machines, config: Config, say: Callable[[str], None]) -> None:
    """Set the share of a GPU for each trial to the one with the highest throughput, and report the measurements."""
    say(f"trying out how many trials a GPU carries best: {SECONDS:g} s each for up to {TRIALS[-1]}, and their start")
    loads: list[Load] = []
    for load in tried_out(config, machines.shipment, most=machines.processors_per_gpu()):
        loads.append(load)
        say(f"{load.trials} trial(s) on a GPU: {load.images_per_s:.0f} images/s, {load.memory:.0%} of its memory each")
    machines.gpus_per_trial = 1 / best(loads).trials
    say(f"machine: {machines.carries()} trial(s) at a time, {machines.gpus_per_trial:g} GPU each")


class Probe:
    """A worker that trains as a trial does, on BATCHES batches an epoch, and keeps nothing."""

    def __init__(self, config: Config, gpu_fraction: float, shipment: Shipment | None) -> None:
        self._device = claim_device(gpu_fraction)
        splits = splits_of(config.data, shipment)
        rows = splits.train.rows
        spread = torch.linspace(0, len(rows) - 1, min(len(rows), BATCHES * config.optim.batch_size)).long()
        self._config, self._data = config, splits.train.select(rows[spread]).to(self._device)
        self._state = TrainState.fresh(config, splits.shape[0], self._data.num_classes, self._device)
        self._state.student.train()
        self._teacher = None
        if METHODS[config.method].needs_teacher:
            network = build_model(config.model, splits.shape[0], self._data.num_classes).to(self._device)
            self._teacher = frozen(network.eval().requires_grad_(False), self._state.student.features.dtype)
        self._stepper = stepper_for(config, self._data, self._teacher)
        self._examine(splits.complete)
        steps = 0
        while steps <= WARM_STEPS:
            steps += self._epoch() // config.optim.batch_size + 1

    def memory(self) -> float:
        """Return the share of the GPU's memory that this process uses, in [0, 1]."""
        if self._device.type == "cpu":
            return 0.0
        total: int = torch.cuda.get_device_properties(self._device).total_memory
        return float(torch.cuda.max_memory_reserved() + CONTEXT_BYTES) / total

    def images_per_s(self, seconds: float) -> float:
        """Train whole epochs, for at least `seconds`; return the throughput."""
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            images += self._epoch()
        return images / (time.perf_counter() - started)

    def _examine(self, data: Split) -> None:
        """Run attack steps in float32 on as many images as validations and exams attack at a time: where training is
        in bf16 on smaller batches, this takes the most memory.
        """
        task = TASKS[self._config.task]
        part = data.select(data.rows[: task.chunk]).to(self._device)
        groups = class_groups(data.class_counts(), self._config.data.groups)
        task.validate(frozen(self._state.student), part, groups, self._config.attack, steps=1)

    def _epoch(self) -> int:
        train_epoch(self._config, self._stepper, self._state, self._data, self._teacher).means()
        size = min(self._config.optim.batch_size, len(self._data))
        return len(self._data) // size * size


def load_of(config: Config, shipment: Shipment | None, trials: int, gpus: int) -> Load:
    """Measure the throughput of several trials on one GPU, or with `gpus` 0 on the processors.

    Raises:
        RayError: no machine is large enough, or a worker fails.
    """
    group = placement_group([{"CPU": trials, "GPU": gpus} if gpus else {"CPU": trials}])
    try:
        ray.get(group.ready(), timeout=PLACED_WITHIN_S)
        there = PlacementGroupSchedulingStrategy(group)
        probe: Any = ray.remote(Probe).options(num_cpus=1, num_gpus=gpus / trials, scheduling_strategy=there)
        probes = [probe.remote(config, gpus / trials, shipment) for _ in range(trials)]
        memory = max(ray.get([one.memory.remote() for one in probes]))
        return Load(trials, sum(ray.get([one.images_per_s.remote(SECONDS) for one in probes])), memory)
    finally:
        remove_placement_group(group)
