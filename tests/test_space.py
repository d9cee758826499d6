"""What is searched: every point is a configuration that can be run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from ltsd.config import Config
from ltsd.errors import UserError
from ltsd.knobs import Value
from ltsd.methods import METHODS
from sweeps.settings.groups import GROUPS, SHARED, groups_named, groups_of
from sweeps.study.space import published_defaults, search_space

ALL_METHODS = pytest.mark.parametrize("method", METHODS)
SOURCES = ("digits", "cifar10", "cifar100")
ratios = st.sampled_from([1.0, 1.5, 2.0, 10.0, 50.0, 100.0]) | st.floats(1, 1000)


def points(space: dict[str, BaseDistribution]) -> st.SearchStrategy[dict[str, Value]]:
    drawn: dict[str, st.SearchStrategy[Value]] = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            drawn[name] = st.sampled_from(distribution.choices)
        else:
            assert isinstance(distribution, FloatDistribution)
            drawn[name] = st.floats(distribution.low, distribution.high)
    return st.fixed_dictionaries(drawn)


@ALL_METHODS
@given(source=st.sampled_from(SOURCES), ratio=ratios, data=st.data())
def test_every_point_is_a_valid_configuration(method: str, source: str, ratio: float, data: st.DataObject) -> None:
    base = Config.preset(source).override({"method": method})
    point = data.draw(points(search_space(base, ratio, fixed=(), groups=GROUPS)))
    flat = base.override(point).flatten()
    assert {name: flat[name] for name in point} == point


@ALL_METHODS
@given(source=st.sampled_from(SOURCES), ratio=ratios)
def test_the_published_defaults_lie_in_the_space(method: str, source: str, ratio: float) -> None:
    base = Config.preset(source).override({"method": method})
    space = search_space(base, ratio, fixed=(), groups=GROUPS)
    defaults = published_defaults(base, ratio, space)
    assert list(defaults) == list(space)
    for name, value in defaults.items():
        assert space[name]._contains(space[name].to_internal_repr(value)), name
        if name != "balance.teacher_gamma":
            assert value == base.flatten()[name]


@ALL_METHODS
def test_what_the_user_fixed_is_not_searched(method: str) -> None:
    base = Config().override({"method": method})
    whole = search_space(base, 50.0, fixed=(), groups=GROUPS)
    assert whole
    for name in whole:
        assert list(search_space(base, 50.0, fixed={name, "epochs"}, groups=GROUPS)) == [
            other for other in whole if other != name
        ]
    assert search_space(base, 50.0, fixed=set(whole), groups=GROUPS) == {}


def test_a_method_searches_no_knob_that_it_does_not_read() -> None:
    searched = {
        method: set(search_space(Config().override({"method": method}), 50.0, (), GROUPS)) for method in METHODS
    }
    assert searched["ltsd"] >= {
        "distill.temperature",
        "distill.kl_weight",
        "distill.igdm_weight",
        "balance.softmax_tau",
        "balance.teacher_gamma",
    }
    assert not {name for name in searched["at-bsl"] if name.startswith("distill.") or "teacher" in name}
    for method in ("at", "natural"):
        assert not {name for name in searched[method] if name.startswith(("distill.", "balance.", "teacher."))}
    for method in METHODS:
        assert searched[method] >= {"optim.lr", "optim.batch_size", "optim.weight_decay", "optim.ema_decay"}


def test_groups_are_a_methods_own_and_what_methods_share() -> None:
    assert groups_of("ltsd") == ("distill", *SHARED)
    assert groups_of("at") == ("balance", "optim", "fine-tune", "plugins")
    assert groups_named(None, "trades") == ("trades", "balance", "optim")
    assert groups_named("plugins, distill", "ltsd") == ("distill", "plugins")
    assert groups_named("distill,optim", "at-bsl") == ("optim",)
    for group in GROUPS:
        space = search_space(Config(), 20.0, (), (group,))
        assert bool(space) == (group in groups_of("ltsd"))
    with pytest.raises(
        UserError, match=r"--search optims: 'optims' is no group of knobs; at has balance, optim, fine-tune, plugins; "
    ):
        groups_named("optims", "at")


def test_choices_are_whole_where_the_knob_is_and_the_default_is_one_of_them() -> None:
    space = search_space(Config.preset("digits"), 20.0, (), GROUPS)
    assert space["teacher.epochs"] == CategoricalDistribution([4, 7, 14, 28])
    assert space["optim.batch_size"] == CategoricalDistribution([32, 64, 128])
    dense = search_space(Config.preset("digits-scenes"), 210.0, (), GROUPS)
    assert dense["optim.batch_size"] == CategoricalDistribution([8])  # smaller ones cost as much as they bring noise
    assert dense["balance.teacher_gamma"] == CategoricalDistribution([1.0, 52.5, 105.0, 210.0])


@pytest.mark.parametrize(
    ("ratio", "gammas"),
    [(50.0, (1.0, 12.5, 25.0, 50.0)), (20.0, (1.0, 5.0, 10.0, 20.0)), (2.0, (1.0, 2.0)), (1.0, (1.0,))],
)
def test_gamma_lies_on_a_grid_so_that_trials_share_teachers(ratio: float, gammas: tuple[float, ...]) -> None:
    distribution = search_space(Config(), ratio, (), GROUPS)["balance.teacher_gamma"]
    assert isinstance(distribution, CategoricalDistribution)
    assert distribution.choices == gammas
