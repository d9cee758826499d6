"""The command line: one flag per knob, typed, and one line for a mistake."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltsd.__main__ import main as command_line
from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.flags import Parser, add_flags, exit_code_of, values_set
from ltsd.knobs import Value, walk


def parser() -> Parser:
    made = Parser("prog")
    add_flags(made, Config(), aliases={"data": "data.source"}, presets=Config.presets())
    return made


def read(*arguments: str) -> dict[str, Value]:
    return values_set(parser().parse_known(arguments), Config())


def test_only_the_flags_that_were_set_are_returned() -> None:
    assert read() == {}
    assert read("--epochs", "60", "--distill.temperature=2") == {"epochs": 60, "distill.temperature": 2.0}


@given(st.integers(1, 10**6).flatmap(lambda below: st.tuples(st.integers(1, below), st.just(below))))
def test_fractions_are_read_exactly(fraction: tuple[int, int]) -> None:
    above, below = fraction
    assert read("--attack.eps", f"{above}/{below}") == {"attack.eps": above / below}


def test_help_spells_every_flag_one_way() -> None:
    parser = Parser("test")
    add_flags(parser, Config())
    told = parser.format_help()
    assert "--optim.weight-decay" in told
    assert "--optim.weight_decay" not in told


@pytest.mark.parametrize("flag", ["--distill.kl-weight", "--distill.kl_weight"])
def test_hyphen_and_underscore_name_the_same_knob(flag: str) -> None:
    assert read(flag, "0.5") == {"distill.kl_weight": 0.5}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("False", False)])
def test_booleans_are_true_or_false(text: str, value: bool) -> None:
    assert read("--teacher.adversarial", text) == {"teacher.adversarial": value}


def test_data_is_short_for_data_source() -> None:
    assert read("--data", "cifar10") == read("--data.source", "cifar10") == {"data.source": "cifar10"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--teacher.adversarial", "0"], "--teacher.adversarial 0: expected true or false"),
        (["--epochs", "1.5"], "--epochs 1.5: expected a whole number"),
        (["--attack.eps", "8/0"], "--attack.eps 8/0: expected a number or a fraction such as 8/255"),
        (["--attack.eps", "eight"], "expected a number or a fraction such as 8/255"),
        (["--attack.eps", "8"], "write 8/255, not 8"),
        (["--attack.eps"], "expected one argument"),
        (["--distill.temprature", "2"], "'--distill.temprature'; did you mean '--distill.temperature'"),
        (["--distill.temprature=2"], "did you mean '--distill.temperature'"),
        (["--epoch", "3"], "'--epoch'; did you mean '--epochs'"),
        (["stray"], "unknown argument 'stray'"),
    ],
)
def test_a_mistake_is_told_with_its_remedy_and_nothing_is_guessed(arguments: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert said in str(caught.value)


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_help_tells_what_every_knob_does() -> None:
    shown = squeezed(parser().format_help())
    for name, _, _, item in walk(Config()):
        assert squeezed(f"--{name.replace('_', '-')}") in shown
        assert squeezed(item.metadata["help"]) in shown


@pytest.mark.parametrize(
    "told",
    [
        "epochs of the student (default: 100; digits: 40; digits-scenes: 25; other label maps: 30; "
        "other boxes: 30; sound: 30; texts: 20; at "
        "least 1)",
        "cifar100: 0.03137; other label maps: 0.01569; other boxes: 0.01569; "
        "sound: 0.002; other data: 0.03137; above 0 and at most "
        "1)",
        "a PGD step (default: eps / 4; digits-scenes: 0.025; other label maps: 0.007843; "
        "other boxes: 0.007843; sound: 0.001; texts: 0.05; above "
        "0 and at most 1)",
        "softmax temperature of the distillation term (default: 1; above 0; a sweep tries 0.5 to 8)",
        "highest learning rate (default: 0.1; texts: 0.05; above 0; a sweep tries 0.2 to 3 times the default)",
        "false: on clean images (default: true)",
    ],
)
def test_help_tells_the_default_of_each_kind_of_data_the_limits_and_what_a_sweep_tries(told: str) -> None:
    assert squeezed(told) in squeezed(parser().format_help())


def test_of_subcommands_the_flags_of_the_chosen_one_are_proposed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: command_line(["evaluate", "one.pt", "--data", "cifar10"])) == 2
    assert "did you mean '--data" not in capsys.readouterr().err
    assert exit_code_of(lambda: command_line(["evaluate", "one.pt", "--correct", "one.parquet"])) == 2
    assert "did you mean '--correctness'?" in capsys.readouterr().err


def test_a_mistake_ends_with_code_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(lambda: len(read("--epochs", "0"))) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "error: epochs = 0 is out of range: it must be at least 1\n"


def test_the_exit_code_of_a_command_passes_through_and_so_does_a_defect() -> None:
    assert exit_code_of(lambda: 130) == 130
    with pytest.raises(ZeroDivisionError):
        exit_code_of(lambda: 1 // 0)
