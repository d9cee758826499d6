"""A sweep's folder: taken once, resumed as it was started."""

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ltsd.errors import UserError
from ltsd.knobs import Value
from sweeps.settings.lock import LOCK_HOLDER_FILE
from sweeps.settings.sweep import SETTINGS_FILE, Sweep, data_name


def begin(sweep: Sweep) -> None:
    """Claim it, write its settings, leave it."""
    with sweep.claimed():
        sweep.keep()


def given(storage: Path, **more: Any) -> dict[str, Any]:
    return {"name": "night", "storage": str(storage), **more}


def test_a_sweep_is_resumed_with_everything_it_was_started_with(tmp_path: Path) -> None:
    fixed: dict[str, Value] = {"distill.temperature": 2.0, "data.source": "digits", "epochs": 7}
    started = Sweep.new(given(tmp_path, trials=5, final_attack="none"), fixed)
    begin(started)
    resumed = Sweep.resumed(given(tmp_path), {})
    assert (resumed.settings, resumed.fixed, resumed.base) == (started.settings, fixed, started.base)
    assert (started.is_new, resumed.is_new) == (True, False)
    assert resumed.base.epochs == 7


def test_a_name_that_is_taken_is_refused_with_both_remedies(tmp_path: Path) -> None:
    begin(Sweep.new(given(tmp_path), {}))
    with pytest.raises(UserError, match=r"night exists already; add --resume to go on with it, or give another name"):
        Sweep.new(given(tmp_path), {})


def test_nothing_is_made_before_the_sweep_is_claimed(tmp_path: Path) -> None:
    sweep = Sweep.new(given(tmp_path / "runs"), {})
    assert not list(tmp_path.iterdir())
    begin(sweep)
    assert json.loads((tmp_path / "runs" / "night" / SETTINGS_FILE).read_text())["settings"]["name"] == "night"


@pytest.mark.parametrize(
    ("source", "named"),
    [("/data/birds", "birds"), ("/data/Bob's birds.parquet", "Bob-s-birds"), ("../..", "data"), ("vögel/", "v-gel")],
)
def test_a_sweep_without_a_name_is_named_after_data_and_method(tmp_path: Path, source: str, named: str) -> None:
    fixed: dict[str, Value] = {"method": "at-bsl", "data.source": source}
    name = Sweep.new({"storage": str(tmp_path)}, fixed).settings.name
    assert name is not None
    assert name.startswith(f"{named}-at-bsl-20")


@pytest.mark.parametrize("name", ["a/b", "..", ".", "teachers", "o'clock", "-x", "a b"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"must be letters, digits, .* and not be 'teachers'"):
        Sweep.new({"name": name, "storage": str(tmp_path)}, {})


def test_resuming_may_change_how_much_is_run_but_not_what(tmp_path: Path) -> None:
    begin(Sweep.new(given(tmp_path, trials=5, final_seeds=2, final_attack="none"), {"distill.temperature": 2.0}))
    more = Sweep.resumed(given(tmp_path, trials=9, final_seeds=4), {"distill.temperature": 2.0})
    assert (more.settings.trials, more.settings.final_seeds, more.settings.final_attack) == (9, 4, "none")
    for flags, fixed, said in [
        ({"final_attack": "standard"}, {}, r"--final.attack standard: the sweep was started with none"),
        ({}, {"distill.temperature": 3.0}, r"--distill\.temperature 3\.0: the sweep was started with 2\.0"),
        ({}, {"epochs": 90}, "--epochs 90: the sweep was started with"),
    ]:
        with pytest.raises(UserError, match=f"{said}.*leave the flag out, or start another sweep"):
            Sweep.resumed(given(tmp_path, **flags), fixed)
    assert Sweep.resumed(given(tmp_path), {}).settings.trials == 5


def test_a_sweep_lies_where_it_is_found_whatever_its_settings_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its folder was made again from a bucket, on a machine where --storage is another."""
    begin(Sweep.new({"name": "night", "storage": str(tmp_path / "first")}, {}))
    (tmp_path / "first").rename(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert Sweep.resumed({"name": "night"}, {}).settings.folder == Path("runs/night")


def test_resuming_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no sweep in .*night; give the --storage it was started with"):
        Sweep.resumed(given(tmp_path), {})
    begin(Sweep.new(given(tmp_path), {}))
    with pytest.raises(UserError, match=r"--resume needs --name; sweeps in .*: night"):
        Sweep.resumed({"storage": str(tmp_path)}, {})


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"settings": {"nonsense": 1}, "fixed": {}}'])
def test_damaged_settings_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "night" / SETTINGS_FILE).write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        Sweep.resumed(given(tmp_path), {})


def test_storage_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A folder below a file cannot be made by anybody, whatever their rights."""
    (tmp_path / "file").write_text("not a folder")
    sweep = Sweep.new(given(tmp_path / "file" / "runs"), {})
    with pytest.raises(UserError, match=r"--storage .*cannot be used .*give a folder that can"):
        begin(sweep)


def test_an_empty_name_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be letters, digits"):
        Sweep.new(given(tmp_path, name=""), {})


def test_a_flag_that_repeats_what_the_sweep_was_started_with_is_no_contradiction(tmp_path: Path) -> None:
    started = Sweep.new(given(tmp_path), {})
    begin(started)
    resumed = Sweep.resumed(given(tmp_path, final_seeds=3), {"epochs": started.base.epochs})
    assert resumed.base == started.base


def test_two_processes_do_not_work_on_one_sweep(tmp_path: Path) -> None:
    sweep = Sweep.new(given(tmp_path), {})
    with sweep.claimed():
        sweep.keep()
        said = rf"--name night: process {os.getpid()} on {socket.gethostname()} works on this sweep; wait for it"
        with pytest.raises(UserError, match=said), Sweep.resumed(given(tmp_path), {}).claimed():
            pass
    with Sweep.resumed(given(tmp_path), {}).claimed():
        pass


def test_of_two_that_start_a_sweep_at_once_one_is_refused(tmp_path: Path) -> None:
    first, second = Sweep.new(given(tmp_path), {}), Sweep.new(given(tmp_path), {})
    begin(first)
    with pytest.raises(UserError, match="exists already; add --resume"):
        begin(second)


def test_a_password_is_not_written_down(tmp_path: Path) -> None:
    begin(Sweep.new(given(tmp_path, tracking_uri="https://me:secret@mlflow.example/"), {}))
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "night").iterdir())
    assert Sweep.resumed(given(tmp_path), {}).settings.tracking_uri == "https://mlflow.example/"


def test_what_a_killed_process_left_is_no_lock_and_its_unfinished_files_go(tmp_path: Path) -> None:
    """The lock is the operating system's: a file that says who held it holds nothing."""
    begin(Sweep.new(given(tmp_path), {}))
    folder = tmp_path / "night"
    (folder / LOCK_HOLDER_FILE).write_text("process 4000000 on another-host")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / ".trial-0000.pt.4000000.tmp").write_bytes(b"half")
    with Sweep.resumed(given(tmp_path), {}).claimed():
        assert (folder / LOCK_HOLDER_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not list((folder / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"references": "ltsd,tradse"}, "did you mean 'trades'"),
        ({"trials": 0, "references": ""}, "--trials 0 compares the --references, and there are none"),
        (
            {"compare": "tuned", "trials": 0},
            "--compare tuned: --trials 0 and --references ltsd,at-bsl,at leave nothing",
        ),
        ({"compare": "tuned", "references": "ltsd"}, "nothing to tune beside ltsd; try trials, and name a reference"),
        (
            {"compare": "tuned", "search": "distill"},
            "--search distill: at-bsl has knobs in balance, optim, fine-tune, plugins",
        ),
    ],
)
def test_rows_that_there_are_not_are_refused_before_anything_is_made(
    tmp_path: Path, flags: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        Sweep.new(given(tmp_path, **flags), {})
    assert list(tmp_path.iterdir()) == []


def test_a_source_lends_its_bare_name() -> None:
    assert data_name("s3://bucket/flowers?endpoint_override=localhost:9000&scheme=http") == "flowers"
    endings = (".parquet", ".arrow", ".json", ".txt", "/")
    assert {data_name(f"/data/birds{ending}") for ending in endings} == {"birds"}


@pytest.mark.parametrize("start", [Sweep.new, Sweep.resumed])
def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path, start: Callable[..., Sweep]) -> None:
    with pytest.raises(UserError, match=r"--storage .* cannot be used \(File name too long\); give"):
        start({"name": "x" * 300, "storage": str(tmp_path)}, {})


def test_a_sweep_goes_on_with_the_images_that_it_began_with_alone(tmp_path: Path) -> None:
    begin(Sweep.new(given(tmp_path), {}).on("these images"))
    resumed = Sweep.resumed(given(tmp_path), {})
    assert resumed.on("these images") == resumed
    with pytest.raises(UserError, match=r"--data digits: the images are not those that the sweep night began with"):
        resumed.on("others")


def test_a_sweep_goes_on_with_the_score_that_it_began_with_alone(tmp_path: Path) -> None:
    """Trials that were compared by PGD alone would win over those that three attacks were tried on."""
    begin(Sweep.new(given(tmp_path), {}).on("these images"))
    path = tmp_path / "night" / SETTINGS_FILE
    content = json.loads(path.read_text())
    assert content.pop("score") == "worst of PGD-10, CW-10, LSA-10"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"--name night: its trials were compared by PGD on cross-entropy, and this"):
        Sweep.resumed(given(tmp_path), {}).on("these images")


@pytest.mark.parametrize(
    ("given", "fixed", "attack"),
    [
        ({}, {}, (4, 0.125 / 4)),  # eps 0.1: the steps come 1.25 times as far as the edge
        ({"trial_steps": 8}, {}, (8, 0.025)),  # no shorter than those of the finals
        ({"trial_steps": 12}, {}, (10, 0.025)),
        ({}, {"attack.steps": 1}, (1, 0.025)),
        ({}, {"attack.steps": 5, "attack.step_size": 0.08}, (2, 0.08)),
        ({"trial_steps": 1}, {"attack.eps": 1.0}, (1, 1.0)),
    ],
)
def test_trials_are_trained_with_fewer_steps_that_come_past_the_edge_of_the_ball(
    tmp_path: Path, given: dict[str, Any], fixed: dict[str, Value], attack: tuple[int, float]
) -> None:
    sweep = Sweep.new({"storage": str(tmp_path), **given}, fixed)
    assert (sweep.tried_of("").attack.steps, sweep.tried_of("").attack.resolved_step_size) == pytest.approx(attack)
    full = {"attack.steps": sweep.base.attack.steps, "attack.step_size": sweep.base.attack.step_size}
    assert sweep.tried_of("").override(full) == sweep.base


def test_a_sweep_that_began_before_trials_had_fewer_steps_goes_on_with_all(tmp_path: Path) -> None:
    sweep = Sweep.new({"storage": str(tmp_path), "name": "old"}, {})
    with sweep.claimed():
        sweep.keep()
    path = sweep.settings.folder / SETTINGS_FILE
    content = json.loads(path.read_text())
    del content["settings"]["trial_steps"]
    path.write_text(json.dumps(content))
    resumed = Sweep.resumed({"storage": str(tmp_path), "name": "old"}, {})
    assert resumed.tried_of("") == resumed.base


@pytest.mark.parametrize(
    ("classes", "attacks"), [(2, ("aafew", "aafew")), (3, ("aafew", "aafew")), (4, ("standard", "apgd-ce+t"))]
)
def test_two_and_three_classes_have_aa_few_unless_the_user_names_another(
    classes: int, attacks: tuple[str, str], tmp_path: Path
) -> None:
    sweep = replace(Sweep.new(given(tmp_path), {}), num_classes=classes)
    assert sweep.attacks == attacks
    sweep.exam.check(attacks[0], classes)
    named = replace(Sweep.new(given(tmp_path, final_attack="none"), {}), num_classes=classes)
    assert named.attacks == ("none", attacks[1])
