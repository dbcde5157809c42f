"""Every aggregator, client work and algorithm keeps the contract. A new one is tested by adding its line to a list."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import CLASSES, FEATURES, SIZES, dealt, simulate, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.engine.placement import everywhere, mesh_of

POPULATION = len(SIZES)


def median_of_means(groups):
    def reduce(messages, cohort):
        del cohort
        return jax.tree.map(lambda x: jnp.median(x.reshape(groups, -1, *x.shape[1:]).mean(1), axis=0), messages)

    return aggregators.from_stack(reduce)


def distributed(kind, dimension):
    return kind(clip=1.0, noise_multiplier=0.5, clients_per_round=4, dimension=dimension)


# name -> aggregator. One line a rule.
AGGREGATORS = {
    "mean": aggregators.mean(),
    "weighted_mean": aggregators.weighted_mean(),
    "weighted_mean uniform": aggregators.weighted_mean("uniform"),
    "weighted_mean capped": aggregators.weighted_mean(cap=4),
    "weighted_mean own": aggregators.weighted_mean(jnp.arange(1.0, POPULATION + 1)),
    "weighted_mean function": aggregators.weighted_mean(lambda client: 1.0 / client.size),
    "median": aggregators.median(),
    "trimmed_mean": aggregators.trimmed_mean(num_byzantine=1),
    "meamed": aggregators.meamed(num_byzantine=1),
    "weighted_median": aggregators.weighted_median(),
    "krum": aggregators.krum(num_byzantine=1),
    "multi_krum": aggregators.multi_krum(num_byzantine=1, num_selected=2, neighbors="byzfl"),
    "bulyan": aggregators.bulyan(num_byzantine=0),
    "geometric_median": aggregators.geometric_median(),
    "centered_clipping": aggregators.centered_clipping(radius=1e3),
    "centered_clipping twice": aggregators.centered_clipping(radius=1e3, iterations=2),
    "norm_bounding": aggregators.norm_bounding(max_norm=1e3),
    "sign_majority": aggregators.sign_majority(learning_rate=0.1),
    "rlr": aggregators.rlr(threshold=1),
    "fltrust": aggregators.fltrust(trusted=0),
    "monna": aggregators.monna(num_byzantine=1, trusted=0),
    "mda": aggregators.mda(num_byzantine=1),
    "caf": aggregators.caf(num_byzantine=1),
    "nnm": aggregators.nnm(aggregators.krum(num_byzantine=1), num_byzantine=1),
    "bucketing": aggregators.bucketing(aggregators.trimmed_mean(num_byzantine=1), size=2),
    "arc": aggregators.arc(aggregators.mean(), num_byzantine=1),
    "secure_mean": aggregators.secure_mean(),
    "secure_mean ring": aggregators.secure_mean(bound=8.0, neighbors=2),
    "dp_mean": aggregators.dp_mean(clip=1e6, noise_multiplier=0.0, clients_per_round=4),
    "dp_mean adaptive": aggregators.dp_mean(clip=0.1, noise_multiplier=0.1, clients_per_round=4, quantile=0.5, weights="examples", cap=9),
    "dp_ftrl": aggregators.dp_ftrl(clip=0.1, noise_multiplier=0.1, clients_per_round=4, rounds=20),
    "ddgauss": distributed(aggregators.ddgauss, 8),
    "skellam": distributed(aggregators.skellam, 8),
    "from_sum": aggregators.from_sum(
        lambda m, c: (m, 1.0), lambda s: jax.tree.map(lambda x: x / jnp.maximum(s[1], 1).astype(x.dtype), s[0])
    ),
}

# Rules that refuse one client, because they need more for the f given above.
MORE_THAN_ONE = "trimmed_mean meamed krum multi_krum bulyan monna mda caf nnm bucketing arc".split()
FIXED_POINT = "secure_mean", "secure_mean ring"
NOISY = "dp_mean adaptive", "dp_ftrl"
NOISE_OF_CLIENTS = "ddgauss", "skellam"
COSTLY = "bulyan", "mda", "caf"  # more than quadratic in the clients


def random_sgd(rate):
    """A step times a random factor drawn from the keyword `key`: of the optimizer, the uplink or the server."""

    def update(updates, state, params=None, *, key, **extra):
        factor = jax.random.uniform(key)
        return jax.tree.map(lambda u: (-rate * factor).astype(u.dtype) * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: (), update)


def noisy_work(rate):
    """SGD on a loss that draws from its key, from a point that each client keeps and drew at the start."""

    def loss(params, batch, key):
        losses, metrics = softmax_loss(params, batch, key)
        return losses * jax.random.uniform(key, losses.shape), metrics

    plain = fl.sgd_work(loss, random_sgd(rate))

    def start(shared, own, client):
        carry = plain.start(shared, (), client)
        return carry._replace(params=carry.params + own * 1e-2)

    def finish(shared, carry, client):
        message, _, metrics = plain.finish(shared, carry, client)
        return message, jnp.mean(carry.params), metrics

    return fl.ClientWork(lambda params, key: jax.random.normal(key), start, plain.step, finish)


# name -> a function of the learning rate.
WORKS = {
    "sgd": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate)),
    "momentum": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate, momentum=0.9)),
    "adam": lambda rate: fl.sgd_work(softmax_loss, optax.adam(rate)),
    "scheduled": lambda rate: fl.sgd_work(
        softmax_loss, optax.sgd, learning_rate=fl.on_client_step(lambda t: rate / (1 + t)), epoch_decay=0.9
    ),
    "measured": lambda rate: fl.sgd_work(softmax_loss, optax.sgd(rate), initial_loss="epoch", gradient_norm=True),
}


def federate(work=None, aggregator=None, server=None, engine=None, uplink=None, batches=None):
    return fl.federate(
        work or WORKS["sgd"](0.1),
        aggregator or aggregators.weighted_mean(),
        server or fl.optimizer_server(optax.sgd(1.0)),
        batches=batches or fl.Batches(4, epochs=2),
        population=POPULATION,
        engine=engine,
        uplink=uplink,
    )


# name -> a function of the engine and the learning rate.
ALGORITHMS = {f"work {name}": (lambda engine, rate=0.1, work=work: federate(work(rate), engine=engine)) for name, work in WORKS.items()} | {
    "median": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["median"], engine=engine),
    "own weights": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), AGGREGATORS["weighted_mean own"], engine=engine),
    "fedavg": lambda engine, rate=0.1: fl.algorithms.fedavg(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4, steps=3), population=POPULATION, engine=engine
    ),
    "fedavgm": lambda engine, rate=0.1: fl.algorithms.fedavgm(
        softmax_loss, optax.sgd(rate), batches=fl.Batches(4), population=POPULATION, engine=engine
    ),
    "fedsgd": lambda engine, rate=0.1: fl.algorithms.fedsgd(softmax_loss, population=POPULATION, learning_rate=rate, engine=engine),
    "adam server": lambda engine, rate=0.1: federate(WORKS["sgd"](rate), server=fl.optimizer_server(optax.adam(0.01)), engine=engine),
    "adaptive rate": lambda engine, rate=0.1: federate(
        fl.sgd_work(softmax_loss, optax.sgd(rate), gradient_norm=True),
        server=fl.adaptive_rate(fl.optimizer_server(optax.sgd(1.0))),
        engine=engine,
    ),
    "plateau": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate),
        server=fl.optimizer_server(optax.chain(optax.sgd(1.0), optax.contrib.reduce_on_plateau(patience=1))),
        engine=engine,
    ),
    "random at every place": lambda engine, rate=0.1: federate(
        noisy_work(rate), server=fl.optimizer_server(random_sgd(0.5)), uplink=random_sgd(-1.0), engine=engine
    ),
    "uplink with state": lambda engine, rate=0.1: federate(
        WORKS["sgd"](rate), uplink=optax.chain(optax.clip_by_global_norm(0.1), optax.trace(0.5)), engine=engine
    ),
}
UPLINKS = {
    "top_k": fl.uplink.error_feedback(fl.uplink.top_k(0.25)),
    "random_k": fl.uplink.random_k(0.25),
    "uniform": fl.uplink.uniform(4),
    "rotate": fl.uplink.rotate(fl.uplink.terngrad()),
    "qsgd": fl.uplink.qsgd(4),
    "sign": fl.uplink.sign(),
    "scaled_sign": fl.uplink.error_feedback(fl.uplink.scaled_sign()),
    "terngrad": optax.chain(optax.clip_by_global_norm(1.0), fl.uplink.terngrad()),
    "drive": fl.uplink.drive(),
    "eden": fl.uplink.eden(bits=2),
    "power_sgd": fl.uplink.power_sgd(1),
}
ALGORITHMS |= {
    f"uplink {name}": (lambda engine, rate=0.1, uplink=uplink: federate(WORKS["sgd"](rate), uplink=uplink, engine=engine))
    for name, uplink in UPLINKS.items()
}


def distilled(engine, rate, models=False, several=False):
    """A round of distillation: models travel, or stay and learn what was agreed on; of one architecture, or of two families."""
    public = distill.public_set({"x": np.random.default_rng(7).normal(size=(9, FEATURES))}, np.arange(9) % CLASSES)
    ensemble, how = distill.mean_probabilities(), distill.lessons(optax.sgd(0.5), 2, batch_size=4)
    apply = lambda params, batch, key: batch["x"] @ params  # noqa: E731
    work = WORKS["sgd"](rate) if models else distill.kept(WORKS["sgd"](rate), apply, public, how)
    uplink = distill.soft_labels(apply, public, ensemble, model=models)
    built = fl.federate(
        [fl.Family(work, 3, uplink), fl.Family(work, POPULATION - 3, uplink)] if several else work,
        distill.pooled(ensemble, aggregators.mean(), aggregators.weighted_mean() if models else None, public),
        distill.distillation_server(how, apply, public) if models else distill.consensus_server(public, CLASSES),
        batches=fl.Batches(4), population=POPULATION, uplink=None if several else uplink, engine=engine,
    )  # fmt: skip
    return built._replace(init=lambda params, key: built.init((params, 2 * params), key)) if several else built


ALGORITHMS |= {
    "distilled": lambda engine, rate=0.1: distilled(engine, rate, models=True),
    "families that keep their models": lambda engine, rate=0.1: distilled(engine, rate, several=True),
    "fd": lambda engine, rate=0.1: fl.algorithms.fd(
        fl.models.Model(None, lambda params, batch, key: batch["x"] @ params), optax.sgd(rate), CLASSES,
        batches=fl.Batches(4), population=POPULATION, engine=engine,
    ),
}  # fmt: skip

each_aggregator = pytest.mark.parametrize("aggregator", AGGREGATORS.values(), ids=AGGREGATORS)
each_aggregator_name = pytest.mark.parametrize("name", AGGREGATORS)
each_exact_aggregator_name = pytest.mark.parametrize("name", [name for name in AGGREGATORS if name not in NOISY + NOISE_OF_CLIENTS])


# One worker of a parallel run gets all tests of an algorithm, and with them its compiled programs.
def grouped(names):
    return pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names])


each_algorithm = grouped(ALGORITHMS)
# Compressors differ in one pure function of a message and its key, so what is costly to ask of a whole program is asked of one of them; and
# families are parts of the program of one.
ALIKE = [f"uplink {name}" for name in UPLINKS if name != "top_k"] + ["families that keep their models"]
KINDS = [name for name in ALGORITHMS if name not in ALIKE]
each_kind = grouped(KINDS)


def messages(clients, seed=0):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(clients, 3, 2))), "b": jnp.asarray(rng.normal(size=(clients,)))}


def cohort(clients, weight=None):
    sizes = jnp.asarray(SIZES, jnp.int32)
    return fl.sampling.cohort(jax.random.key(0), sizes, jnp.arange(clients), weight)


@functools.cache
def compiled_aggregate(aggregator):
    def run(stack, cohort):
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, jax.random.key(1))[0]

    return jax.jit(run)


def aggregate(aggregator, stack, cohort):
    return compiled_aggregate(aggregator)(stack, cohort)


def assert_close(a, b, tolerance=1e-10):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(plain(x), plain(y), rtol=tolerance, atol=tolerance), a, b)


def plain(x):
    return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


def kind(x):
    return x.shape, x.dtype, x.weak_type  # a weak type that hardens after one round would compile the round twice


def rows(stack, index):
    return jax.tree.map(lambda x: x[np.asarray(index)], stack)


# Aggregators


@each_aggregator
def test_chunked_equals_whole(aggregator):
    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    state = aggregator.init(rows(stack, 0))
    parts = [aggregator.collect(rows(stack, i), rows(all_clients, i), state) for i in ([0, 1, 2], [3], [4, 5, 6])]
    if aggregator.additive:
        merged = jax.tree.map(lambda *leaves: sum(leaves), *parts)
    else:
        merged = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    key = jax.random.key(1)
    assert_close(aggregator.finish(merged, state, key)[0], aggregate(aggregator, stack, all_clients))


@each_aggregator
def test_empty_slots_are_inert_whatever_they_hold(aggregator):
    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    present = jnp.array([1, 0, 1, 1, 0, 1, 1], float)
    garbage = jax.tree.map(lambda x: jnp.where((present > 0).reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.nan), stack)
    some = np.flatnonzero(present)
    expected = aggregate(aggregator, rows(stack, some), rows(all_clients, some))
    assert_close(aggregate(aggregator, garbage, all_clients._replace(weight=present)), expected)


@each_aggregator_name
def test_no_clients_give_zero_or_noise(name):
    nobody = cohort(POPULATION, jnp.zeros(POPULATION))
    result = aggregate(AGGREGATORS[name], messages(POPULATION), nobody)
    if name in NOISY:
        assert all((x != 0).all() and np.isfinite(x).all() for x in jax.tree.leaves(result))
        return
    assert_close(result, {"w": jnp.zeros((3, 2)), "b": jnp.zeros(())})


@each_aggregator
def test_order_of_clients_does_not_matter(aggregator):
    stack, all_clients = messages(POPULATION), cohort(POPULATION)
    order = np.random.default_rng(3).permutation(POPULATION)
    assert_close(aggregate(aggregator, rows(stack, order), rows(all_clients, order)), aggregate(aggregator, stack, all_clients))


@each_exact_aggregator_name
def test_one_client_is_its_own_aggregate(name):
    aggregator, stack = AGGREGATORS[name], messages(1)
    if name in MORE_THAN_ONE:
        with pytest.raises(ValueError, match="needs n >= .* clients a round, and the cohort has 1: lower num_byzantine or sample more"):
            aggregate(aggregator, stack, cohort(1))
        return
    result = aggregate(aggregator, stack, cohort(1))
    if name == "sign_majority":
        result, stack = jax.tree.map(lambda x: x * 10, result), jax.tree.map(jnp.sign, stack)
    if name == "fltrust":  # there is nobody beside the server's own client
        stack = jax.tree.map(jnp.zeros_like, stack)
    if name == "dp_mean":  # its divisor is not who came
        result = jax.tree.map(lambda x: 4 * x, result)
    assert_close(result, rows(stack, 0), 2**-17 if name in FIXED_POINT else 1e-10)


@each_exact_aggregator_name
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_right_for_many_clients(name, dtype):
    """A thousand equal messages: their sum would drown in bfloat16, their total weight overflow float16."""
    clients = 70 if name in COSTLY else 1000
    ids = jnp.arange(clients) % (clients if name == "fltrust" else POPULATION)
    many = fl.sampling.cohort(jax.random.key(0), jnp.full(clients, 1000), ids)
    one = jax.tree.map(lambda x: x.astype(dtype), messages(1))
    result = aggregate(AGGREGATORS[name], jax.tree.map(lambda x: jnp.repeat(x, clients, axis=0), one), many)
    if name == "sign_majority":
        one = jax.tree.map(lambda x: jnp.sign(x) / 10, one)
    if name == "dp_mean":
        result = jax.tree.map(lambda x: x * 4 / clients, result)
    jax.tree.map(lambda x, m: np.testing.assert_allclose(np.asarray(x, float), np.asarray(m[0], float), rtol=1e-2), result, one)


@each_aggregator
def test_gradients_are_finite(aggregator):
    gradient = jax.grad(lambda stack: sum(jnp.sum(x**2) for x in jax.tree.leaves(aggregate(aggregator, stack, cohort(POPULATION)))))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient(messages(POPULATION))))


def test_the_median_of_means_of_the_readme():
    stack = messages(6)
    expected = np.median(np.asarray(stack["w"]).reshape(3, 2, 3, 2).mean(1), axis=0)
    np.testing.assert_allclose(aggregate(median_of_means(3), stack, cohort(6))["w"], expected, rtol=1e-6)


@each_aggregator_name
def test_aggregators_on_eight_devices_and_with_poisson_cohorts(name):
    """A round with slots that a Poisson cohort left empty, on eight devices and on one, is that of the clients present alone."""
    aggregator = distributed(getattr(aggregators, name), 32) if name in NOISE_OF_CLIENTS else AGGREGATORS[name]
    data, built = softmax_data(**DATA), federate(aggregator=aggregator)
    state = built.init(softmax_params(), jax.random.key(0))
    with_empty = fl.sampling.poisson(0.6, capacity=POPULATION)(jax.random.key(2), data.size, jnp.int32(0))
    present = np.flatnonzero((np.asarray(with_empty.weight) > 0) & (np.asarray(with_empty.size) > 0))
    assert len(present) == 5
    expected = jax.jit(built.round)(state, data, rows(with_empty, present))
    assert_close(jax.jit(built.round)(state, data, with_empty), expected)
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, with_empty.id), everywhere(with_empty))
    assert_close(shared, expected)


# Algorithms: compiled programs are shared by the tests of one algorithm, all in double precision.

DATA = dict(sizes=(5, 1, 12, 3, 8, 0, 7), empty=True)


@pytest.fixture(scope="module", autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@functools.lru_cache(maxsize=4)  # those of one algorithm
def compiled(name, engine=None):
    """An algorithm, its first state, and its jitted round."""
    built = ALGORITHMS[name](ENGINES[engine] if engine else None)
    return built, built.init(softmax_params(), jax.random.key(0)), jax.jit(built.round)


@functools.lru_cache(maxsize=1)
def two_rounds(name):
    """A compiled program of two rounds."""
    built, state, _ = compiled(name)
    data = softmax_data(**DATA)
    advance = jax.jit(lambda data, state: fl.advance(built, data, state, fl.sampling.uniform(3), rounds=2)[0])
    return advance.lower(data, state).compile()


def a_cohort(state, ids=(2, 0, 6, 4, 1), weight=None):
    return fl.sampling.cohort(fl.round_key(state), softmax_data(**DATA).size, jnp.asarray(ids), weight)


ENGINES = {"sequential": fl.sequential(), "padded": fl.padded(), "packed": fl.packed(3)}


@each_algorithm
def test_engines_agree(name):
    data, results = softmax_data(**DATA), []
    for engine in ENGINES:
        _, state, step = compiled(name, engine)
        state, first = step(state, data, a_cohort(state, (2, 0, 6, 5, 1), jnp.array([1.0, 1, 1, 1, 0])))
        state, second = step(state, data, a_cohort(state, (3, 1, 2, 4, 0)))
        results.append((state, first, second))
    for other in results[1:]:
        assert_close(other, results[0])


@each_algorithm
def test_eight_devices_with_their_clients_examples_only_are_one_with_all(name):
    built, state, step = compiled(name)
    data = softmax_data(**DATA)
    cohort = a_cohort(state, (2, 0, 6, 4, 1), jnp.array([1.0, 1, 0, 1, 1]))
    with jax.set_mesh(mesh_of(jax.devices())):
        shared = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), dealt(data, cohort.id), everywhere(cohort))
    assert_close(shared, step(state, data, cohort))


@each_kind
def test_jit_equals_eager(name):
    data = softmax_data(**DATA)
    built, state, step = compiled(name)
    assert_close(built.round(state, data, a_cohort(state)), step(state, data, a_cohort(state)))


@each_algorithm
def test_other_cohorts_do_not_recompile(name):
    data = softmax_data(**DATA)
    _, state, step = compiled(name)
    for ids in ((0, 1, 2, 3, 4), (6, 5, 4, 1, 0)):
        state, _ = step(state, data, a_cohort(state, ids))
    step(state, data, a_cohort(state, (1, 2, 3, 0, 6), jnp.array([1.0, 0, 1, 0, 0])))
    assert step._cache_size() == 1


@each_algorithm
def test_state_keeps_its_structure(name):
    data = softmax_data(**DATA)
    built, state, _ = compiled(name)
    after, metrics = jax.eval_shape(built.round, state, data, a_cohort(state))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(kind, after) == jax.tree.map(kind, jax.eval_shape(lambda: state))
    assert all(x.shape == () for x in metrics.values())


@each_algorithm
def test_order_of_the_cohort_does_not_matter(name):
    data = softmax_data(**DATA)
    _, state, step = compiled(name)
    assert_close(step(state, data, a_cohort(state, (2, 0, 6, 4, 1))), step(state, data, a_cohort(state, (4, 6, 1, 2, 0))))


@each_kind
def test_empty_slots_of_a_cohort_are_inert(name):
    data = softmax_data(**DATA)
    built, state, step = compiled(name)
    some = jax.jit(built.round)(state, data, a_cohort(state, (2, 6, 4)))
    assert_close(step(state, data, a_cohort(state, (2, 0, 6, 4, 2), jnp.array([1.0, 0, 1, 1, 0]))), some)


@each_algorithm
def test_an_empty_cohort_leaves_everything_as_it_is(name):
    data = softmax_data(**DATA)
    _, state, step = compiled(name)
    after, metrics = step(state, data, a_cohort(state, weight=jnp.zeros(5)))
    assert_close(after._replace(round=state.round), state, 0)
    assert after.round == 1 and metrics["clients"] == 0 and metrics["update_norm"] == 0


@each_kind
def test_vmap_over_keys_and_rates_equals_the_loop(name):
    data = softmax_data(**DATA)
    keys, rates = jax.random.split(jax.random.key(4), 2), jnp.array([0.05, 0.2])

    def experiment(data, key, rate):
        algorithm = ALGORITHMS[name](None, rate)
        state, history = fl.simulate(algorithm, data, softmax_params(), fl.sampling.uniform(3), rounds=3, key=key)
        return algorithm.params(state), history

    study = jax.jit(jax.vmap(jax.vmap(experiment, (None, None, 0)), (None, 0, None)))(data, keys, rates)
    single = jax.jit(experiment)
    for i in range(2):
        for j in range(2):
            assert_close(jax.tree.map(lambda x, i=i, j=j: x[i, j], study), single(data, keys[i], rates[j]), 1e-9)


@each_kind
def test_runs_without_touching_the_host(name):
    data = softmax_data(**DATA)
    state, program = compiled(name)[1], two_rounds(name)
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            state = program(data, state)
    # A callback passes the guard, so look for one in the program itself.
    assert "callback" not in program.as_text()


@each_kind
def test_rounds_in_pieces_are_the_same_bits(name):
    data = softmax_data(**DATA)
    built, state, _ = compiled(name)
    whole, _ = simulate(built, data, softmax_params(), fl.sampling.uniform(3), 4, jax.random.key(0))
    assert_close(two_rounds(name)(data, two_rounds(name)(data, state)), whole, 0)


@pytest.mark.parametrize("lanes", [1, 2, 5, 99])
@pytest.mark.parametrize("aggregator", ["weighted_mean", "median"])
def test_lanes_do_not_matter(lanes, aggregator):
    data, results = softmax_data(**DATA), []
    for engine in (fl.packed(lanes), fl.sequential()):
        built = federate(WORKS["adam"](0.1), AGGREGATORS[aggregator], engine=engine)
        state = built.init(softmax_params(), jax.random.key(0))
        results.append(jax.jit(built.round)(state, data, a_cohort(state)))
    assert_close(*results)


def test_every_random_stream_has_keys_of_its_own():
    """The keys handed to init, loss, optimizer, uplink, aggregator and server all differ, and from those of rounds."""
    seen = {}

    def record(name, key):
        jax.debug.callback(lambda words: seen.setdefault(name, set()).add(tuple(words.tolist())), jax.random.key_data(key))

    def noted(name, factor):
        def update(updates, state, params=None, *, key, **extra):
            record(name, key)
            return jax.tree.map(lambda u: factor * u, updates), state

        return optax.GradientTransformationExtraArgs(lambda params: (), update)

    def loss(params, batch, key):
        record("loss", key)
        return softmax_loss(params, batch, key)

    def init(params, key):
        record("init", key)
        return ()

    def finish(part, state, key):
        record("aggregator", key)
        return mean.finish(part, (), key)

    mean = aggregators.mean()
    built = federate(
        fl.sgd_work(loss, noted("optimizer", -0.1))._replace(init=init),
        mean._replace(finish=finish),
        fl.optimizer_server(noted("server", -1.0)),
        uplink=noted("uplink", 1.0),
        engine=fl.sequential(),
        batches=fl.Batches(4, steps=2),
    )
    data = softmax_data(**DATA)
    state = built.init(softmax_params(), jax.random.key(0))
    for _ in range(2):
        state, _ = built.round(state, data, a_cohort(state, (0, 1, 2)))
    jax.effects_barrier()
    rounds, clients, steps = 2, 3, 2
    expected = dict(init=POPULATION, loss=rounds * clients * steps, optimizer=rounds * clients * steps)
    assert {name: len(keys) for name, keys in seen.items()} == expected | dict(uplink=rounds * clients, aggregator=rounds, server=rounds)
    every = [key for keys in seen.values() for key in keys]
    every += [tuple(jax.random.key_data(fl.round_key(state._replace(round=jnp.int32(t)))).tolist()) for t in range(8)]
    assert len(set(every)) == len(every)
