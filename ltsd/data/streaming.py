"""Stored rows that stay on the CPU and are brought to a device batch by batch, ahead of the step that needs them."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ltsd.data.encoded import EncodedImages, Stored
from ltsd.data.on_disk import pieces

AHEAD = 3
"""Batches that are read before they are asked for."""
GIB = 2**30
SHARE = 0.5
"""Of the free memory that a split may take."""


class Streamed:
    """Rows [N, ...] on the CPU, indexed by rows on a device, where they appear.

    Args:
        stored: a memory map, or images that are still encoded.
        device: where the rows are wanted.
        limit: the bytes up to which they would have been resident there.
    """

    def __init__(self, stored: Stored, device: torch.device, limit: int) -> None:
        self.stored, self.device, self.limit = stored, device, limit
        self.shape, self.dtype = stored.shape, stored.dtype

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return rows [B, ...] on the device."""
        return self.stored[rows.cpu()].to(self.device)

    def ahead(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the rows of each batch on the device, the same as by index; a thread reads the next ones meanwhile.

        No thread but the caller's speaks to the device: another one may not while a CUDA graph is recorded.
        """
        batches = [rows.cpu() for rows in batches]
        largest = max((len(rows) for rows in batches), default=0)
        of_gpu = self.device.type != "cpu"
        places = [_Pinned(largest, self) if of_gpu else _Fresh(self) for _ in range(AHEAD)]
        todo, reading = iter(batches), deque[tuple[_Pinned | _Fresh, Future[Tensor]]]()
        with ThreadPoolExecutor(1, "reading") as thread:

            def begin(place: _Pinned | _Fresh) -> None:
                if (rows := next(todo, None)) is not None:
                    reading.append((place, thread.submit(_read, self.stored, rows, place.memory(len(rows)))))

            try:
                for place in places:
                    begin(place)
                while reading:
                    place, read = reading.popleft()
                    yield place.sent(read.result())
                    del read
                    begin(place)
            finally:
                thread.shutdown(cancel_futures=True)


def _read(stored: Stored, rows: Tensor, into: Tensor) -> Tensor:
    if isinstance(stored, EncodedImages):
        return stored.decoded(rows, into)
    return torch.index_select(stored, 0, rows, out=into)


class _Fresh:
    """New memory for every batch, of the caller's thread, which frees it: allocators keep memory for each thread."""

    def __init__(self, rows: Streamed) -> None:
        self._rows = rows

    def memory(self, count: int) -> Tensor:
        """Return memory [B, ...] for a batch."""
        return torch.empty((count, *self._rows.shape[1:]), dtype=self._rows.dtype)

    def sent(self, batch: Tensor) -> Tensor:
        """Return the batch."""
        return batch


class _Pinned:
    """Page-locked memory of one batch after the other, from which a GPU copies while other work goes on."""

    def __init__(self, largest: int, rows: Streamed) -> None:
        self._device = rows.device
        self._pinned = torch.empty((largest, *rows.shape[1:]), dtype=rows.dtype, pin_memory=True)
        self._copied: torch.cuda.Event | None = None

    def memory(self, count: int) -> Tensor:
        """Return memory [B, ...] for a batch, once the last one is copied."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._pinned[:count]

    def sent(self, batch: Tensor) -> Tensor:
        """Begin to copy a batch, which lies in this memory, to the device."""
        on_device = batch.to(self._device, non_blocking=True)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()
        return on_device


def room_on(device: torch.device) -> int:
    """Return the bytes that a split may take of a device if nothing is set: SHARE of what is free of a GPU, or of this
    process's part of it; on a processor of the machine's memory.
    """
    if device.type == "cpu":
        return int(SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    free, total = torch.cuda.mem_get_info(device)
    part = torch.cuda.get_per_process_memory_fraction(device) * total - torch.cuda.memory_allocated(device)
    return int(SHARE * max(0, min(free, part)))


def on_device(stored: Tensor | EncodedImages, rows: Tensor, device: torch.device) -> Tensor:
    """Return rows [N, ...] of stored ones copied to a device, a piece at a time."""
    found = torch.empty((len(rows), *stored.shape[1:]), dtype=stored.dtype, device=device)
    for piece in pieces(len(rows), found[:1].nbytes):
        found[piece] = stored[rows[piece]].to(device)
    return found
