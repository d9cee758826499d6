"""Trained encoders of Hugging Face's transformers: read as they are, attacked, trained, exported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from bits import same_bits
from textsets import COMMON, WORDS, texts_of, write_texts
from torch import Tensor

from ltsd.__main__ import main
from ltsd.config import Config, ModelConfig
from ltsd.data import Splits, load_splits
from ltsd.data.encoder_vocabulary import encoder_vocabulary
from ltsd.data.sources import decoded, read_decoded
from ltsd.data.vocabulary import PADDING, UNKNOWN
from ltsd.encoders import pieces_of
from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.models import build_model, check_model
from ltsd.packages import MissingPackageError
from ltsd.runs import Run, load_model, open_run
from ltsd.tasks import check_task

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")

LENGTH = 12
SMALL: Mapping[str, Value] = {
    "task": "text",
    "epochs": 2,
    "data.tokens": LENGTH,
    "data.augmentation": "word-dropout",
    "attack.steps": 2,
    "attack.eps": 0.05,
    "optim.optimizer": "adamw",
    "optim.lr": 3e-3,
    "optim.batch_size": 16,
    "teacher.epochs": 1,
    "evaluate.every": 1,
    "evaluate.steps": 1,
}


def words() -> list[str]:
    return sorted({word for own in WORDS.values() for word in own} | set(COMMON))


def word_pieces() -> Any:
    """A tokenizer like BERT's, whose first piece is not the padding."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["[CLS]", "[UNK]", "[SEP]", "?", "!", "[PAD]", *words(), *"xyz", *(f"##{letter}" for letter in "xyz")]
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.decoder = normalizers.BertNormalizer(lowercase=True), decoders.WordPiece()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", 0), ("[SEP]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def unigrams() -> Any:
    """A tokenizer like XLM-RoBERTa's: pieces in a list, two after every text and none before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"?!", *(f"▁{word}" for word in words()), *"xyz"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s> <s>", special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )


@pytest.fixture(scope="module", params=[word_pieces, unigrams])
def any_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept(tmp_path_factory.mktemp("encoder"), request.param())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kept(tmp_path_factory.mktemp("bert"), word_pieces())


def kept(folder: Path, tokenizer: Any) -> Path:
    """A small BERT of a tokenizer, with weights at random, as transformers keeps it."""
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    about = transformers.BertConfig(
        vocab_size=len(tokenizer) + 3,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=LENGTH + 2,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
    )
    transformers.BertModel(about).save_pretrained(folder)
    return folder


def vectors_of(folder: Path, texts: list[str]) -> Tensor:
    vocabulary = encoder_vocabulary(str(folder))
    return vocabulary.vectors[torch.from_numpy(vocabulary.numbers(texts, LENGTH)).long()].transpose(1, 2)


def test_it_reads_texts_as_transformers_does(any_folder: Path) -> None:
    texts = [texts_of(0, 1)[0], "Card, please xyx!", "lost"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(any_folder)
    reference = transformers.AutoModel.from_pretrained(any_folder).eval()
    network = build_model(ModelConfig(name=f"transformers/{any_folder}"), 16, 3).eval()
    asked = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    read = asked["attention_mask"][..., None]
    with torch.no_grad():
        hidden = reference(**asked).last_hidden_state
        torch.testing.assert_close(
            network.features(vectors_of(any_folder, texts)), (hidden * read).sum(1) / read.sum(1)
        )


def test_its_pieces_keep_their_texts_and_what_is_unknown_is_told_apart(any_folder: Path) -> None:
    vocabulary = encoder_vocabulary(str(any_folder))
    numbers = vocabulary.numbers(["where is my card", "lost ж"], LENGTH)
    assert vocabulary.text(numbers[0].tolist()) == "where is my card"
    assert (numbers[0] > UNKNOWN).sum() == 4
    assert UNKNOWN in numbers[1]
    assert (numbers[:, 4:] == PADDING).all()
    assert not vocabulary.vectors[PADDING].any()
    assert (vocabulary.vectors[2:].norm(dim=1) > 0).all()


def test_only_the_words_of_a_text_have_a_gradient(folder: Path) -> None:
    network = build_model(ModelConfig(name=f"transformers/{folder}"), 16, 3)
    inputs = vectors_of(folder, ["lost my card"]).requires_grad_()
    (gradient,) = torch.autograd.grad(network(inputs).logsumexp(1).sum(), inputs)
    assert (gradient[0, :, :3] != 0).all()
    assert all(parameter.grad is None for parameter in network.parameters())
    network(inputs).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.features.parameters())


def config_of(source: Path, folder: Path, **knobs: Value) -> Config:
    return Config().override({**SMALL, "data.source": str(source), "model.name": f"transformers/{folder}", **knobs})


def test_ltsd_trains_it_and_resumes_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    config = config_of(write_texts(tmp_path / "train.parquet", (30, 20, 15, 12)), folder)
    assert config.data.encoder == str(folder)
    splits, path = load_splits(config.data), tmp_path / "one.pt"
    assert check_task(config, splits.train) == f"weights: those of {folder}"
    torch.manual_seed(1)
    teacher = build_model(config.model, 16, 4).eval().requires_grad_(False)

    def opened(resume: Path | None) -> Run:
        return open_run(config, splits, splits.train, splits.val, torch.device("cpu"), teacher=teacher, resume=resume)

    run = opened(None)
    epochs = run.epochs()
    assert next(epochs).values["train/igdm_loss"] > 0
    run.save(path)
    list(epochs)
    resumed = opened(path)
    list(resumed.epochs())
    assert same_bits(resumed.state.model.state_dict(), run.state.model.state_dict())


@pytest.mark.slow
def test_the_command_line_trains_examines_predicts_and_exports_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "train.parquet", (60, 50, 40, 30)), tmp_path / "one.pt"
    flags = [word for name, value in SMALL.items() if name != "task" for word in (flag_of(name), str(value))]
    network = ["--model.name", f"transformers/{folder}", "--method", "natural", "--epochs", "10"]
    assert main(["train", "--data.source", str(source), *flags, *network, "--out", str(out)]) == 0
    assert f"weights: those of {folder}" in capsys.readouterr().out
    assert main(["evaluate", str(out)]) == 0
    assert "edit2" in capsys.readouterr().out
    for form in ("onnx", "torch-export"):
        assert main(["export", str(out), "--to", form, "--out", str(tmp_path / form)]) == 0
    lines = ["my card is lost", "where is the cash machine", "exchange my dollar notes, please!"]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    capsys.readouterr()
    assert main(["predict", str(out), str(tmp_path / "lines.txt")]) == 0
    told = [line.split(",")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    model, _ = load_model(out, torch.device("cpu"))
    assert told == [str(label) for label in model(vectors_of(folder, lines)).argmax(1).tolist()]


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def emptied(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


def without_tokenizer(folder: Path, source: Path) -> str:
    folder.mkdir()
    for file in source.glob("*"):
        if "token" not in file.name:
            (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


def test_a_folder_that_holds_no_encoder_is_told(folder: Path, tmp_path: Path) -> None:
    for spoiled, told in (
        (str(tmp_path / "none"), "no such folder; give the folder in which transformers keeps an encoder"),
        (emptied(tmp_path / "empty"), "holds no encoder that transformers can read"),
        (without_tokenizer(tmp_path / "half", folder), "holds no tokenizer of the library tokenizers; give the folder"),
    ):
        with pytest.raises(UserError, match=told):
            encoder_vocabulary(spoiled)


def test_texts_that_are_too_long_or_have_other_vectors_and_images_are_refused(
    folder: Path, tmp_path: Path, small: Config, splits: Splits
) -> None:
    model = ModelConfig(name=f"transformers/{folder}")
    with pytest.raises(UserError, match=rf"does not take texts of {LENGTH + 1} word pieces .*--data\.tokens"):
        check_model(model, (16, LENGTH + 1))
    with pytest.raises(UserError, match=r"vectors of 64 numbers .*no other --data\.encoder"):
        check_model(model, (64, LENGTH))
    with pytest.raises(UserError, match="begins with the weights in its folder; leave the flag out"):
        check_model(ModelConfig(name=model.name, weights="pretrained"), (16, LENGTH))
    with pytest.raises(UserError, match="has a width of its own"):
        check_model(ModelConfig(name=model.name, width=16), (16, LENGTH))
    with pytest.raises(UserError, match="does not answer for an image"):
        check_task(small.override({"model.name": model.name, "model.width": None}), splits.train)


def test_another_encoder_in_its_folder_is_noticed(tmp_path: Path) -> None:
    folder = kept(tmp_path / "encoder", word_pieces())
    config = config_of(write_texts(tmp_path / "train.parquet", (30, 20, 15, 12)), folder)
    place = decoded(config.data)
    before = read_decoded(place).fingerprint
    weights = folder / "config.json"
    weights.write_text(json.dumps(json.loads(weights.read_text()) | {"layer_norm_eps": 1e-3}))
    with pytest.raises(UserError, match="is not the encoder with which the texts were read"):
        load_splits(config.data, folder=place)
    assert decoded(config.data) != place
    assert read_decoded(decoded(config.data)).fingerprint != before


def test_a_package_that_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltsd.packages.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"an encoder needs transformers.*\.\[transformers\]"):
        pieces_of(str(folder))
