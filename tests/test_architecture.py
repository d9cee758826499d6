"""Which module may know of which, by reading the imports of the sources, wherever in a file they stand."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("ltsd", "sweeps")
    for path in (ROOT / package).rglob("*.py")
}


def names_imported(module: str, path: Path) -> Iterator[str]:
    """Absolute dotted names; of `from a import b` both `a` and `a.b`, which may be a module too."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


IMPORTS = {module: set(names_imported(module, path)) for module, path in SOURCES.items()}


def with_packages(name: str) -> set[str]:
    """Importing `a.b.c` imports `a` and `a.b`."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def reached_from(module: str) -> set[str]:
    """Everything that importing a module imports, through this project's own modules."""
    reached, waiting = set[str](), {module}
    while waiting:
        names = {name for imported in IMPORTS.get(waiting.pop(), ()) for name in with_packages(imported)}
        waiting |= names - reached
        reached |= names
    return reached


def inside(*packages: str) -> list[str]:
    return sorted(module for module in SOURCES if with_packages(module) & set(packages))


def test_the_imports_are_read() -> None:
    assert "mlflow" in IMPORTS["sweeps.tracking"]
    assert {"ray", "optuna", "torch", "ltsd.train"} <= reached_from("sweeps.driver")


@pytest.mark.parametrize("module", inside("ltsd"))
def test_the_method_knows_nothing_of_the_orchestration(module: str) -> None:
    assert not reached_from(module) & {"ray", "optuna", "mlflow", "sweeps"}


@pytest.mark.parametrize("module", inside("ltsd.attacks", "ltsd.losses"))
def test_attacks_and_losses_know_nothing_of_the_configuration(module: str) -> None:
    assert "ltsd.config" not in reached_from(module)


def test_the_search_space_knows_nothing_of_ray() -> None:
    assert "ray" not in reached_from("sweeps.space")


def test_what_runs_in_a_worker_knows_nothing_of_mlflow() -> None:
    assert not reached_from("sweeps.trial") & {"mlflow", "sweeps.tracking"}


def test_one_file_alone_imports_mlflow() -> None:
    assert [module for module, names in IMPORTS.items() if any("mlflow" in with_packages(n) for n in names)] == [
        "sweeps.tracking"
    ]


def test_who_speaks_to_ray() -> None:
    """What starts or joins it and ships to its nodes, what asks for jobs, and what runs in a worker."""
    speak = sorted(module for module, names in IMPORTS.items() if any("ray" in with_packages(n) for n in names))
    assert speak == [
        f"sweeps.{name}"
        for name in ("cluster", "machine", "plan", "scheduler", "sharing", "shipping", "trial", "tuner")
    ]


def test_nothing_imports_the_main_command() -> None:
    assert not [module for module, names in IMPORTS.items() if "sweeps.search" in names]


def test_no_module_hides_the_package_of_its_name() -> None:
    """`python sweeps/search.py` puts the folder `sweeps` first on the path."""
    assert not {module.rpartition(".")[2] for module in inside("sweeps")} & {"ray", "optuna", "mlflow", "ltsd"}
