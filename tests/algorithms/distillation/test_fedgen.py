"""FedGen against a NumPy loop of both sides; what travels, what is refused, that the generator helps."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from oracles import slope
from problems import FEATURES, SIZES, simulate, softmax_data
from rounds import advanced, batches_of, compiled, filled, spoilt

import fedjax_lite as fl
from fedjax_lite.algorithms import Generator
from fedjax_lite.streams import HIGH_STREAM, aggregate_key

WIDTH, NOISE, CLASSES = 2, 2, 4  # of the four classes, nobody holds the last
BATCHES, RATE, DRAWN = fl.Batches(4, steps=4), 0.3, 6  # one epoch and a third of the largest client, four of the smallest
ALPHA, BETA, DECAY, STEPS, GENERATOR_RATE, DIVERSITY = 0.8, 0.6, 0.5, 3, 0.4, 0.7
rng = np.random.default_rng(3)
MODEL = {"a": rng.normal(size=(FEATURES, WIDTH)), "b": rng.normal(size=(WIDTH, CLASSES))}
GENERATOR = {"g": rng.normal(size=(NOISE, WIDTH)), "h": rng.normal(size=(CLASSES, WIDTH))}
KEY, WORD = 5, 64  # bits of a number, in double precision

pytestmark = pytest.mark.usefixtures("x64")


def extract(params, batch, key):
    del key
    return jnp.tanh(batch["x"] @ params["a"])


def head(params, features):
    return features @ params["b"]


def generate(params, noise, labels):
    return jnp.tanh(noise @ params["g"] + labels @ params["h"])


def arrays(params):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), params)


def algorithm(generator=None, optimizer=None, extract=extract, **options):
    numbers = {
        "batches": BATCHES, "population": len(SIZES), "classes": CLASSES, "alpha": ALPHA, "beta": BETA,
        "decay": DECAY, "regularised_epochs": 1, "generator_batch_size": DRAWN, "generator_steps": STEPS, "diversity": DIVERSITY,
        "generator_optimizer": optax.sgd(GENERATOR_RATE), "engine": fl.sequential(),
    }  # fmt: skip
    generator = generator or Generator(arrays(GENERATOR), generate, NOISE)
    return fl.algorithms.fedgen(fl.models.Model(None, None, extract, head), generator, optimizer or optax.sgd(RATE), **numbers | options)


@functools.cache
def default():
    """One object, so that tests share its compiled round."""
    return algorithm()


def trained(built, *cohorts, round=0, data=None):
    """Rounds with these cohorts, each filled up with empty slots, so that most tests compile one program."""
    data, (start, _) = data or softmax_data(), compiled(built)
    state = start(arrays(MODEL), jax.random.key(KEY))._replace(round=jnp.int32(round))
    return advanced(built, data, state, [filled(ids, 5) for ids in cohorts])


def close(found, expected, atol=1e-8):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), found, expected)


# The oracle: plain loops, gradients by central differences; random numbers alone are drawn by jax.


def cross_entropy(logits, labels):
    return -scipy.special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def made(generator, noise, labels):
    return np.tanh(noise @ generator["g"] + np.eye(CLASSES)[labels] @ generator["h"])


@functools.partial(jax.jit, static_argnames="width")
def drawn_by_client(key, step, width):
    """The labels and the noise of one local step; noise for each place of a batch of this width too."""
    which, of_noise = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, step), np.uint32(HIGH_STREAM + 1)))
    return jax.random.randint(which, (DRAWN,), 0, CLASSES), jax.random.normal(of_noise, (width + DRAWN, NOISE))


@jax.jit
def drawn_by_server(round, step, counts):
    """The labels and the noise of one step of the generator."""
    key = jax.random.fold_in(jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(KEY), round)), 1), step)
    of_labels, of_noise = jax.random.split(key)
    labels = jax.random.categorical(of_labels, jnp.log(counts.sum(0)), shape=(DRAWN,))
    return labels, jax.random.normal(of_noise, (DRAWN, NOISE))


def local_step(model, generator, x, y, draws, strength):
    """One step of a client on the real examples of a batch."""
    drawn, noise = map(np.asarray, draws)
    width = len(noise) - DRAWN
    q = scipy.special.softmax(made(generator, noise[: len(y)], y) @ model["b"], axis=-1)  # a constant of the step

    def loss(params):
        logits = np.tanh(x @ params["a"]) @ params["b"]
        alike = np.sum(q * (np.log(q) - scipy.special.log_softmax(logits, axis=-1)), axis=-1)
        taught = cross_entropy(made(generator, noise[width:], drawn) @ params["b"], drawn).mean()
        return cross_entropy(logits, y).mean() + strength * (ALPHA * taught + BETA * alike.mean())

    gradient = slope(loss, model)
    return {name: model[name] - RATE * gradient[name] for name in model}


def generator_step(generator, heads, counts, draws):
    labels, noise = map(np.asarray, draws)
    assert CLASSES - 1 not in labels

    def loss(params):
        z = made(params, noise, labels)
        teacher = sum(
            counts[k, y] / counts[:, y].sum() * cross_entropy(z[[i]] @ b, [y])[0] for k, b in enumerate(heads) for i, y in enumerate(labels)
        )
        spread = [np.abs(z[i] - z[j]).mean() * ((noise[i] - noise[j]) ** 2).mean() for i in range(DRAWN) for j in range(DRAWN)]
        return teacher / DRAWN + DIVERSITY * np.exp(-np.mean(spread))

    gradient = slope(loss, generator)
    return {name: generator[name] - GENERATOR_RATE * gradient[name] for name in generator}


def replayed(data, cohorts):
    """The model and the generator after rounds with these cohorts."""
    model, generator, take = MODEL, GENERATOR, batches_of(data, BATCHES)
    labels, steps = np.split(np.asarray(data.examples["y"]), np.cumsum(SIZES)[:-1]), BATCHES.steps_of(data.size).tolist()
    for round, ids in enumerate(cohorts):
        models, counts = [], []
        for id in ids:
            mine = model
            for j in range(steps[id]):
                key, batch = take(KEY, round, id, j)
                x, y = (np.asarray(batch.examples[name])[np.asarray(batch.mask)] for name in "xy")
                strength = DECAY**round if round > 0 and batch.epoch < 1 else 0
                mine = local_step(mine, generator, x, y, drawn_by_client(key, j, len(batch.mask)), strength)
            models.append(mine)
            counts.append(np.bincount(labels[id], minlength=CLASSES))
        weights = np.array([SIZES[id] for id in ids]) / sum(SIZES[id] for id in ids)
        model = {name: sum(w * mine[name] for w, mine in zip(weights, models, strict=True)) for name in model}
        for j in range(STEPS):
            generator = generator_step(
                generator, [mine["b"] for mine in models], np.array(counts), drawn_by_server(round, j, np.array(counts, float))
            )
    return model, generator


@pytest.mark.parametrize("cohorts", [((4, 2, 6), (2, 1, 4)), ((0,), (0,))], ids=["several", "one client"])
def test_rounds_equal_the_numpy_loop(cohorts):
    state, _ = trained(default(), *cohorts)
    model, generator = replayed(softmax_data(), cohorts)
    close(default().params(state), model)
    close(state.server.generator, generator)


@functools.cache
def plain():
    return trained(default(), (4, 2, 6), (2, 1, 4))


@pytest.mark.deep
def test_another_engine_and_whatever_empty_slots_hold_give_the_same():
    state, history = trained(algorithm(engine=spoilt(fl.padded())), (4, 99, 2, 6, -1), (2, 1, 99, -1, 4))
    expected, measured = plain()
    close(state.server, expected.server, atol=1e-9)
    close(history, measured, atol=1e-9)


def test_a_message_that_is_not_finite_is_left_out_of_both():
    data = softmax_data()
    x = np.array(data.examples["x"])
    x[int(data.start[2]) + 3] = np.nan
    spoilt_data = replace(data, examples=data.examples | {"x": jnp.asarray(x)})
    state, history = trained(default(), (4, 2, 6), data=spoilt_data)
    close(state.server, trained(default(), (4, 6))[0].server, atol=1e-9)
    assert history["non_finite"].tolist() == [1]


def test_a_round_without_clients_changes_nothing():
    state, _ = trained(default(), (99, -1))
    jax.tree.map(np.testing.assert_array_equal, state.server, compiled(default())[0](arrays(MODEL), jax.random.key(KEY)).server)


@pytest.mark.deep
def test_the_first_round_is_fedavg():
    """A generator that has learnt nothing teaches nothing."""

    def loss(params, batch, key):
        return fl.models.supervised(fl.models.Model(lambda *given: (), lambda p, b, k: head(p, extract(p, b, k))))(params, batch, key)

    options = {"batches": BATCHES, "population": len(SIZES), "engine": fl.sequential()}
    fedavg = fl.algorithms.fedavg(loss, optax.sgd(RATE), **options)
    close(trained(default(), (4, 2, 6))[0].server.params, fedavg.params(trained(fedavg, (4, 2, 6))[0]), atol=1e-9)


def test_bits_are_those_of_what_travels():
    _, history = plain()
    model, generator = (sum(x.size for x in params.values()) for params in (MODEL, GENERATOR))
    assert history["uplink_bits"].tolist() == [3 * WORD * (model + CLASSES)] * 2
    assert history["downlink_bits"].tolist() == [3 * WORD * (model + generator)] * 2


@pytest.mark.deep
def test_seeds_and_strengths_are_vmapped():
    data = softmax_data()

    def run(key, alpha, generator, data):
        built = algorithm(Generator(generator, generate, NOISE), alpha=alpha)
        state = built.init(arrays(MODEL), jax.random.key(key))._replace(round=jnp.int32(1))
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([4, 2, 6, 99, 99]))
        return built.round(state, data, cohort)[0].server

    generators = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), arrays(GENERATOR))
    found = jax.jit(jax.vmap(run, (0, 0, 0, None)))(jnp.array([KEY, 8]), jnp.array([ALPHA, 2.0]), generators, data)
    alone = trained(default(), (4, 2, 6), round=1)[0].server
    close(jax.tree.map(lambda x: x[0], found), alone, atol=1e-9)
    assert all(np.isfinite(x).all() and (x[1] != x[0]).any() for x in jax.tree.leaves(found))


@pytest.mark.slow
@jax.enable_x64(False)
def test_it_learns_digits():
    """With clients that hold few classes each; the generator of the library, from a tenth right."""
    data = fl.data.digits(fl.partition.dirichlet_class(clients=6, alpha=0.1), seed=0)
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"a": 0.1 * jax.random.normal(keys[0], (64, 12)), "b": 0.1 * jax.random.normal(keys[1], (12, 10))}
    generator = fl.algorithms.latent_generator(keys[2], 12, 10, noise=8, hidden=32)
    built = fl.algorithms.fedgen(
        fl.models.Model(None, None, extract, head), generator, optax.sgd(0.2), batches=fl.Batches(20, epochs=2), population=6,
        classes=10, alpha=1.0, beta=1.0, generator_optimizer=optax.adam(1e-2), engine=fl.sequential(),
    )  # fmt: skip
    state, _ = simulate(built, data.train, params, fl.sampling.uniform(4), 15, jax.random.key(1))
    loss = fl.models.supervised(fl.models.Model(lambda *given: (), lambda p, b, k: head(p, extract(p, b, k))))
    first, last = (fl.summarize(fl.evaluate(loss, found, data.test))["test_accuracy"] for found in (params, built.params(state)))
    assert first < 0.25 and last > 0.55, (first, last)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: algorithm(classes=1), "fedgen: classes must be an int of at least 2, got 1"),
        (lambda: algorithm(generator_steps=0), "fedgen: generator_steps must be an int of at least 1, got 0"),
        (lambda: algorithm(alpha=-1.0), "fedgen: alpha must be finite and not negative, got -1.0"),
        (lambda: algorithm(decay=0.0), "fedgen: decay must be positive"),
        (
            lambda: trained(algorithm(Generator({"g": jnp.ones((NOISE, 3)), "h": jnp.ones((CLASSES, 3))}, generate, NOISE)), (0,)),
            r"the generator makes features \(3,\), the model has \(2,\): make them equal",
        ),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
