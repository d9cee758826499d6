"""Which module may know of which, by reading the imports of the sources, wherever in a file they stand."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
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


def room_of(name: str) -> str:
    """`sweeps.study` of what is in that package; a file beside the packages is a room of its own."""
    return ".".join(name.split(".")[:2])


def test_the_imports_are_read() -> None:
    assert "mlflow" in IMPORTS["sweeps.tracking.view"]
    assert {"ray", "optuna", "torch", "ltsd.train"} <= reached_from("sweeps.driver")


@pytest.mark.parametrize("module", inside("ltsd"))
def test_the_method_knows_nothing_of_the_orchestration(module: str) -> None:
    assert not reached_from(module) & {"ray", "optuna", "mlflow", "sweeps"}


@pytest.mark.parametrize("module", inside("ltsd.attacks", "ltsd.losses"))
def test_attacks_and_losses_know_nothing_of_the_configuration(module: str) -> None:
    assert "ltsd.config" not in reached_from(module)


def test_the_search_space_knows_nothing_of_ray() -> None:
    assert "ray" not in reached_from("sweeps.study.space")


def test_no_imports_between_rooms_go_in_a_circle() -> None:
    imports: dict[str, set[str]] = {}
    for module in inside("sweeps"):
        imports.setdefault(room_of(module), set()).update(map(room_of, IMPORTS[module]))
    rooms = {room: (imported & imports.keys()) - {room} for room, imported in imports.items()}
    assert "sweeps.journal" in rooms["sweeps.dispatch"]
    TopologicalSorter(rooms).prepare()  # raises a CycleError, which names the circle


def test_no_room_knows_of_the_files_beside_the_rooms() -> None:
    beside = {room_of(module) for module, path in SOURCES.items() if path.parent == ROOT / "sweeps"} - {"sweeps"}
    rooms = {module: names for module, names in IMPORTS.items() if SOURCES[module].parent.parent == ROOT / "sweeps"}
    assert "sweeps.driver" in beside
    assert not [module for module, names in rooms.items() if names & beside]


@pytest.mark.parametrize("module", inside("sweeps.worker"))
def test_what_runs_in_a_worker_knows_nothing_of_mlflow(module: str) -> None:
    assert not reached_from(module) & {"mlflow", "sweeps.tracking"}


def test_one_room_alone_imports_mlflow() -> None:
    importing = {module for module, names in IMPORTS.items() if any("mlflow" in with_packages(n) for n in names)}
    assert {room_of(module) for module in importing} == {"sweeps.tracking"}


def test_who_speaks_to_ray() -> None:
    """What starts or joins it and ships to its nodes, what asks for jobs, and what runs in a worker."""
    speak = sorted(module for module, names in IMPORTS.items() if any("ray" in with_packages(n) for n in names))
    assert speak == [
        f"sweeps.{name}"
        for name in (
            "dispatch.dispatcher",
            "dispatch.tuner",
            "machines.cluster",
            "machines.machine",
            "machines.sharing",
            "study.scheduler",
            "worker.node_setup",
            "worker.trial",
        )
    ]


def test_nothing_imports_the_main_command() -> None:
    assert not [module for module, names in IMPORTS.items() if "sweeps.search" in names]


def test_no_module_hides_the_package_of_its_name() -> None:
    """`python sweeps/search.py` puts the folder `sweeps` first on the path."""
    assert not {module.rpartition(".")[2] for module in inside("sweeps")} & {"ray", "optuna", "mlflow", "ltsd"}
