"""Configurations: how they are read, and what they become."""

import jax
import numpy as np
import pytest
from tiny import QUICK, TINY, after_a_round, edited

from fedjax_lite.configuration.build import build, parts
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.data import load_data, outputs_of
from fedjax_lite.configuration.registry import KINDS, names
from fedjax_lite.configuration.table import Config


@pytest.fixture
def made(tmp_path):
    """Builds a run from the text, with pairs of its text replaced, and overrides."""
    return lambda *replace, overrides=(): build(edited(tmp_path, TINY, *replace, overrides=overrides))


def test_lines_are_found_through_headers_dots_and_lists():
    text = "a.b = 1\n[c]\nd = { e = 1 }\n[[f]]\ng = 1\n[f.h]\ni = 1\n[[f]]\ng = 2\n[f.h]\ni = 2\n"
    where = {("a", "b"): 1, ("c",): 2, ("c", "d", "e"): 3, ("c", "x"): 2, ("f", 0, "g"): 5, ("f", 0, "h", "i"): 7, ("f", 1, "g"): 9}
    where |= {("f", 1, "h", "i"): 11, ("f", 1, "x"): 8}
    for path, line in where.items():
        assert str(Config({}, text, "x").error(path, "m")).startswith(f"x:{line}: ")
    assert str(Config({}, text, "x").error(("z",), "m")) == "x: z: m"


def test_overrides_are_toml_or_plain_text(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(TINY)
    overrides = [
        "model.hidden=[4, 5]",
        "aggregator.name=median",
        "run.converge.patience=2",
        "client.optimizer.learning_rate=1e-2",
        'grid."client.epochs"=[1, 2]',
        "name=b",
        "model.hidden.1=6",
    ]
    values = load(file, overrides).values
    assert values["model"]["hidden"] == [4, 6] and values["aggregator"]["name"] == "median" and values["name"] == "b"
    assert values["grid"] == {"client.epochs": [1, 2]}
    assert values["run"]["converge"] == {"patience": 2} and values["client"]["optimizer"] == {"name": "sgd", "learning_rate": 0.01}


def test_a_place_in_a_list_can_be_overridden(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_bytes(b"\xef\xbb\xbf" + TINY.encode())  # as Windows' editors write it
    chain = 'client.optimizer=[{ name = "clip", max_delta = 1.0 }, { name = "sgd", learning_rate = 0.1 }]'
    config = load(file, [chain, "client.optimizer.1.learning_rate=0.5"])
    assert config.values["client"]["optimizer"][1] == {"name": "sgd", "learning_rate": 0.5}
    assert config.origin(("client", "optimizer", 1, "learning_rate")).place == "--set client.optimizer.1.learning_rate=0.5"


def test_a_configuration_becomes_its_parts(made):
    start = made(
        (
            "[sampling]",
            "uplink = [{ name = 'clip', max_delta = 1e9 }, 'zero_nans']\nepochs = { name = 'constant_schedule', value = 2 }\n[sampling]",
        ),
        (
            "learning_rate = 0.1",
            "learning_rate = { name = 'piecewise_constant_schedule', init_value = 0, boundaries_and_scales = { 2 = 0.5 } }",
        ),
        ("[run]", "adaptive_rate = { power = 0 }\n[engine]\nname = 'packed'\nlanes = 1\n[run]"),
        ("batch_size = 2", "batch_size = 'all'\ngradient_norm = true\nshuffle = false\nprecision = 'bfloat16'"),
    )
    result = start(progress=False)
    algorithm, data, params, _ = start.args
    assert params["params"]["Dense_1"]["kernel"].shape == (3, 3) if "params" in params else params["Dense_1"]["kernel"].shape == (3, 3)
    assert data.size.tolist() == [3, 1]
    assert [record["update_norm"] for record in result.history] == [0] * 4  # a rate of 0
    assert len(result.history) == 4 and "train_accuracy" in result.history[1] and "gradient_norm" in result.history[0]


INNER = "{ name = 'rotate', inner = [{ name = 'clip', max_delta = 1e9 }, { name = 'qsgd', levels = 4 }] }"


@pytest.mark.parametrize(
    "uplink, of_a_number",
    [
        pytest.param(f"{{ name = 'error_feedback', inner = {INNER} }}", None, marks=pytest.mark.deep, id="table"),
        pytest.param("['zero_nans', { name = 'sign' }]", 1, id="list"),
    ],
)
def test_an_uplink_that_wraps_others_takes_a_table_or_a_list(tmp_path, uplink, of_a_number):
    _, metrics = after_a_round(edited(tmp_path, TINY, ("[sampling]", f"uplink = {uplink}\n[sampling]"), *QUICK))
    sent, received = metrics["uplink_bits"], metrics["downlink_bits"]
    assert sent == of_a_number * received / 32 if of_a_number else 0 < sent < received / 2


@pytest.mark.deep
def test_what_compresses_a_message_can_stand_beside_an_optimizer(tmp_path):
    """The server moves a tenth of 21 numbers, those that the mean changes most; nothing of it is what travels."""
    tenth = "[{ name = 'sgd', learning_rate = 1.0 }, { name = 'top_k', share = 0.1 }]"
    config = edited(tmp_path, TINY, ('{ name = "sgd", learning_rate = 1.0 }', tenth), *QUICK)
    source = load_data(config, 0)
    first = parts(config, source, outputs_of(config, source), 0).params
    params, metrics = after_a_round(config)
    assert sum(int((a != b).sum()) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(first), strict=True)) == 2
    assert metrics["uplink_bits"] == metrics["downlink_bits"] == 2 * 32 * 21


def test_an_aggregator_that_wraps_another_takes_a_table(tmp_path):
    nested = '"arc"\nnum_byzantine = 0\ninner = { name = "bucketing", size = 1, inner = { name = "trimmed_mean", num_byzantine = 0 } }'
    found, mean = (after_a_round(edited(tmp_path, TINY, ('"weighted_mean"', rule), *QUICK))[0] for rule in (nested, '"mean"'))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, mean)


@pytest.mark.deep
def test_targets_that_are_numbers_make_a_regression(made):
    numbers = (("y = [0, 1, 1]", "y = [[0.5, 1], [1, 2], [1, 3]]"), ("y = [2]", "y = [[2, 2]]"))
    for name in ("mlp", "linear"):
        hidden = () if name == "mlp" else (("hidden = [3]\n", ""),)
        start = made(*numbers, ('"mlp"', f'"{name}"'), *hidden)
        losses = start.keywords["loss_fn"](start.args[2], start.args[1].examples, None)
        assert losses.shape == (4,)  # the squared distance, without an accuracy
        assert start.args[2]["Dense_1" if name == "mlp" else "Dense_0"]["bias"].shape == (2,)
    assert made(('"mlp"\nhidden = [3]', '"linear"')).args[2]["Dense_0"]["bias"].shape == (3,)  # labels 0, 1, 2


def test_what_a_resumed_run_must_agree_with_is_the_whole_configuration(made):
    for epochs in (2, 0.5):
        assert made(overrides=[f"client.epochs={epochs}"]).keywords["config"]["client"]["epochs"] == epochs


def test_every_name_is_documented_and_describable():
    assert set(KINDS) >= {"data", "partition", "model", "optimizer", "uplink", "schedule", "sampling", "aggregator", "engine"}
    for kind in KINDS:
        for name, factory in names(kind).items():
            assert factory.__doc__, f"{kind} {name} has no docstring"
    assert {"sgd", "adam"} <= set(names("optimizer")) and {"clip_by_global_norm", "trace"} <= set(names("transform"))
    assert not {"chain", "masked", "lbfgs", "dpsgd", "inject_hyperparams", "scale_by_schedule"} & {*names("optimizer"), *names("transform")}
    assert "linear_schedule" in names("schedule") and "join_schedules" not in names("schedule")
    assert "cohort" not in names("sampling") and "from_stack" not in names("aggregator") and "from_linen" not in names("model")
