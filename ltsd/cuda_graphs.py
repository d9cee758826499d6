"""Training steps, run as written or recorded once as a CUDA graph and replayed.

A graph repeats, on the memory where it was recorded, what it did there once; no Python runs. So everything that a step
reads or writes has fixed memory here. Batches and contexts are copied into it, and so is the state of a run when an
epoch starts; the state is copied back when the epoch ends. Hyperparameters are numbers in that memory, so the next run
of the same kind, with other hyperparameters, reuses the graph.
"""

import functools
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ltsd import ranks
from ltsd.config import Config
from ltsd.data.batches import Split
from ltsd.methods import METHODS
from ltsd.methods.method import Method
from ltsd.methods.step_context import StepContext
from ltsd.models.frozen import Frozen
from ltsd.state import TrainState
from ltsd.step import Batch, Budget, Step, train_step
from ltsd.tasks import TASKS
from ltsd.tasks.task import Task

Work = Callable[[], Step]
Replay = Callable[[], None]

WARM_STEPS = 3


class Stepper(Protocol):
    """Runs the steps of an epoch."""

    def at(self, state: TrainState, teacher: nn.Module | None) -> AbstractContextManager[TrainState]:
        """Yield the state that steps change; copy it to `state` at the end."""

    def step(self, batch: Batch, context: StepContext, budget: Budget) -> Step:
        """Run a step."""


class Recorder(Protocol):
    """Records work on one type of device."""

    def rehearse(self, work: Work) -> tuple[Step, bool]:
        """Run the work as it will be recorded; also return whether it can be: nothing in it waited for the device."""

    def record(self, work: Work) -> tuple[Step, Replay]:
        """Record the work without running it; return its future results and the function that runs it.

        Raises:
            RuntimeError: it cannot be recorded.
        """


def stepper_for(config: Config, data: Split, teacher: nn.Module | None) -> Stepper:
    """Return a stepper for a run; with a recorder, reuse that of the last run if it was of the same kind. What several
    ranks do together is not recorded.
    """
    recorder = RECORDERS.get(data.rows.device.type) if ranks.count() == 1 else None
    if recorder is None:
        return EagerStepper(TASKS[config.task], METHODS[config.method])
    kind = kind_of(config, data, teacher)
    if kind not in _latest:
        _latest.clear()
        gc.collect()  # of traced networks, which are circles: before the next one takes memory
        _latest[kind] = GraphStepper(recorder, config, data, teacher)
    return _latest[kind]


def kind_of(config: Config, data: Split, teacher: nn.Module | None) -> tuple[object, ...]:
    """Everything that a graph fixes, whatever is copied into its memory."""
    own = () if config.own is None else tuple(value for value in vars(config.own).values() if type(value) is not float)
    batch = (min(config.optim.batch_size, len(data)), *data.shape, data.num_classes, data.rows.device)
    optim = config.optim
    groups = (optim.optimizer, optim.momentum, optim.weight_decay, optim.backbone_lr_scale != 1)
    update = (*groups, optim.clip_grad_norm, optim.ema_decay > 0, config.awp.gamma)
    step = (config.task, config.method, config.model, config.precision, config.attack.steps)
    return *step, own, batch, update, repr(teacher)


class EagerStepper:
    """`Stepper` that runs `train_step` on the run's own state."""

    def __init__(self, task: Task, method: Method) -> None:
        self._task, self._method = task, method

    @contextmanager
    def at(self, state: TrainState, teacher: nn.Module | None) -> Iterator[TrainState]:
        """See `Stepper`."""
        self._state = state
        yield state

    def step(self, batch: Batch, context: StepContext, budget: Budget) -> Step:
        """See `Stepper`."""
        return train_step(self._task, self._method, self._state, batch, context, budget)


class GraphStepper:
    """`Stepper` on its own state and teacher, with a `RecordedStep` for each phase of the method."""

    def __init__(self, recorder: Recorder, config: Config, data: Split, teacher: nn.Module | None) -> None:
        self._recorder, self._task, self._method = recorder, TASKS[config.task], METHODS[config.method]
        self._state = TrainState.fresh(config, data.shape[0], data.num_classes, data.rows.device)
        self._state.student.train()
        self._teacher = deepcopy(teacher)
        self._places: tuple[Batch, StepContext, Budget] | None = None
        self._recordings: dict[int, RecordedStep] = {}

    @contextmanager
    def at(self, state: TrainState, teacher: nn.Module | None) -> Iterator[TrainState]:
        """See `Stepper`."""
        self._state.take_over(state)
        if self._teacher is not None and teacher is not None:
            self._teacher.load_state_dict(teacher.state_dict())
            if isinstance(self._teacher, Frozen):
                self._teacher.refresh()
        yield self._state
        state.take_over(self._state)

    def step(self, batch: Batch, context: StepContext, budget: Budget) -> Step:
        """See `Stepper`."""
        if self._places is None:
            self._places = placed(batch), replace(placed(context), teacher=self._teacher), placed(budget)
        for place, value in zip(self._places, (batch, context, budget), strict=True):
            put(value, place)
        if context.phase not in self._recordings:
            own_batch, own_context, own_budget = self._places
            around = replace(own_context, phase=context.phase)
            work = partial(train_step, self._task, self._method, self._state, own_batch, around, own_budget)
            self._recordings[context.phase] = RecordedStep(self._recorder, work)
        return self._recordings[context.phase].step()


class RecordedStep:
    """One step, repeated on the same memory.

    The first WARM_STEPS run as written, and count like any other. If the step cannot be recorded, because the method
    reads a number off the device, all steps run as written.
    """

    def __init__(self, recorder: Recorder, work: Work) -> None:
        self._recorder, self._work = recorder, work
        self._rehearsed = 0
        self._recorded: tuple[Step, Replay] | None = None

    def step(self) -> Step:
        """Run it."""
        if self._recorded is not None:
            step, replay = self._recorded
            replay()
            losses = {name: value.clone() for name, value in step.losses.items()}
            return Step(losses, step.labels.clone(), step.predicted.clone(), step.right.clone(), step.is_attacked)
        if self._rehearsed == WARM_STEPS:
            return self._work()
        done, can_be_recorded = self._recorder.rehearse(self._work)
        self._rehearsed += 1
        if self._rehearsed == WARM_STEPS:
            self._record(can_be_recorded)
        return done

    def _record(self, can_be_recorded: bool) -> None:
        why = "it waits for the device"
        if can_be_recorded:
            try:
                self._recorded = self._recorder.record(self._work)
            except RuntimeError as error:
                why = str(error).splitlines()[0]
        if self._recorded is None:
            warnings.warn(f"steps are not recorded, and so slower: {why}", stacklevel=2)


def placed(value: Any) -> Any:
    """Copy a dataclass with all its tensors, however deep; share the rest."""
    if isinstance(value, Tensor):
        return value.clone()
    if not is_dataclass(value):
        return value
    return replace(value, **{item.name: placed(getattr(value, item.name)) for item in fields(value)})  # type: ignore[type-var]


def put(value: Any, place: Any) -> None:
    """Copy the tensors of a dataclass into those of another one."""
    if isinstance(value, Tensor):
        place.copy_(value)
    elif is_dataclass(value):
        for item in fields(value):
            put(getattr(value, item.name), getattr(place, item.name))


class CudaGraphs:
    """`Recorder` of CUDA (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)."""

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        """One stream for all rehearsals: the allocator keeps free memory for the stream that had it."""
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def rehearse(self, work: Work) -> tuple[Step, bool]:
        """See `Recorder`. Runs on a side stream, as recordings do."""
        stream, before = self._stream, torch.cuda.get_sync_debug_mode()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings(record=True) as caught, _convolutions_tried_out():
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                done = work()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        torch.cuda.current_stream().wait_stream(stream)
        return done, not any("synchronizing CUDA operation" in str(warning.message) for warning in caught)

    def record(self, work: Work) -> tuple[Step, Replay]:
        """See `Recorder`."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), _convolutions_tried_out():
            step = work()
        return step, graph.replay


@contextmanager
def _convolutions_tried_out() -> Iterator[None]:
    """Let cuDNN benchmark its algorithms on each new shape."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


RECORDERS: dict[str, Recorder] = {"cuda": CudaGraphs()}
"""By device type; without one, steps run as written."""

_latest: dict[tuple[object, ...], GraphStepper] = {}
