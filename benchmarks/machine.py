"""What a measurement was made on, in words, and where it is kept."""

import importlib.metadata
import platform
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def versions(*packages: str) -> str:
    """Installed packages and their versions."""
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def hardware() -> str:
    """What it ran on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return f"{len(models)} cores of {models[0]}" if models else platform.processor() or platform.machine()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
