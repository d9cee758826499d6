"""What a worker uses of its machine, epoch by epoch, under the names that MLflow shows among system metrics."""

import resource
import sys
import time
from dataclasses import dataclass, field

import torch

MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
"""The unit of `ru_maxrss`."""


@dataclass
class Usage:
    """A clock of this process's work on a device."""

    device: torch.device
    _cpu_s: float = field(default_factory=time.process_time)
    _wall_s: float = field(default_factory=time.perf_counter)

    def lap(self) -> dict[str, float]:
        """Return what the process used since the last lap, in seconds and percent of a core, and its peak memory so far
        in MiB, of the machine and of the GPU.
        """
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        spent = {
            "system/seconds": wall_s - self._wall_s,
            "system/cpu_percent": 100 * (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-9),
            "system/memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES / 2**20,
        }
        if self.device.type == "cuda":
            spent["system/gpu_memory_mib"] = torch.cuda.max_memory_reserved(self.device) / 2**20
        self._cpu_s, self._wall_s = cpu_s, wall_s
        return spent
