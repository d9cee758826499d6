"""The teacher store: one teacher for all students that would train the same one."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from imagesets import encoded, images_of, write_parquet
from small import SMALL

from ltsd.checkpoint import save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits, load_splits
from ltsd.knobs import Value
from ltsd.runs import open_run
from ltsd.teacher import teacher_config, teacher_split
from sweeps.journal.exchange import SharedFolder
from sweeps.journal.jobs import Job
from sweeps.journal.record import Outcome, Record
from sweeps.worker.stage_code import stage_sources
from sweeps.worker.teachers import TeacherStore, is_trained, settle_teachers


def store(splits: Splits) -> TeacherStore:
    return TeacherStore(Path("runs"), splits)


def teacher_of(student: Config, splits: Splits) -> str:
    return store(splits).job(student, "train", Path("sweep")).teacher


@given(
    temperature=st.floats(0.5, 8),
    kl_weight=st.floats(0.1, 10),
    igdm_weight=st.floats(0.1, 10),
    tau=st.floats(0, 2),
    lr=st.floats(0.01, 0.5),
    weight_decay=st.floats(0, 0.01),
    batch_size=st.integers(2, 256),
    ema_decay=st.floats(0, 0.999),
    epochs=st.integers(1, 200),
)
def test_what_shapes_the_student_alone_shares_a_teacher(
    small: Config,
    splits: Splits,
    temperature: float,
    kl_weight: float,
    igdm_weight: float,
    tau: float,
    lr: float,
    weight_decay: float,
    batch_size: int,
    ema_decay: float,
    epochs: int,
) -> None:
    student = small.override(
        {
            "distill.temperature": temperature,
            "distill.kl_weight": kl_weight,
            "distill.igdm_weight": igdm_weight,
            "balance.softmax_tau": tau,
            "optim.lr": lr,
            "optim.weight_decay": weight_decay,
            "optim.batch_size": batch_size,
            "optim.ema_decay": ema_decay,
            "epochs": epochs,
        }
    )
    assert teacher_of(student, splits) == teacher_of(small, splits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("balance.teacher_gamma", 1.0),
        ("teacher.epochs", 9),
        ("teacher.lr", 0.03),
        ("teacher.adversarial", False),
        ("seed", 1),
        ("model.width", 16),
        ("attack.eps", 0.05),
        ("attack.steps", 3),
        ("teacher.batch_size", 16),
        ("teacher.weight_decay", 0.0),
        ("teacher.ema_decay", 0.9),
        ("data.augmentation", "crop-flip"),
    ],
)
def test_what_shapes_the_teacher_makes_another_one(small: Config, splits: Splits, name: str, value: Value) -> None:
    assert teacher_of(small.override({name: value}), splits) != teacher_of(small, splits)


def test_first_weights_make_a_teacher_by_their_content_whatever_their_path(
    small: Config, splits: Splits, tmp_path: Path
) -> None:
    made = []
    for name, content in (("a.pt", b"one"), ("b.pt", b"one"), ("c.pt", b"two")):
        (tmp_path / name).write_bytes(content)
        made.append(teacher_of(small.override({"model.weights": str(tmp_path / name)}), splits))
    assert made[0] == made[1] != made[2]
    assert teacher_of(small, splits) not in made


def test_the_code_that_shapes_a_teacher_is_what_its_training_imports() -> None:
    sources = stage_sources()
    shaping = {"step", "state", "answers", "precision", "cuda_graphs", "attacks.pgd", "models.frozen", "data.longtail"}
    assert {f"ltsd.{module}" for module in shaping} <= sources.keys()
    others = {"config", "methods.ltsd", "methods.trades", "evaluation.exam", "data.tables", "attacks.autoattack"}
    assert not {f"ltsd.{module}" for module in others} & sources.keys()


def test_other_images_make_another_teacher(small: Config, splits: Splits) -> None:
    other = load_splits(small.override({"data.val_per_class": 4, "data.n_max": 29}).data)
    assert teacher_of(small, other) != teacher_of(small, splits)
    class_0_gives_up = load_splits(small.override({"data.n_max": 125}).data)
    jobs = [store(class_0_gives_up).job(small, part, Path("sweep")) for part in ("train", "complete")]
    assert jobs[0].teacher != jobs[1].teacher
    assert len({job.key for job in jobs}) == 2


def test_the_default_gamma_and_the_same_gamma_set_are_one_teacher(small: Config, splits: Splits) -> None:
    assert teacher_of(small.override({"balance.teacher_gamma": 2.5}), splits) == teacher_of(small, splits)


def test_a_damaged_teacher_is_removed_so_that_it_is_trained_anew(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    assert not is_trained(path)
    save_checkpoint(path, {"weights": torch.zeros(3)})
    assert is_trained(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_trained(path)
    assert not path.exists()


@pytest.mark.parametrize(("epochs_of_its_own", "outcome"), [(2, "done"), (1, "reused")])
def test_a_teacher_that_was_stored_before_its_driver_heard_of_it_is_over(
    tmp_path: Path, small: Config, epochs_of_its_own: int, outcome: Outcome
) -> None:
    stored, missing = (
        Job(
            "teacher", name, small.override({"epochs": 2}), "train", str(tmp_path), teacher=str(tmp_path / f"{name}.pt")
        )
        for name in ("teacher-stored", "teacher-missing")
    )
    epochs = [{"epoch": epoch, "values": {"train/loss": 1.0}, "per_class": {}} for epoch in (1, 2)]
    save_checkpoint(stored.checkpoint, {"history": epochs[:epochs_of_its_own]})
    save_checkpoint(Path(stored.teacher), {"history": epochs})
    record = Record.open(tmp_path)
    for job in (stored, missing):
        record.started(job, 0)
    settle_teachers(record, SharedFolder())
    settle_teachers(record, SharedFolder())
    known = Record.read(tmp_path).jobs
    assert (known["teacher-stored"].outcome, known["teacher-stored"].last_epoch) == (outcome, epochs_of_its_own)
    assert known["teacher-missing"].outcome is None


def test_a_teacher_is_validated_on_the_tail_of_the_data_and_not_of_its_balanced_images(tmp_path: Path) -> None:
    """Also where the rarest class is the first, and no class of the data is large."""
    labels = [c for c, count in enumerate((12, 60, 50)) for _ in range(count)]
    source = write_parquet(tmp_path / "one.parquet", [*map(encoded, images_of(len(labels), size=8))], labels)
    for by in ("thirds", "many-medium-few"):
        own = {"data.groups": by, "data.n_max": None, "data.imbalance_ratio": None, "data.test_per_class": None}
        config = Config.preset(str(source)).override({**SMALL, **own})
        splits = load_splits(config.data)
        stage1 = teacher_config(config, 2.0)
        data = teacher_split(stage1, splits.train, 2.0)
        run = open_run(stage1, splits, data, splits.val, torch.device("cpu"), teacher=None, resume=None)
        *_, last = run.epochs()
        assert last.values["val/tail_clean_acc"] == last.per_class["clean"][0]
        assert ("val/head_robust_acc" in last.values) == (by == "thirds")
