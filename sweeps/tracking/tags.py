"""Tags of a run: the versions of the code, and how its job ended."""

import functools
import importlib.metadata
import subprocess
from pathlib import Path

from sweeps.journal.record import JobRecord

VERSIONED = ("torch", "torchvision", "ray", "optuna", "mlflow", "pyarrow", "ltsd")


def ending(known: JobRecord) -> dict[str, str]:
    """Return the tags that tell how a job ended."""
    tags = {
        "ltsd.outcome": str(known.outcome),
        "ltsd.reason": known.reason,
        "ltsd.warning": known.warning,
        "ltsd.host": ", ".join(dict.fromkeys(known.hosts)),
    }
    return {name: text for name, text in tags.items() if text}


@functools.cache
def versions() -> dict[str, str]:
    """Return the tags about the code: the command, the git commit if there is one, versions of packages."""
    tags = {f"version.{name}": importlib.metadata.version(name) for name in VERSIONED}
    tags |= {"mlflow.source.name": "sweeps/search.py", "mlflow.source.type": "LOCAL"}
    here = Path(__file__).parent
    commit = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if commit.returncode == 0:
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags
