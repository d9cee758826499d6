"""Knobs: names, types, ranges and what the user is told of a mistake."""

import dataclasses
import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value, walk

KNOBS = {name: (hint, item.metadata) for name, _, hint, item in walk(Config())}


def valid_values(hint: Any, metadata: Any) -> st.SearchStrategy[Value]:
    kinds = get_args(hint) or (hint,)
    limits = metadata["limits"]
    low = limits["above"] if limits["at least"] is None else limits["at least"]
    high = limits["below"] if limits["at most"] is None else limits["at most"]
    values: st.SearchStrategy[Value]
    if metadata["choices"]:
        values = st.sampled_from(metadata["choices"])
    elif bool in kinds:
        values = st.booleans()
    elif int in kinds:
        step = limits["a multiple of"] or 1
        values = st.integers(math.ceil(low / step), (high or 10**6) // step).map(lambda number: number * step)
    elif float in kinds:
        values = st.floats(
            low,
            high,
            allow_nan=False,
            allow_infinity=False,
            exclude_min=limits["above"] is not None,
            exclude_max=limits["below"] is not None,
        )
    else:
        values = st.text()
    return st.none() | values if type(None) in kinds else values


VALID = {name: valid_values(*knob) for name, knob in KNOBS.items()}


@settings(max_examples=40)
@given(st.fixed_dictionaries({}, optional=VALID))
def test_override_sets_the_named_knobs_and_no_other_and_flatten_reads_them_back(chosen: dict[str, Value]) -> None:
    flat = Config().override(chosen).flatten()
    assert flat == Config().flatten() | chosen
    assert {name: type(flat[name]) for name in chosen} == {name: type(value) for name, value in chosen.items()}
    assert Config().override(flat) == Config().override(chosen)


@pytest.mark.parametrize("source", ["digits", "cifar10", "cifar100", "/data/birds.parquet"])
def test_presets_are_valid_and_keep_their_source(source: str) -> None:
    preset = Config.preset(source)
    assert preset.data.source == source
    assert Config().override(preset.flatten()) == preset


@pytest.mark.parametrize("source", ["cifar10", "cifar100", "folder-of-images"])
def test_the_preset_of_photographs_is_the_published_recipe(source: str) -> None:
    published: dict[str, Value] = {
        "epochs": 100,
        "optim.lr": 0.1,
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
        "optim.batch_size": 128,
        "attack.eps": 8 / 255,
        "attack.steps": 10,
        "evaluate.steps": 20,
        "data.augmentation": "crop-flip",
        "model.name": "resnet18",
        "model.width": None,
        "distill.temperature": 1.0,
        "distill.kl_weight": 1.0,
        "distill.igdm_weight": 10.0 if source == "cifar100" else 1.0,
        "balance.softmax_tau": 1.0,
    }
    preset = Config.preset(source)
    flat = preset.flatten()
    assert {name: flat[name] for name in published} == published
    assert preset.attack.resolved_step_size == pytest.approx(2 / 255)


def test_the_step_size_that_is_set_is_used() -> None:
    assert Config().override({"attack.eps": 0.2, "attack.step_size": 0.01}).attack.resolved_step_size == 0.01
    assert Config().override({"attack.eps": 0.2}).attack.resolved_step_size == 0.05


def test_an_unknown_name_suggests_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"'distil\.temperature'; did you mean 'distill\.temperature'"):
        Config().override({"distil.temperature": 2.0})


def test_a_name_unlike_any_suggests_nothing() -> None:
    with pytest.raises(UserError, match=r"'zzz'$"):
        Config().override({"zzz": 1})


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("attack.eps", 8, "write 8/255, not 8"),
        ("attack.step_size", 2, "write 2/255, not 2"),
        ("distill.temperature", 0, "above 0"),
        ("data.imbalance_ratio", 0.5, "it is n_max / n_min; some code bases write its inverse"),
        ("model.width", 12, "a multiple of 8"),
        ("optim.momentum", 1.0, "below 1"),
        ("data.val_fraction", 0.0, "above 0 and below 1"),
        ("epochs", 0, "at least 1"),
        ("seed", -1, "at least 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_knob_value_and_remedy(name: str, value: Value, remedy: str) -> None:
    with pytest.raises(UserError, match=rf"{name} = {value}(\.0)? is out of range: it must be .*{remedy}"):
        Config().override({name: value})


@pytest.mark.parametrize("name", [name for name, (hint, _) in KNOBS.items() if float in (get_args(hint) or (hint,))])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_knob_takes_a_number_that_is_not_finite(name: str, value: float) -> None:
    with pytest.raises(UserError, match=name):
        Config().override({name: value})


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("epochs", 1.5, "int"),
        ("epochs", "3", "int"),
        ("epochs", True, "int"),
        ("epochs", None, "int"),
        ("optim.lr", "0.1", "float"),
        ("optim.lr", True, "float"),
        ("data.imbalance_ratio", "50", "float"),
        ("teacher.adversarial", 1, "bool"),
        ("teacher.adversarial", "false", "bool"),
        ("data.source", 10, "str"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Value, kind: str) -> None:
    with pytest.raises(UserError, match=f"{name} = .* is not of type {kind}"):
        Config().override({name: value})


def test_whole_numbers_pass_between_int_and_float() -> None:
    flat = Config().override({"epochs": 3.0, "optim.lr": 1}).flatten()
    assert (flat["epochs"], type(flat["epochs"])) == (3, int)
    assert (flat["optim.lr"], type(flat["optim.lr"])) == (1.0, float)


def test_a_choice_that_does_not_exist_suggests_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"not one of .*at-bsl.*did you mean 'ltsd'"):
        Config().override({"method": "ltds"})


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 2.0  # type: ignore[misc]
