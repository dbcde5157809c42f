"""Local privacy: noise against its distribution, its multiplier against other code, and the bound on any message."""

import itertools
import json
import math
import re

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import refuse, schema
from fedjax_lite.base import Hidden
from fedjax_lite.uplink.local_dp import _gaussian_multiplier, local_gaussian, local_laplace

DRAWS = 20_000
C, Z = 0.5, 1.5
MAKE = {"gaussian": local_gaussian, "laplace": local_laplace}
NORM = {"gaussian": np.linalg.norm, "laplace": lambda x: np.abs(x).sum()}
SCIPY = {"gaussian": scipy.stats.norm, "laplace": scipy.stats.laplace}
both = pytest.mark.parametrize("kind", MAKE)


def sent(transform, message, key=0, **extra):
    """What one client sends."""
    return transform.update(message, transform.init(message), None, key=jax.random.key(key), weight=1.0, **extra)[0]


def drawn(kind, keys=None, message=None, z=Z):
    """Messages of as many clients, each flat: float64 `[clients, coordinates]`."""
    transform = MAKE[kind](clip=C, noise_multiplier=z)
    message = {"b": jnp.zeros(3), "w": jnp.zeros((2, 2))} if message is None else message
    keys = jax.random.split(jax.random.key(5), DRAWS) if keys is None else keys
    stack = jax.jit(jax.vmap(lambda key: transform.update(message, transform.init(message), key=key, round=0)[0]))(keys)
    return np.concatenate([np.asarray(x, np.float64).reshape(len(keys), -1) for x in jax.tree.leaves(stack)], axis=1)


def flat(message):
    return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(message)])


def variance(kind, z=Z):
    return (z * C) ** 2 * (2 if kind == "laplace" else 1)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 4.0, 30.0, 1000.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1, 0.9])
def test_the_multiplier_is_twice_the_exact_one(epsilon, delta):
    z = _gaussian_multiplier(epsilon, delta)
    assert z == pytest.approx(2 * dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-9)
    if epsilon < 100:  # the formula as it stands; above, its exponential overflows
        s, cdf = z / 2, scipy.stats.norm.cdf
        assert cdf(0.5 / s - epsilon * s) - math.exp(epsilon) * cdf(-0.5 / s - epsilon * s) == pytest.approx(delta, rel=1e-5)


def test_the_multiplier_for_epsilon_one_is_that_of_the_table():
    assert _gaussian_multiplier(1.0, 1e-5) == pytest.approx(2 * 3.730632, rel=1e-6)
    assert _gaussian_multiplier(4.377178096, 1e-5) == pytest.approx(2.0, rel=1e-8)


@pytest.mark.parametrize("epsilon", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("delta", [1e-30, 1e-17, 1e-5, 0.9, 1 - 2**-53])
def test_the_multiplier_meets_delta_also_at_the_ends(epsilon, delta):
    """As the mean of max(0, 1 - e^(epsilon - L)) of the privacy loss L ~ N(1 / (2 s^2), 1 / s^2), which nothing cancels in."""
    s = _gaussian_multiplier(epsilon, delta) / 2
    mean = 1 / (2 * s) - epsilon * s  # of u = s (L - epsilon)
    top = max(0, mean) + 10
    ends = sorted((0, min(40 * s, top), max(0, mean), top))

    def density(u):
        return -math.expm1(-u / s) * math.exp(-((u - mean) ** 2) / 2) / math.sqrt(2 * math.pi)

    parts = [scipy.integrate.quad(density, *part, epsabs=0)[0] for part in itertools.pairwise(ends)]
    assert sum(parts) == pytest.approx(delta, rel=1e-6)


def composed(multipliers, delta):
    """epsilon of several rounds, each with noise of its own, by dp-accounting."""
    accountant = dp_accounting.pld.PLDAccountant()
    for z in multipliers:
        accountant.compose(dp_accounting.GaussianDpEvent(z))
    return accountant.get_epsilon(delta)


def test_rounds_add_up_as_the_docstring_says():
    z, rounds = _gaussian_multiplier(1.0, 1e-5), 4
    assert 2 * fl.privacy.calibrate(1.0, 1.0, 1, 1e-5) == pytest.approx(z, rel=1e-4)
    for_all = fl.privacy.calibrate(1.0, 1.0, rounds, 1e-5)
    assert for_all == pytest.approx(math.sqrt(rounds) * z / 2, rel=1e-4)
    uneven = [2 * z, 3 * z, z]  # of which the exact noise is that of the sum of their precisions
    together = sum(1 / one**2 for one in uneven) ** -0.5
    assert fl.privacy.epsilon(together / 2, 1.0, 1, 1e-5) == pytest.approx(composed([one / 2 for one in uneven], 1e-5), rel=1e-3)
    assert fl.privacy.epsilon(z / 2, 1.0, 1, 1e-5) == pytest.approx(1.0, rel=1e-3)
    closed = dp_accounting.get_epsilon_gaussian(
        z / 2 / math.sqrt(rounds), 1e-5
    )  # T Gaussian releases are one with the multiplier / sqrt(T)
    assert fl.privacy.epsilon(z / 2, 1.0, rounds, 1e-5) == pytest.approx(closed, rel=1e-3)


@both
def test_noise_has_its_variance_in_each_coordinate_and_its_distribution(kind):
    x = drawn(kind)
    assert x.shape == (DRAWS, 7)
    if kind == "gaussian":  # sums of squares are chi-square
        statistic = (x**2).sum(axis=0) / variance(kind)
        p = 2 * np.minimum(scipy.stats.chi2.cdf(statistic, DRAWS), scipy.stats.chi2.sf(statistic, DRAWS))
    else:  # 2 |x| / b is chi-square with 2 degrees of freedom
        statistic = 2 * np.abs(x).sum(axis=0) / (Z * C)
        p = 2 * np.minimum(scipy.stats.chi2.cdf(statistic, 2 * DRAWS), scipy.stats.chi2.sf(statistic, 2 * DRAWS))
    assert p.min() * x.shape[1] > 1e-3
    assert scipy.stats.kstest(x.reshape(-1), SCIPY[kind](scale=Z * C).cdf).pvalue > 1e-3


@both
def test_noise_is_independent_between_clients_rounds_and_leaves(kind):
    x = drawn(kind)
    bound = scipy.stats.norm.isf(1e-3 / (2 * 7 * 7)) / math.sqrt(DRAWS)
    leaves = np.corrcoef(x.T) - np.eye(7)
    assert np.abs(leaves).max() < bound
    root = jax.random.key(3)
    keys = [fl.base.client_keys(jax.random.fold_in(root, round), jnp.arange(DRAWS)) for round in (0, 1)]
    first, second = (drawn(kind, each) for each in keys)
    for a, b in ((first, second), (first[:-1], first[1:])):  # rounds, clients
        correlation = (a * b).mean(axis=0) / variance(kind)
        assert np.abs(correlation).max() < bound * 2
    assert len(np.unique(np.concatenate([first, second])[:, 0])) > 1.98 * DRAWS


@both
def test_the_sum_of_messages_has_their_noise_added(kind):
    clients = 50
    sums = drawn(kind).reshape(-1, clients, 7).sum(axis=1)
    spread = (sums**2).mean() / (clients * variance(kind))
    assert abs(spread - 1) < 5 * math.sqrt(2 / sums.size)


any_float = st.floats(width=32, allow_subnormal=False, allow_nan=True, allow_infinity=True)


@both
@given(st.lists(any_float, min_size=1, max_size=5), st.lists(any_float, min_size=1, max_size=3), st.floats(2**-10, 2**10, width=32))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_before_noise_any_message_is_short_enough(kind, w, b, clip):
    message = {"w": jnp.asarray(w + [0] * (5 - len(w)), jnp.float32), "b": jnp.asarray(b + [0] * (3 - len(b)), jnp.float32)}
    short = flat(cut_only(kind, message, jnp.float32(clip)))
    assert np.isfinite(short).all()
    assert NORM[kind](short) <= clip * (1 + 1e-6)


def cut_only(kind, message, clip):
    if kind not in CUT:
        make = MAKE[kind]
        CUT[kind] = jax.jit(lambda message, clip: make(clip, noise_multiplier=0.0).update(message, (), key=jax.random.key(0))[0])
    return CUT[kind](message, clip)


CUT = {}


@both
def test_a_message_is_cut_over_all_leaves_and_a_short_one_is_left(kind):
    rng = np.random.default_rng(0)
    message = {"b": jnp.asarray(rng.normal(size=3), jnp.float32), "w": jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)}
    v = flat(message)
    cut = flat(sent(MAKE[kind](clip=C, noise_multiplier=0.0), message))
    np.testing.assert_allclose(cut, v * C / NORM[kind](v), rtol=1e-6)
    np.testing.assert_array_equal(flat(sent(MAKE[kind](clip=100.0, noise_multiplier=0), message)), v)


@both
def test_what_is_not_finite_counts_as_zero_and_is_hidden_by_noise(kind):
    bad = {"b": jnp.array([jnp.nan, 0.25, -jnp.inf]), "w": jnp.full((2, 2), 3e38)}
    cut = sent(MAKE[kind](clip=C, noise_multiplier=0.0), {"b": bad["b"], "w": jnp.zeros((2, 2))})
    assert cut["b"].tolist() == [0, 0.25, 0]
    private = flat(sent(MAKE[kind](clip=C, noise_multiplier=Z), bad))  # its norm overflows: nothing of it is left
    empty = flat(sent(MAKE[kind](clip=C, noise_multiplier=Z), jax.tree.map(jnp.zeros_like, bad)))
    np.testing.assert_array_equal(private, empty)
    assert (private != 0).all()


@both
def test_half_precision_is_computed_in_float32_and_cast_back(kind):
    message = {"h": jnp.full(4, 200.0, jnp.float16), "w": jnp.ones(2)}
    private = sent(MAKE[kind](clip=C, noise_multiplier=Z), message)
    assert private["h"].dtype == jnp.float16 and private["w"].dtype == jnp.float32
    cut = sent(MAKE[kind](clip=C, noise_multiplier=0.0), {"h": message["h"]})  # squares would overflow in half precision
    np.testing.assert_allclose(NORM[kind](flat(cut)), C, rtol=1e-3)
    wide = sent(MAKE[kind](clip=C, noise_multiplier=Z), jax.tree.map(lambda x: x.astype(jnp.float32), message))
    np.testing.assert_array_equal(private["h"], wide["h"].astype(jnp.float16))


def test_double_precision_stays(x64):
    private = sent(local_gaussian(clip=C, noise_multiplier=Z), jnp.zeros(5, jnp.float64))
    assert private.dtype == jnp.float64 and (private != private.astype(jnp.float32)).any()


def test_a_list_of_epsilons_has_one_a_round_and_past_its_end_nothing_is_given_away():
    for kind, more, z_of in (("gaussian", {"delta": 1e-5}, lambda e: _gaussian_multiplier(e, 1e-5)), ("laplace", {}, lambda e: 2 / e)):
        transform = MAKE[kind](clip=C, epsilon=[4.0, 2, 1.0], **more)
        for round, epsilon in enumerate((4.0, 2.0, 1.0)):
            noise = sent(transform, jnp.zeros(5), round=jnp.int32(round))
            for same in ({"noise_multiplier": z_of(epsilon)}, {"epsilon": epsilon, **more}):
                np.testing.assert_allclose(noise, sent(MAKE[kind](clip=C, **same), jnp.zeros(5)), rtol=1e-6)
        one_round = MAKE[kind](clip=C, epsilon=[4.0], **more)
        assert np.isfinite(sent(one_round, jnp.ones(5), round=0)).all()
        for lost in (
            sent(transform, jnp.ones(5), round=3),
            sent(transform, jnp.ones(5), round=jnp.int32(99)),
            sent(one_round, jnp.ones(5), round=1),
        ):
            assert np.isnan(lost).all()


@both
def test_a_run_longer_than_the_list_learns_nothing_more(kind):
    more = {"delta": 1e-5} if kind == "gaussian" else {}
    algorithm = fl.federate(
        *(fl.sgd_work(softmax_loss, optax.sgd(0.1)), fl.aggregators.mean(), fl.optimizer_server(optax.sgd(1.0))),
        batches=fl.Batches(size=4),
        population=len(SIZES),
        uplink=MAKE[kind](clip=C, epsilon=[4.0, 2.0], **more),
    )
    state, models, lost = algorithm.init(softmax_params(), jax.random.key(0)), [softmax_params()], []
    advance = jax.jit(lambda state: fl.advance(algorithm, softmax_data(), state, fl.sampling.everyone(), rounds=1))
    for _ in range(3):
        state, metrics = advance(state)
        models.append(np.asarray(algorithm.params(state)))
        lost.append(int(metrics["non_finite"][0]))
    assert lost == [0, 0, len(SIZES)]  # all of a round's, and so `fl.run` stops
    assert [bool((a == b).all()) for a, b in itertools.pairwise(models)] == [False, False, True]


@both
def test_a_multiplier_can_follow_a_schedule_or_be_traced(kind):
    z_at = optax.linear_schedule(2.0, 1.0, 2)
    transform = MAKE[kind](clip=C, noise_multiplier=fl.on_round(z_at))
    unit = np.asarray(sent(MAKE[kind](clip=1.0, noise_multiplier=1.0), jnp.zeros(5)))
    for round in range(4):
        np.testing.assert_allclose(sent(transform, jnp.zeros(5), round=round), unit * z_at(round) * C, rtol=1e-6)
    zs = np.array([0.0, 0.5, 2.0], np.float32)
    swept = jax.jit(jax.vmap(lambda z: sent(MAKE[kind](clip=C, noise_multiplier=z), jnp.zeros(5))))(jnp.asarray(zs))
    np.testing.assert_allclose(swept, zs[:, None] * unit * C, rtol=1e-6)
    if kind == "laplace":
        swept = jax.vmap(lambda e: sent(local_laplace(clip=C, epsilon=e), jnp.zeros(5)))(jnp.asarray(zs[1:]))
        np.testing.assert_allclose(swept, 2 / zs[1:, None] * unit * C, rtol=1e-6)


def test_kinds_and_compressors_draw_apart():
    key = jax.random.key(0)
    gaussian = local_gaussian(clip=1.0, noise_multiplier=1.0).update(jnp.zeros(64), (), key=key)[0]
    raw = jax.random.normal(jax.random.fold_in(key, 0), 64)
    assert not jnp.any(gaussian == raw)
    laplace = local_laplace(clip=1.0, noise_multiplier=1.0).update(jnp.zeros(64), (), key=key)[0]
    assert abs(scipy.stats.spearmanr(gaussian, laplace).statistic) < 0.5  # one stream would give the same ranks


@pytest.mark.parametrize(
    ("make", "arguments", "error"),
    [
        (local_gaussian, {"clip": 0.0, "noise_multiplier": 1.0}, "clip must be positive"),
        (local_gaussian, {"clip": 1.0}, "give one of noise_multiplier and epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": 1.0, "epsilon": 1.0, "delta": 0.1}, "give one of noise_multiplier and epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": 1.0, "delta": 0.1}, "delta goes with epsilon"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": -1.0}, "noise_multiplier must be finite and not negative"),
        (local_gaussian, {"clip": 1.0, "noise_multiplier": fl.on_step(lambda j: 1.0)}, "give fl.on_round, not 'step'"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1.0}, "local_gaussian: delta must be between 0 and 1, got None: usually below"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1.0, "delta": 1.0}, "delta must be between 0 and 1, got 1.0"),
        (local_gaussian, {"clip": 1.0, "epsilon": 1e308, "delta": 0.1}, "epsilon must be from 1e-6 to 1e6, got 1e.308: give noise_mult"),
        (local_gaussian, {"clip": 1.0, "epsilon": [1.0, 1e-12], "delta": 0.1}, "epsilon must be from 1e-6 to 1e6, got 1e-12"),
        (local_gaussian, {"clip": 1.0, "epsilon": 0.0, "delta": 0.1}, "epsilon must be positive"),
        (local_gaussian, {"clip": 1.0, "epsilon": [], "delta": 0.1}, "epsilon is an empty list"),
        (local_gaussian, {"clip": 1.0, "epsilon": [1.0, -1.0], "delta": 0.1}, "epsilon must be positive"),
        (local_gaussian, {"clip": 1.0, "epsilon": jnp.ones(()), "delta": 0.1}, "epsilon must be a plain number"),
        (local_laplace, {"clip": 1.0}, "give one of noise_multiplier and epsilon"),
        (local_laplace, {"clip": 1.0, "epsilon": math.inf}, "epsilon must be positive and finite"),
    ],
)
def test_refusals(make, arguments, error):
    with pytest.raises(ValueError, match=error):
        make(**arguments)


@pytest.mark.parametrize("value", ["1e-5", None, True, float("nan"), 0, 1, -0.1, 1.5, jnp.float32(0.1)], ids=repr)
def test_a_delta_is_a_number_between_0_and_1(value):
    refuse.delta("f", 0.5)
    refuse.delta("f", np.float32(1e-5))
    refuse.delta("f", 0, or_zero=True)
    with pytest.raises(ValueError, match=f"f: delta must be between 0 and 1, got {re.escape(repr(value))}: usually below one over"):
        refuse.delta("f", value)


def test_update_needs_a_key_and_a_schedule_its_round():
    transform = local_laplace(clip=1.0, epsilon=[1.0, 2.0])
    with pytest.raises(ValueError, match="keyword key"):
        transform.update(jnp.zeros(2), ())
    with pytest.raises(ValueError, match="keyword round"):
        transform.update(jnp.zeros(2), (), key=jax.random.key(0))


@both
def test_a_table_can_describe_it(kind):
    annotations = {name: value for name, value in MAKE[kind].__annotations__.items() if name != "return"}
    assert all(schema.describable(annotation) for annotation in annotations.values())
    for value, name, fits in ((1, "epsilon", True), ([1, 0.5], "epsilon", True), ("1", "epsilon", False), (2.0, "clip", True)):
        assert schema.fits(value, annotations[name]) == fits
    assert isinstance(MAKE[kind](1.0, noise_multiplier=1.0), optax.GradientTransformationExtraArgs)
    assert MAKE[kind](1.0, noise_multiplier=1.0).init(jnp.zeros(2)) == Hidden()


@both
def test_in_a_run_every_client_and_round_has_its_own_noise(kind):
    """With no learning, the model is the noise alone: its mean over clients, anew in each round."""
    data, cohort_of = softmax_data(), fl.sampling.everyone()
    clients = len(data.size)
    algorithm = fl.federate(
        fl.sgd_work(softmax_loss, optax.sgd(0.0)),
        fl.aggregators.mean(),
        fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(size=4),
        population=clients,
        uplink=MAKE[kind](clip=C, noise_multiplier=Z),
    )
    params = jnp.zeros_like(softmax_params())
    state, steps = algorithm.init(params, jax.random.key(0)), []
    advance = jax.jit(lambda state: fl.advance(algorithm, data, state, cohort_of, rounds=1)[0])
    for _ in range(40):
        before, state = algorithm.params(state), advance(state)
        steps.append(np.asarray(algorithm.params(state) - before, np.float64).reshape(-1))
    steps = np.stack(steps)
    assert abs((steps**2).mean() / (variance(kind) / clients) - 1) < 5 * math.sqrt(2 / steps.size)
    assert np.abs(np.corrcoef(steps)[np.triu_indices(40, 1)]).mean() < 0.3


def private_run(work=None, server=None, uplink=None, **options):
    algorithm = fl.federate(
        work or fl.sgd_work(softmax_loss, optax.sgd(0.1), gradient_norm=True), fl.aggregators.mean(),
        server or fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4), population=len(SIZES), uplink=uplink,
    )  # fmt: skip
    return fl.run(
        algorithm, softmax_data(), softmax_params(), fl.sampling.everyone(), rounds=1, key=jax.random.key(0), progress=False, **options
    )


RECORD = fl.privacy.record_level(1.0, 1.0, 4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"uplink": local_gaussian(1.0, 1.0), "server": fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0)))},
            "where clients are private",
        ),
        (
            {"uplink": optax.chain(local_laplace(1.0, 1.0)), "server": fl.optimizer_server(optax.contrib.reduce_on_plateau())},
            "optimizer_server: the optimizer reads the loss",
        ),
        (
            {"work": fl.sgd_work(softmax_loss, optax.polyak_sgd(), gradients=RECORD)},
            "sgd_work: the optimizer reads the loss .*, which no noise hides",
        ),
        ({"uplink": local_gaussian(1.0, 1.0), "converge": fl.Convergence("loss")}, "loss is computed from clients' data without noise"),
        ({"work": fl.sgd_work(softmax_loss, optax.sgd(0.1), gradients=RECORD), "converge": fl.Convergence("loss")}, "loss is computed"),
    ],
)
def test_what_clients_report_steers_nothing_where_they_hide_their_data(parts, message):
    with pytest.raises(ValueError, match=message):
        private_run(**parts)


def test_a_report_marks_what_clients_do_not_hide(tmp_path):
    private_run(uplink=local_gaussian(1.0, 1.0), out=tmp_path / "run")
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["privacy"]
    assert "clients hide their data themselves" in told["note"] and "loss" in told["outside"] and "epsilon_pld" not in told
