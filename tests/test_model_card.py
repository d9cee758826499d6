"""The model card: every number in its cell, and what was not measured called so."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from ltsd.config import Config
from ltsd.methods import METHODS
from ltsd.model_card import ModelFacts, model_card
from ltsd.models import build_model

RECALLS = {
    "clean": [1.0, 0.75, 0.5, 0.25],
    "fgsm": [1.0, 0.75, 0.25, 0.0],
    "pgd20": [0.75, 0.5, 0.25, 0.0],
    "cw20": [0.75, 0.25, 0.25, 0.0],
    "ls20": [0.75, 0.5, 0.25, 0.0],
}
AA = {"aa": [0.5, 0.25, 0.0, 0.0]}
FACTS = ModelFacts(
    config=Config.preset("digits").override({"optim.lr": 0.05, "attack.eps": 8 / 255}),
    shape=(1, 8, 8),
    class_names=("cat", "a|b", "dog", "*rare*"),
    class_counts=(40, 20, 10, 5),
    test_counts=(4, 4, 16, 4),
    simulated=False,
    test_held_out=True,
    copies={"examples both trained on and tested on": 3},
    exam={"images": 28, "per_class": RECALLS, "doubts": []},
)


def exam(recalls: Mapping[str, list[float]], *doubts: str) -> dict[str, object]:
    return {"images": 28, "per_class": dict(recalls), "doubts": list(doubts)}


def section(card: str, heading: str) -> str:
    return card.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, without the line below its head."""
    found = [part.splitlines() for part in text.split("\n\n") if part.lstrip().startswith("|")]
    return [
        [
            [cell.strip() for cell in line.replace("\\|", "¦").split("|")[1:-1]]
            for line in lines
            if not line.startswith("|-") and line
        ]
        for lines in found
    ]


def test_every_accuracy_is_in_the_cell_of_its_attack_and_group() -> None:
    card = model_card(replace(FACTS, exam=exam(RECALLS | AA)))
    (results,) = tables(section(card, "Results"))
    assert results == [
        ["", "all classes", "head", "medium", "tail", "worst class"],
        ["clean", "62.5", "100.0", "62.5", "25.0", "25.0"],
        ["FGSM", "50.0", "100.0", "50.0", "0.0", "0.0"],
        ["PGD-20", "37.5", "75.0", "37.5", "0.0", "0.0"],
        ["CW-20", "31.2", "75.0", "25.0", "0.0", "0.0"],
        ["LSA-20", "37.5", "75.0", "37.5", "0.0", "0.0"],
        ["corruptions", "not measured", "–", "–", "–", "–"],
        ["AutoAttack", "18.8", "50.0", "12.5", "0.0", "0.0"],
    ]
    assert "62.5% correctly as they are and 18.8% under AutoAttack with eps 8/255" in card


def test_every_class_has_its_counts_and_recalls() -> None:
    (classes,) = tables(section(model_card(replace(FACTS, exam=exam(RECALLS | AA))), "Classes"))
    assert classes == [
        ["class", "group", "training", "test", "clean", "AutoAttack"],
        ["cat", "head", "40", "4", "100.0", "50.0"],
        ["a¦b", "medium", "20", "4", "75.0", "25.0"],
        ["dog", "medium", "10", "16", "50.0", "0.0"],
        ["\\*rare\\*", "tail", "5", "4", "25.0", "0.0"],
    ]


def test_without_the_standard_version_nothing_is_called_autoattack() -> None:
    half = {"apgd_ce_t": [0.5, 0.25, 0.25, 0.0]}
    card = model_card(replace(FACTS, exam=exam(RECALLS | half)))
    (results,) = tables(section(card, "Results"))
    assert results[-2:] == [
        ["AutoAttack", "not measured", "–", "–", "–", "–"],
        ["APGD-CE+T", "25.0", "50.0", "25.0", "0.0", "0.0"],
    ]
    assert "25.0% under APGD-CE+T" in card
    assert "AutoAttack, the standard of the field, was not run" in section(card, "Limits")


def test_without_an_ensemble_the_attack_that_leaves_the_least_counts() -> None:
    card = model_card(FACTS)
    assert "31.2% under CW-20" in card
    assert tables(section(card, "Classes"))[0][0][-1] == "CW-20"


def test_models_of_several_seeds_are_told_by_mean_and_deviation_beside_this_one() -> None:
    other = {attack: [max(0.0, recall - 0.25) for recall in recalls] for attack, recalls in RECALLS.items()}
    card = model_card(replace(FACTS, of_seeds=[exam(RECALLS), exam(other)]))
    this, seeds = tables(section(card, "Results"))
    assert this[1][:2] == ["clean", "62.5"]
    assert seeds[0] == this[0]
    assert seeds[1] == ["clean", "50.0 ± 17.7", "87.5 ± 17.7", "50.0 ± 17.7", "12.5 ± 17.7", "12.5 ± 17.7"]
    assert "The same of 2 models" in card
    assert "One training run was measured" not in card
    assert "One training run was measured" in model_card(replace(FACTS, of_seeds=[exam(RECALLS)]))


def test_the_limits_tell_what_so_few_test_images_can_show() -> None:
    limits = section(model_card(FACTS), "Limits")
    assert "A class has 4 to 16 test images. Of 4, one is 25.0 points" in limits
    assert "standard error is up to 25.0 points" in limits
    assert "each robust accuracy is an upper bound" in limits
    assert "No other threat model was measured" in limits
    assert "Nothing is claimed of other data" in limits
    assert "3 examples both trained on and tested on" in limits


def test_doubts_of_the_exam_stand_before_its_numbers() -> None:
    doubt = "the gradient is exactly zero on 20.0% of 28 images"
    doubted = model_card(replace(FACTS, exam=exam(RECALLS, doubt)))
    assert doubted.index(f"- {doubt}\n") < doubted.index("## Results")
    assert "none found" not in doubted
    sound = model_card(FACTS)
    assert "Warning" not in sound
    assert "gradient masking, by which attacks fail without robustness: none found" in sound
    unknown = model_card(replace(FACTS, exam={"images": 28, "per_class": RECALLS}))
    assert "gradient masking, by which attacks fail without robustness: not measured" in unknown


def test_model_data_and_threat_are_those_of_the_configuration() -> None:
    card = model_card(FACTS)
    (knobs,) = tables(section(card, "Configuration"))
    assert knobs == [["knob", "value", "default"], ["attack.eps", "0.0313725", "0.1"], ["optim.lr", "0.05", "0.1"]]
    assert "by at most eps = 8/255" in section(card, "Threat model")
    assert "steps of 0.007843 from" in section(card, "Threat model")
    data = section(card, "Data")
    assert "Training: 75 images, 5 to 40 a class; imbalance ratio 8; long tail: that of the source" in data
    assert "Medium: 2 classes, 10 to 20 images" in data
    assert "Test: 28 images, 0.3 of every class" in data
    assert "Every knob has its default" in model_card(replace(FACTS, config=Config.preset("digits")))


@pytest.mark.parametrize("method", ["ltsd", "robal"])
def test_the_parameters_are_those_of_the_network(method: str) -> None:
    config = FACTS.config.override({"method": method, "model.name": "small-resnet"})
    network = build_model(config.model, 1, 4, METHODS[method].head)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"small-resnet of width 16, {count:,} parameters" in model_card(replace(FACTS, config=config))


def test_two_classes_have_no_medium() -> None:
    recalls = {attack: values[:2] for attack, values in RECALLS.items()}
    two = replace(FACTS, class_names=("a", "b"), class_counts=(9, 3), test_counts=(4, 4), exam=exam(recalls))
    card = model_card(two)
    assert tables(section(card, "Results"))[0][0] == ["", "all classes", "head", "tail", "worst class"]
    assert "Medium" not in card


def test_a_model_of_label_maps_is_told_in_pixels_and_iou_and_a_class_that_occurs_nowhere_counts_in_no_mean() -> None:
    overlaps = {"clean": [0.75, 0.5, 0.25, math.nan], "sea20": [0.5, 0.25, 0.0, 0.0], "worst": [0.5, 0.25, 0.0, 0.0]}
    maps = replace(FACTS, config=Config.preset("digits-scenes"), exam=exam(overlaps))
    card = model_card(maps)
    assert "the mean IoU over classes is 50.0% as they are and 18.8% under the worst of 6 attacks" in card
    (results,) = tables(section(card, "Results"))
    assert results[1] == ["clean", "50.0", "75.0", "37.5", "nan", "25.0"]
    assert ["SEA-20", "18.8", "50.0", "12.5", "0.0", "0.0"] in results
    assert "SEA-300" not in [row[0] for row in results]
    limits = section(card, "Limits")
    assert "A class has 4 to 16 test pixels" in limits
    assert "SEA with 300 steps, as published, was not run" in limits
    assert "gradient masking, by which attacks fail without robustness: not measured" in limits
    assert "Training: 75 pixels, 5 to 40 a class" in section(card, "Data")
    assert "logits [N, H, W, 4]" in section(card, "Model")
    for word in ("recall", "AutoAttack", "Accuracy"):
        assert word not in card
