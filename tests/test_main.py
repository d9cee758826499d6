"""`python -m ltsd`: train, go on, examine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from imagesets import encoded, images_of, write_parquet
from PIL import Image

from ltsd.__main__ import main
from ltsd.checkpoint import load_checkpoint, save_checkpoint
from ltsd.config import Config
from ltsd.data import Splits
from ltsd.errors import UserError
from ltsd.evaluation.correctness import read_correctness
from ltsd.runs import open_run

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_trains_a_teacher_and_a_student_and_examines_the_student(
    small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "one.pt"
    assert main(["train", *small_flags, "--out", str(run)]) == 0
    said = capsys.readouterr().out
    assert "teacher epoch 1/1 " in said
    assert "ltsd epoch 3/3 " in said
    assert said.splitlines()[-1].endswith(f"python -m ltsd evaluate {run}")

    with pytest.raises(UserError, match="its folder cannot be made"):
        main(["evaluate", str(run), "--card", str(run / "card.md")])
    outputs = [
        f for name in ("json", "card", "picture", "correctness") for f in (f"--{name}", str(tmp_path / f"out.{name}"))
    ]
    assert main(["evaluate", str(run), *outputs]) == 0
    table = capsys.readouterr().out.splitlines()
    written = json.loads((tmp_path / "out.json").read_text())
    assert table[0].split() == ["class", "train", "group", *written["per_class"]]
    for c in range(10):
        recalls = [100 * recalls[c] for recalls in written["per_class"].values()]
        assert [float(cell) for cell in table[1 + c].split()[3:]] == pytest.approx(recalls, abs=0.05)
    balanced = next(line for line in table if line.split()[0] == "balanced")
    metrics = [100 * written["metrics"][f"test/{attack}_acc"] for attack in written["per_class"]]
    assert [float(cell) for cell in balanced.split()[1:]] == pytest.approx(metrics, abs=0.05)
    assert written["images"] == 40
    assert written["groups"]["tail"] == [7, 8, 9]
    assert (tmp_path / "out.picture").read_bytes().startswith(PNG_SIGNATURE)
    correctness, _ = read_correctness(tmp_path / "out.correctness")
    for attack in ("clean", "fgsm", "pgd20", "cw20", "ls20"):
        assert correctness[attack].per_class() == pytest.approx(written["per_class"][attack])
    lines = [line.split("|") for line in (tmp_path / "out.card").read_text().splitlines() if line.startswith("| ")]
    card = {cells[1].strip(): cells[2:-1] for cells in lines}
    for title, attack in (("clean", "clean"), ("PGD-20", "pgd20"), ("corruptions", "corruption")):
        assert float(card[title][0]) == pytest.approx(100 * written["metrics"][f"test/{attack}_acc"], abs=0.05)
    assert [cell.strip() for cell in card["AutoAttack"]] == ["not measured", *"––––"]
    for c, count in enumerate(written["class_counts"]):
        group, train, test, clean, _ = (cell.strip() for cell in card[str(c)])
        assert c in written["groups"][group]
        assert (train, test) == (str(count), "4")
        assert float(clean) == pytest.approx(100 * written["per_class"]["clean"][c], abs=0.05)


def test_a_run_that_exists_is_never_overwritten(small_flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    path.write_text("precious")
    with pytest.raises(UserError, match="exists already; add --resume to go on with it, or give another path"):
        main(["train", *small_flags, "--method", "natural", "--out", str(path)])
    assert path.read_text() == "precious"
    with pytest.raises(UserError, match="is not an ltsd checkpoint"):
        main(["train", *small_flags, "--method", "natural", "--out", str(path), "--resume"])
    assert path.read_text() == "precious"


def test_an_exam_of_another_model_is_never_overwritten(small_flags: list[str], tmp_path: Path) -> None:
    kept = tmp_path / "kept.parquet"
    for name, seed in (("one.pt", "0"), ("other.pt", "1")):
        own = ("--method", "natural", "--epochs", "1", "--seed", seed, "--out", str(tmp_path / name))
        main(["train", *small_flags, *own])
    main(["evaluate", str(tmp_path / "one.pt"), "--correctness", str(kept)])
    before = kept.read_bytes()
    with pytest.raises(UserError, match=r"kept\.parquet: holds the exam of another model, .*give another path"):
        main(["evaluate", str(tmp_path / "other.pt"), "--correctness", str(kept)])
    assert main(["evaluate", str(tmp_path / "one.pt"), "--correctness", str(kept)]) == 0
    assert kept.read_bytes() == before


def test_a_teacher_that_exists_is_never_overwritten(small_flags: list[str], tmp_path: Path) -> None:
    teacher = tmp_path / "one.teacher.pt"
    teacher.write_text("precious")
    with pytest.raises(UserError, match=r"one\.teacher\.pt exists already; add --resume to go on with it"):
        main(["train", *small_flags, "--method", "ltsd", "--out", str(tmp_path / "one.pt")])
    assert teacher.read_text() == "precious"


def test_an_interrupted_run_goes_on_to_the_same_weights(
    small: Config, splits: Splits, small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    main(["train", *small_flags, "--method", "at", "--out", str(whole)])
    device = torch.device("cpu")
    run = open_run(
        small.override({"method": "at"}), splits, splits.train, splits.val, device, teacher=None, resume=None
    )
    next(run.epochs())
    run.save(broken)
    capsys.readouterr()
    main(["train", *small_flags, "--method", "at", "--out", str(broken), "--resume"])
    said = capsys.readouterr().out
    assert "epoch 1/3" not in said
    assert "epoch 2/3" in said
    trained = [load_checkpoint(path)["student"] for path in (broken, whole)]
    torch.testing.assert_close(*trained, rtol=0, atol=0)
    main(["train", *small_flags, "--method", "at", "--out", str(broken), "--resume"])
    assert "epoch" not in capsys.readouterr().out


def test_complete_trains_on_the_standard_training_set(
    small_flags: list[str], splits: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--method", "natural", "--data.n-max", "125", "--out", str(tmp_path / "one.pt"), "--complete"]
    main(["train", *small_flags, *flags])
    assert "val/" not in capsys.readouterr().out
    counts = load_checkpoint(tmp_path / "one.pt")["class_counts"]
    assert counts[0] == 125
    assert counts[0] == 5 * counts[-1]


def test_a_checkpoint_that_fits_no_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "odd.pt", {"config": Config().flatten(), "shape": [1, 8, 8], "class_names": ["a", "b"]})
    with pytest.raises(UserError, match=r"odd\.pt: its tensors do not fit the model it names"):
        main(["evaluate", str(tmp_path / "odd.pt")])


@pytest.mark.parametrize(("classes", "groups"), [(2, ["head", "tail"]), (3, ["head", "medium", "tail"])])
def test_a_few_classes_have_numbers_only_for_the_groups_that_there_are(
    classes: int, groups: list[str], small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = list(range(classes)) * 30
    pictures = [*map(encoded, images_of(len(labels), size=8))]
    source, run = write_parquet(tmp_path / "few.parquet", pictures, labels), tmp_path / "one.pt"
    flags = ["--data", str(source), "--data.n-max", "20", "--method", "at", "--out", str(run)]
    assert main(["train", *small_flags, *flags]) == 0
    assert main(["evaluate", str(run), "--json", str(tmp_path / "one.json")]) == 0
    said = capsys.readouterr().out
    assert "nan" not in said
    assert ("medium" in said) == ("medium" in groups)
    written = json.loads((tmp_path / "one.json").read_text(), parse_constant=pytest.fail)
    assert list(written["groups"]) == groups
    with pytest.raises(UserError, match=rf"AutoAttack needs at least 4 classes and there are {classes}; choose aafew"):
        main(["evaluate", str(run), "--attack", "standard"])


def test_two_classes_are_examined_by_aa_few_which_is_never_called_autoattack(
    small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltsd.attacks.square.QUERIES", 20)
    labels = [0, 1] * 30
    source = write_parquet(tmp_path / "two.parquet", [*map(encoded, images_of(60, size=8))], labels)
    run, card, picture = (tmp_path / name for name in ("one.pt", "card.md", "bars.png"))
    train = ["--data", str(source), "--data.n-max", "20", "--method", "at", "--out", str(run)]
    assert main(["train", *small_flags, *train]) == 0
    flags = ["--attack", "aafew", "--json", str(tmp_path / "one.json"), "--card", str(card), "--picture", str(picture)]
    assert main(["evaluate", str(run), *flags]) == 0
    said = capsys.readouterr()
    assert "AA-few apgd-margin done" in said.err
    assert "aafew" in said.out
    metrics = json.loads((tmp_path / "one.json").read_text())["metrics"]
    assert metrics["test/aafew_acc"] <= metrics["test/cw20_acc"]
    assert "test/aa_acc" not in metrics
    assert "under AA-few with eps" in card.read_text()
    assert "needs at least four classes. AA-few takes its place" in card.read_text()
    assert picture.stat().st_size > 0


def test_a_mistake_on_the_command_line_is_one_line_and_code_2(tmp_path: Path) -> None:
    flags = ["train", "--out", str(tmp_path / "one.pt"), "--attack.eps", "8"]
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "ltsd", *flags], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: attack.eps = 8.0 is out of range")
    assert not list(tmp_path.iterdir())


def test_a_run_never_goes_on_with_other_images(small_flags: list[str], tmp_path: Path) -> None:
    flags = [*small_flags, "--method", "natural", "--data.n-max", "125", "--out", str(tmp_path / "one.pt")]
    main(["train", *flags])
    with pytest.raises(UserError, match="images and cannot go on with"):
        main(["train", *flags, "--resume", "--complete"])


def test_training_that_diverges_says_so_and_keeps_no_model_of_it(small_flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    with pytest.raises(UserError, match=r"epoch 1 of 3 diverged: .* lower optim\.lr"):
        main(["train", *small_flags, "--method", "natural", "--optim.lr", "1e30", "--out", str(path)])
    assert not path.exists()


def test_a_rate_that_leaves_the_loss_finite_and_no_answer_is_refused_too(tmp_path: Path) -> None:
    flags = ["train", "--method", "at", "--epochs", "2", "--optim.lr", "1000", "--out", str(tmp_path / "one.pt")]
    for resume in ([], ["--resume"]):
        with pytest.raises(UserError, match=r"epoch \d of 2 diverged: .*; lower optim\.lr"):
            main([*flags, *resume])


def test_a_network_without_answers_is_told_of_first_and_has_nothing_right(
    small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "one.pt"
    main(["train", *small_flags, "--method", "at", "--epochs", "1", "--out", str(path)])
    content = load_checkpoint(path)
    (content["average"] or content["student"])["features.2.running_mean"][:] = float("nan")
    save_checkpoint(path, content)
    capsys.readouterr()
    assert main(["evaluate", str(path), "--attack", "standard"]) == 0
    first, *_, balanced, images = capsys.readouterr().out.splitlines()
    assert first == "warning: the network answers NaN or infinity on 40 of 40 test images: these count as wrong"
    assert balanced.split() == ["balanced", *["0.0"] * 7]
    assert images.startswith("40 test images")
    with pytest.raises(UserError, match=r"epoch 1 of 1 diverged: .*features\.2\.running_mean is not finite"):
        main(["train", *small_flags, "--method", "at", "--epochs", "1", "--out", str(path), "--resume"])


def test_a_mistaken_flag_of_a_command_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean .--distill\.temperature."):
        main(["train", "--out", str(tmp_path / "one.pt"), "--distil.temperature", "2"])


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_computed(
    small_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="its folder cannot be made"):
        main(["train", *small_flags, "--out", str(tmp_path / "file" / "one.pt")])
    assert capsys.readouterr().out == ""


def test_a_checkpoint_is_neither_examined_nor_gone_on_with_where_its_images_have_changed(
    tmp_path: Path, small_flags: list[str]
) -> None:
    """The counts stay, and images that it was trained on would be among those that it is tested on."""
    pictures, labels = [*map(encoded, images_of(33, size=8))], [0, 1, 2] * 11
    source, out = tmp_path / "a.parquet", tmp_path / "one.pt"
    flags = [*small_flags, "--method", "at", "--data", str(write_parquet(source, pictures[:30], labels[:30]))]
    flags += ["--data.n-max", "6", "--data.imbalance-ratio", "2", "--data.val-per-class", "1", "--out", str(out)]
    main(["train", *flags])
    main(["evaluate", str(out)])
    write_parquet(source, pictures, labels)
    for command in (["evaluate", str(out)], ["train", *flags, "--resume"]):
        with pytest.raises(UserError, match=r"one\.pt: was trained on other images than there are now"):
            main(command)


def test_runs_of_one_stem_have_teachers_of_their_own(tmp_path: Path, small_flags: list[str]) -> None:
    for name in ("lr0.1", "lr0.03.pt"):
        main(["train", *small_flags, "--epochs", "1", "--out", str(tmp_path / name)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lr0.03.pt",
        "lr0.03.teacher.pt",
        "lr0.1",
        "lr0.1.teacher.pt",
    ]


def test_data_is_told_in_full_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, source = [*map(encoded, images_of(60, size=8))], tmp_path / "source"
    write_parquet(source / "train.parquet", images[:40], [0, 1] * 20, ["cat", "dog"])
    write_parquet(source / "test.parquet", images[40:], [0, 1] * 10, ["cat", "dog"])
    (source / ".DS_Store").touch()
    monkeypatch.chdir(tmp_path)
    flags = [str(source), "--data.imbalance-ratio", "4", "--data.val-per-class", "2"]
    assert main(["data", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    read, left_out, counts, serving, groups, _, cat, dog, picture = lines
    assert read.startswith(f"read: {source}; train: 40 images of 1 file (split 'train', train.parquet); test: 20 ")
    assert left_out == "left out: hidden files, or companions that an operating system made: 1 (.DS_Store)"
    assert counts == "data: 25 training images, 20…5 a class, drawn with exponential tail at imbalance ratio 4"
    assert serving.endswith("; 20 for the test, the data's own")
    assert (cat.split(), dog.split()) == (["cat", "20", "2", "10", "head"], ["dog", "5", "2", "10", "tail"])
    assert "cat (20)" in groups
    with Image.open(picture.removeprefix("images of every class: ")) as drawn:
        assert drawn.width > 400
    main(["train", "--method", "at", "--epochs", "1", "--data", *flags, "--out", "one.pt", "--model.width", "8"])
    assert capsys.readouterr().out.splitlines()[: len(lines) - 4] == lines[:-4]
    with pytest.raises(UserError, match="would lie among the images that are read"):
        main(["data", *flags, "--picture", str(source / "data.png")])
    write_parquet(source / "test.parquet", images[:20], [0, 1] * 10, ["cat", "dog"])
    with pytest.raises(UserError, match="12 of 20 test examples are, value by value, also training examples"):
        main(["data", *flags])
    assert capsys.readouterr().out.startswith("read: "), "what was read is told before what is wrong with it"
