"""The version of the code that shapes a teacher: the modules that its training imports."""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import ltsd

ROOT = Path(ltsd.__file__).parent.parent
TRAINS = ("ltsd.teacher", "ltsd.train", "ltsd.methods.at", "ltsd.methods.natural")
REGISTRIES = ("ltsd.config", "ltsd.methods")
"""Modules that are left out because they import every method. The values of a teacher's configuration are part of its
address anyway.
"""


@functools.cache
def stage_code() -> str:
    """Return the SHA-256 of the sources that shape a teacher."""
    digest = hashlib.sha256()
    for _, path in sorted(stage_sources().items()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stage_sources() -> dict[str, Path]:
    """Return the modules of ltsd that the training of a teacher imports, directly or not, except through REGISTRIES."""
    found: dict[str, Path] = {}
    waiting = list(TRAINS)
    while waiting:
        module = waiting.pop()
        path = _path_of(module)
        if path is not None and module not in found and module not in REGISTRIES:
            found[module] = path
            waiting += _imports(path)
    return found


def _path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def _imports(path: Path) -> Iterator[str]:
    """Yield the absolute names that a module imports from ltsd; of `from a import b` both `a` and `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] == "ltsd")
