"""Texts: what is read of them, the vectors of their word pieces, and edits that mislead."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from imagesets import images_of, write_folder
from textsets import BANKING, WORDS, texts_of, write_rows, write_texts
from torch import Tensor

from ltsd.__main__ import main
from ltsd.attacks.edits import CANDIDATES, greedy_edits
from ltsd.attacks.losses import margins as margins_of
from ltsd.config import DataConfig, ModelConfig
from ltsd.data import load_splits
from ltsd.data.items import READERS
from ltsd.data.sources import load_source
from ltsd.data.text_augment import with_edits, word_dropout
from ltsd.data.vocabulary import PADDING, UNKNOWN, Vocabulary
from ltsd.errors import UserError
from ltsd.models import build_model
from ltsd.spelling import edited

TEXTS = [text for label in range(4) for text in texts_of(label, 60)]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(TEXTS, 120, 12)


def test_the_vocabulary_is_the_same_every_time_and_its_vectors_have_length_1_but_for_padding(
    vocabulary: Vocabulary,
) -> None:
    again = Vocabulary.of(TEXTS, 120, 12)
    assert again.tokenizer == vocabulary.tokenizer
    assert torch.equal(again.vectors, vocabulary.vectors)
    norms = vocabulary.vectors.norm(dim=1)
    assert norms[PADDING] == 0
    torch.testing.assert_close(norms[1:], torch.ones(len(norms) - 1))


def test_words_that_occur_together_have_vectors_that_are_near_each_other(vocabulary: Vocabulary) -> None:
    def vector(word: str) -> Tensor:
        numbers = vocabulary.numbers([word], 4)[0]
        assert (numbers != PADDING).sum() == 1
        return vocabulary.vectors[numbers[0]]

    same = [float(vector(a) @ vector(b)) for words in WORDS.values() for a in words for b in words if a < b]
    firsts = [words[0] for words in WORDS.values()]
    other = [float(vector(a) @ vector(b)) for a in firsts for b in firsts if a < b]
    assert np.mean(same) > np.mean(other) + 0.2


def test_texts_come_back_from_their_numbers_as_the_network_reads_them(vocabulary: Vocabulary) -> None:
    numbers = vocabulary.numbers(["Please, WHERE is my card?"], 12)
    text = vocabulary.text(numbers[0].tolist())
    assert text.replace(" ", "") == "pleasewhereismycard?", "no training text has a comma"
    again = [vocabulary.text(row) for row in vocabulary.numbers(TEXTS, 12).tolist()]
    assert np.array_equal(vocabulary.numbers(again, 12), vocabulary.numbers(TEXTS, 12))


def test_a_table_of_texts_is_read_with_its_vocabulary_and_what_was_cut_is_told(tmp_path: Path) -> None:
    source = load_source(DataConfig(source=str(write_texts(tmp_path / "train.parquet", (40, 30))), tokens=5))
    assert source.train.images.dtype == torch.int32
    assert source.train.images.shape[1:] == (5,)
    assert source.vocabulary is not None
    told = "\n".join(source.reading.lines("texts"))
    assert "70 texts of 1 file" in told
    assert "train: 49 of 49 texts were cut to 5 word pieces (--data.tokens)" in told


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (["cash machine", "", "my card"], "row 1: has no bytes in the column text"),
        (["cash machine", "  ", "my card"], "row 1: an empty text; take it away"),
        ([1, 2, 3], "is not an image set: it needs the columns"),
    ],
    ids=["empty", "blank", "numbers"],
)
def test_texts_that_cannot_serve_are_refused_by_their_place(tmp_path: Path, column: list[object], told: str) -> None:
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": column, "label": [0, 0, 1]}), path)
    with pytest.raises(UserError, match=told):
        load_source(DataConfig(source=str(path)))


@pytest.mark.parametrize("twice", ["text", "label"])
def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path, twice: str) -> None:
    path, names = tmp_path / "train.parquet", ["text", "label", twice]
    pq.write_table(pa.Table.from_arrays([pa.array(["a", "b", "c"])] * 3, names=names), path)
    with pytest.raises(UserError, match=rf"train.parquet: has 2 columns {twice}; rename all but one"):
        load_source(DataConfig(source=str(path)))


ROW_FILES = pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])


@ROW_FILES
def test_a_file_of_rows_is_read_as_a_parquet_file_of_the_same_texts(tmp_path: Path, suffix: str) -> None:
    rows = pq.read_table(write_texts(tmp_path / "one.parquet", (40, 30))).to_pylist()
    expected = load_source(DataConfig(source=str(tmp_path / "one.parquet")))
    found = load_source(DataConfig(source=str(write_rows(tmp_path / f"one{suffix}", rows))))
    for part in ("train", "test"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert np.array_equal(ours.images, theirs.images)
        assert np.array_equal(ours.labels, theirs.labels)
        assert ours.class_names == theirs.class_names == ("0", "1")


def test_words_of_the_test_texts_are_not_learnt_where_these_are_held_out(tmp_path: Path) -> None:
    rows = [{"text": f"where is my card number{chr(97 + k)}", "label": str(k % 2)} for k in range(20)]
    source = load_source(DataConfig(source=str(write_rows(tmp_path / "one.csv", rows)), vocabulary=300))
    assert source.reading.is_test_held_out
    assert source.reading.parts["train"].images == 20
    assert (len(source.train.labels), len(source.test.labels)) == (14, 6)
    assert source.vocabulary is not None
    learnt = {source.vocabulary.text(row).split()[-1] for row in source.train.images.tolist()}
    every = {str(row["text"]).split()[-1] for row in rows}
    assert {word for word in every if f'"{word}"' in source.vocabulary.tokenizer} == learnt
    assert len(learnt) == 14


@ROW_FILES
def test_classes_are_the_labels_of_the_training_texts_and_files_are_named_for_splits(
    tmp_path: Path, suffix: str
) -> None:
    rows = [
        {"id": 0.5, "text": 'my card, "lost"\nand found' + " " * 2_000_000, "label": "lost card"},
        {"id": 1.5, "text": "12.50", "label": "a sum, of money"},
    ]
    write_rows(tmp_path / f"train{suffix}", rows[:1] + rows[1:] * 10)
    write_rows(tmp_path / f"test{suffix}", rows[::-1])
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.train.class_names == ("a sum, of money", "lost card")
    assert source.test.labels.tolist() == [0, 1]
    assert source.vocabulary is not None
    assert source.vocabulary.text(source.test.images[0].tolist()).replace(" ", "") == "12.50"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"text,label\n\xff\xfe,x\nb,y\n", "a.csv row 0: is not UTF-8 text"),
        ("a.jsonl", b'{"text": "\xff", "label": "x"}\n', "a.jsonl row 0: is not UTF-8 text"),
        ("a.csv", b"text,label\na,x\n,y\n", "a.csv row 1: an empty text"),
        ("a.csv", b"text,label\na,x\nb,\n", "a.csv row 1: has no label; give it one"),
        ("a.jsonl", b'{"text": "a", "label": "x"}\n{"text": "b"}\n', "a.jsonl row 1: has no label; give it one"),
        ("a.csv", b"question,label\na,x\n", "a.csv: has no column text; it has question, label"),
        ("a.csv", b"text,intent\na,x\n", "a.csv: has no column label; it has text, intent"),
        ("a.csv", b"text;label\na;x\n", "a.csv: has no column label; it has text;label; separate columns by commas"),
        ("a.csv", b"text,label\na,x\nb,c,y\n", r"a.csv: cannot be read \(CSV parse error: Row #3: Expected 2 columns"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n{"text"\n', r"a.jsonl: cannot be read \(JSON parse error: .* row 1"),
        ("a.tsv", b'text\tlabel\na\tx\n"b\ty\nc"\ty\n', "a.tsv row 1: holds a tab and a new line, so that a quotation"),
        ("a.csv", b"", r"a.csv: cannot be read \(Empty CSV file\)"),
        ("a.csv", b"text,label,text\na,x,b\n", "a.csv: has 2 columns text; rename all but one"),
        ("a.csv", b"text,label,label\na,x,y\n", "a.csv: has 2 columns label; rename all but one"),
        (
            "a.csv",
            "text,label\na,x\n".encode("utf-16"),
            r"a.csv: is not UTF-8 text \(it begins as UTF-16\); write it as",
        ),
    ],
)
def test_files_of_rows_that_cannot_serve_are_refused_by_their_place(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        load_source(DataConfig(source=str(tmp_path / name)))


def test_a_label_that_no_training_text_has_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [{"text": "a", "label": "lost card"}, {"text": "b", "label": "rates"}])
    write_rows(tmp_path / "test.csv", [{"text": "a", "label": "lost cards"}])
    with pytest.raises(UserError, match=r"test.csv row 0: no training text has the label 'lost cards'.*'lost card'"):
        load_source(DataConfig(source=str(tmp_path)))


def test_the_same_texts_in_two_formats_are_read_once_and_a_folder_of_one_bad_file_says_why(tmp_path: Path) -> None:
    rows = [{"text": f"my card {k}", "label": label} for k, label in enumerate(("1", "01") * 10)]
    for suffix in (".csv", ".jsonl"):
        write_rows(tmp_path / f"train{suffix}", rows)
    source = load_source(DataConfig(source=str(tmp_path)))
    assert source.reading.parts["train"].images == 20
    assert source.train.class_names == ("01", "1")
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.csv").write_text("text;label\na;b\n")
    with pytest.raises(UserError, match=r"train.csv: has no column label; it has text;label; separate"):
        load_source(DataConfig(source=str(tmp_path)))


def test_a_file_without_a_text_is_nothing_to_predict(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("text\n")
    with pytest.raises(UserError, match=r"none.csv: holds no text, and no .txt, .csv, .tsv, .jsonl, Parquet or Arrow"):
        list(READERS["text"].encoded(str(tmp_path / "none.csv")))


def test_a_table_beside_images_is_no_source_of_texts(tmp_path: Path) -> None:
    write_folder(tmp_path, images_of(8), [0, 1] * 4, ["a", "b"])
    write_rows(tmp_path / "captions.csv", [{"file_name": "a/0.png", "text": "a digit", "label": "0"}])
    assert load_source(DataConfig(source=str(tmp_path))).train.images.ndim == 4


def test_dropped_words_are_unknown_and_padding_stays() -> None:
    texts = torch.full((200, 10), 7, dtype=torch.int32)
    texts[:, 6:] = PADDING
    dropped = word_dropout(texts, torch.Generator().manual_seed(0))
    assert (dropped[:, 6:] == PADDING).all()
    assert set(dropped[:, :6].unique().tolist()) == {UNKNOWN, 7}
    assert (dropped[:, :6] == UNKNOWN).float().mean().item() == pytest.approx(0.1, abs=0.03)


@given(seed=st.integers(0, 10**6), text=st.sampled_from(TEXTS))
def test_an_edit_changes_a_letter_or_two_or_takes_a_word_away(seed: int, text: str) -> None:
    found = edited(text, random.Random(seed))
    if len(found.split()) < len(text.split()) and len(text) - len(found) > 1:
        left = text.split()
        for word in found.split():
            left.remove(word)
        assert len(left) == 1
    else:
        assert abs(len(found) - len(text)) <= 1
        places = [place for place, (a, b) in enumerate(zip(found, text, strict=False)) if a != b]
        assert len(found) != len(text) or len(places) <= 2


def test_half_of_the_training_texts_are_edited_by_the_seed_and_the_rest_stay(vocabulary: Vocabulary) -> None:
    texts = torch.from_numpy(vocabulary.numbers(TEXTS[:1] * 2000, 12))
    found = with_edits(texts, vocabulary, torch.Generator().manual_seed(0))
    assert torch.equal(found, with_edits(texts, vocabulary, torch.Generator().manual_seed(0)))
    assert found.dtype == torch.int32
    is_edited = (found != texts).any(1)
    assert 0.4 < is_edited.float().mean() < 0.5, "an edit may change what the network does not read"
    lengths = [len(vocabulary.text(row).replace(" ", "")) for row in found[is_edited].tolist()]
    assert len(set(lengths)) > 5


def letters_of(texts: object, labels: Tensor) -> Tensor:
    """A model that is misled as soon as fewer than 3 letters `a` are left."""
    return torch.tensor([text.count("a") - 2.5 for text in texts])  # type: ignore[attr-defined]


def test_the_search_takes_the_edits_that_mislead_and_no_more_than_its_budget() -> None:
    texts = ["aaaa", "aaa xx yy", "a aa xx", "xx"]
    asked = []

    def margins(tries: list[str], labels: Tensor) -> Tensor:
        asked.append(len(tries))
        return letters_of(tries, labels)

    labels = torch.zeros(4, dtype=torch.long)
    for budget, misled in ((1, [False, True, True, True]), (2, [True, True, True, True])):
        *_, found = greedy_edits(margins, texts, labels, budget=budget, seed=0)
        assert (letters_of(found, labels) <= 0).tolist() == misled
    assert list(greedy_edits(margins, texts, labels, budget=3, seed=0))[1:] == [found, found]
    assert found[3] == "xx", "what is wrong already is left alone"
    assert asked[:2] == [4, 3 * CANDIDATES]


def test_the_margin_is_that_of_the_right_class() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 7.0]])
    assert margins_of(logits, torch.tensor([0, 1])).tolist() == [1, -2]


def test_the_transformer_reads_words_in_their_order_and_no_padding() -> None:
    torch.manual_seed(0)
    network = build_model(ModelConfig(name="text-transformer", width=16), 8, 3)
    texts = torch.randn(2, 8, 6)
    texts[1, :, 4:] = 0
    answers = network(texts)
    longer = torch.cat([texts, torch.zeros(2, 8, 5)], 2)
    assert torch.allclose(network(longer), answers, atol=1e-6)
    with torch.no_grad():  # torch has a faster way without gradients
        assert torch.allclose(network.eval()(texts), answers, atol=1e-6)
    assert not torch.allclose(network(texts.flip(2))[0], answers[0], atol=1e-3)
    padded = longer.requires_grad_()
    (gradient,) = torch.autograd.grad(network(padded).logsumexp(1).sum(), padded)
    assert (gradient[1, :, 4:] == 0).all()
    assert (gradient[1, :, :4] != 0).all()


@pytest.mark.slow
def test_the_command_line_trains_and_examines_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_texts(tmp_path / "train.parquet", (80, 70, 60, 50)), tmp_path / "one.pt"
    own = (
        "--data.tokens",
        "12",
        "--data.vocabulary",
        "120",
        "--epochs",
        "20",
        "--method",
        "at-bsl",
        "--attack.eps",
        "0.05",
    )
    assert main(["train", "--data.source", str(source), *own, "--out", str(out)]) == 0
    assert "training texts" in capsys.readouterr().out
    kept, card = tmp_path / "kept.parquet", tmp_path / "card.md"
    assert main(["evaluate", str(out), "--correctness", str(kept), "--card", str(card)]) == 0
    told = capsys.readouterr().out
    assert "test texts; accuracies in percent" in told
    table = pq.read_table(kept)
    right = {name: np.mean(table[name].to_numpy()) for name in ("clean", "pgd20", "edit1", "edit2")}
    assert right["clean"] > 0.9
    assert right["edit2"] <= right["edit1"] < right["clean"]
    assert "edit-2 (greedy, 48 candidates)" in card.read_text()
    with pytest.raises(UserError, match="needs inputs with a range"):
        main(["evaluate", str(out), "--attack", "standard"])
    (tmp_path / "lines.txt").write_text("Where is my PIN?\n\nthe exchange of dollars today\n")
    write_rows(tmp_path / "rows.csv", [{"n": 1, "text": "lost my plastic card"}])
    answers = tmp_path / "answers.json"
    inputs = [str(tmp_path / name) for name in ("lines.txt", "rows.csv")]
    assert main(["predict", str(out), *inputs, "--attack", "--out", str(answers)]) == 0
    found = json.loads(answers.read_text())
    assert [one["text"].rpartition("/")[2] for one in found] == [
        "lines.txt line 1",
        "lines.txt line 3",
        "rows.csv row 0",
    ]
    assert [one["label"] for one in found] == ["0", "3", "0"]
    assert {one["stands"] for one in found} <= {True, False}
    with pytest.raises(UserError, match=r"--eps 0\.1: texts are attacked by edits, which have no radius"):
        main(["predict", str(out), *inputs, "--attack", "--eps", "0.1"])
    capsys.readouterr()
    assert main(["export", str(out), "--to", "onnx"]) == 0
    assert "compared on test texts: 48 of 48 have the same class" in capsys.readouterr().out
    (tmp_path / "lines.txt").write_text("my card\n12345 67890\n")
    with pytest.raises(UserError, match=r"lines.txt line 2: none of its words is known from the training texts"):
        main(["predict", str(out), inputs[0]])


@pytest.mark.skipif(not BANKING.exists(), reason="the questions to a bank are not here")
def test_the_questions_to_a_bank_are_read() -> None:
    splits = load_splits(DataConfig(source=str(BANKING)))
    assert splits.shape == (64, 32)
    assert len(splits.class_names) == 77
    assert splits.imbalance_ratio == pytest.approx(187 / 35)
