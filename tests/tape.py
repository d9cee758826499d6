"""What a CUDA graph does, on a processor: the operations of some work written down, and done again on the same memory.

As with a graph, Python runs once, while it is recorded; a number that it read or reckoned with then stays what it was.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ltsd.cuda_graphs import Replay, Work
from ltsd.step import Step

READS = torch.ops.aten._local_scalar_dense.default
BATCH_NORM = torch.ops.aten.native_batch_norm.default


class Tape(TorchDispatchMode):
    """The operations inside, in order; those that only give another view of memory need not be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self._done: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self._own: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.reads += func is READS
        for tensor in written_to(func, args, kwargs):
            if tensor.data_ptr() not in self._own:
                self._before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        result = func(*args, **kwargs)
        if not any(returned.alias_info and not returned.alias_info.is_write for returned in func._schema.returns):
            outputs = [one for one in tree_flatten(result)[0] if isinstance(one, Tensor)]
            self._own |= {one.data_ptr() for one in outputs if not func._schema.is_mutable}
            self._done.append((func, args, kwargs, outputs))
        return result

    @torch.no_grad()
    def rewind(self) -> None:
        """Undo what was done to memory that was there before."""
        for tensor, before in self._before.values():
            tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        """Do it again."""
        for func, args, kwargs, outputs in self._done:
            again = [one for one in tree_flatten(func(*args, **kwargs))[0] if isinstance(one, Tensor)]
            if not func._schema.is_mutable:
                for output, result in zip(outputs, again, strict=True):
                    output.copy_(result)


def written_to(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The arguments that an operation changes; BatchNorm's schema keeps its running statistics secret."""
    if func is BATCH_NORM:
        return [args[3], args[4]]
    given = [args[at] if at < len(args) else kwargs.get(one.name) for at, one in enumerate(func._schema.arguments)]
    changed = [
        value
        for one, value in zip(func._schema.arguments, given, strict=True)
        if one.alias_info is not None and one.alias_info.is_write
    ]
    return [one for one in tree_flatten(changed)[0] if isinstance(one, Tensor)]


class Tapes:
    """A `Recorder` of processors."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def rehearse(self, work: Work) -> tuple[Step, bool]:
        with Tape() as tape:
            done = work()
        return done, tape.reads == 0

    def record(self, work: Work) -> tuple[Step, Replay]:
        with Tape() as tape:
            step = work()
        tape.rewind()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return step, replay
