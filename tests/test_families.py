"""Several architectures in one run: against the same clients one by one, with what else a round has."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.base import aggregate_key
from fedjax_lite.engine.placement import everywhere, mesh_of

LABELS = np.random.default_rng(8).integers(0, CLASSES, 20)
PUBLIC = distill.public_set({"x": np.random.default_rng(7).normal(size=(20, FEATURES)).astype(np.float32)}, LABELS)
HOW = distill.lessons(optax.sgd(0.5), 5, batch_size=10)
POPULATION, FIRST = len(SIZES), 4  # clients of the first family
LOGITS = distill.mean_logits()


def linear(params, batch, key):
    return batch["x"] @ params


def narrow(params, batch, key):
    """Another architecture: it looks at two features."""
    return batch["x"][:, :2] @ params["narrow"]


def narrow_loss(params, batch, key):
    return softmax_loss(jnp.zeros((FEATURES, CLASSES), params["narrow"].dtype).at[:2].set(params["narrow"]), batch, key)


NARROW = {"narrow": jnp.asarray(0.1 * np.random.default_rng(9).normal(size=(2, CLASSES)), jnp.float32)}
PARAMS = (softmax_params().astype(jnp.float32), NARROW)
WORKS = fl.sgd_work(softmax_loss, optax.sgd(0.3)), fl.sgd_work(narrow_loss, optax.sgd(0.2))
APPLIES = linear, narrow


def families(models=True, digest=None, then=None, applies=APPLIES):
    works = WORKS if digest is None else [distill.kept(w, a, PUBLIC, digest) for w, a in zip(WORKS, applies, strict=True)]
    width = FEATURES * CLASSES if models else None
    uplinks = [distill.soft_labels(a, PUBLIC, LOGITS, model=models, width=width, then=then) for a in applies]
    return [fl.Family(w, n, u) for w, n, u in zip(works, (FIRST, POPULATION - FIRST), uplinks, strict=True)]


def algorithm(soft=None, model=None, engine=fl.padded(), attack=None, **parts):  # noqa: B008 - padded() compiles fastest
    work = families(**parts)
    rule = distill.pooled(LOGITS, soft or aggregators.mean(), model or aggregators.weighted_mean(), PUBLIC, (FIRST, POPULATION - FIRST))
    if attack:
        work = [family._replace(work=fl.attacks.attacked(*attack, family.work, rule)[0]) for family in work]
        rule = fl.attacks.attacked(*attack, WORKS[0], rule)[1]
    server = distill.distillation_server(HOW, APPLIES, PUBLIC)
    return fl.federate(work, rule, server, batches=fl.Batches(4), population=POPULATION, engine=engine)


def trained(built, rounds=1, sampler=None, key=3, params=PARAMS):
    sampler = sampler or fl.sampling.everyone()
    return jax.jit(lambda data, params: fl.simulate(built, data, params, sampler, rounds=rounds, key=jax.random.key(key)))(
        softmax_data(), params
    )


@functools.cache
def models_of(k):
    """Each client's model after its round, had it the architecture of family k and were it there alone."""
    plain = fl.federate(WORKS[k], aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4), population=POPULATION)

    def one(id):
        sampler = lambda key, sizes, round: fl.sampling.cohort(key, sizes, id[None])  # noqa: E731
        return plain.params(fl.simulate(plain, softmax_data(), PARAMS[k], sampler, rounds=1, key=jax.random.key(3))[0])

    return jax.jit(lambda ids: jax.lax.map(one, ids))(jnp.arange(POPULATION))


def alone(client):
    return jax.tree.map(lambda x: x[client], models_of(int(client >= FIRST)))


def logits(clients):
    return np.stack([APPLIES[int(k >= FIRST)](alone(k), PUBLIC.examples, None) for k in clients])


def means(clients):
    """The weighted mean of each family's models."""
    size = np.array(SIZES)
    groups = [[k for k in clients if k < FIRST], [k for k in clients if k >= FIRST]]
    return [
        jax.tree.map(
            lambda *x, mine=mine: sum(size[k] * leaf for k, leaf in zip(mine, x, strict=True)) / size[mine].sum(), *map(alone, mine)
        )
        for mine in groups
    ]


def test_each_family_is_averaged_and_all_teach_all():
    state, history = trained(built := algorithm())
    everyone = range(POPULATION)
    target = jnp.asarray(scipy.special.softmax(logits(everyone).mean(0), axis=-1), jnp.float32)
    key = jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(3), 0)), 1)  # the server's
    for k, average in enumerate(means(everyone)):
        expected = distill.taught(HOW, APPLIES[k], average, PUBLIC.examples, target, jax.random.fold_in(key, k))[0]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), built.params(state)[k], expected)
    assert history["teacher_accuracy"][0] == pytest.approx(np.mean(logits(everyone).argmax(-1) == LABELS))
    assert history["ensemble_accuracy"][0] == pytest.approx(np.mean(target.argmax(-1) == LABELS))
    bits = 32 * (FIRST * FEATURES * CLASSES + (POPULATION - FIRST) * 2 * CLASSES)  # each its own model, there and back
    assert history["uplink_bits"][0] == bits == history["downlink_bits"][0] and history["clients"][0] == POPULATION


@pytest.mark.parametrize(  # parts that add, and parts that stand beside each other
    ("soft", "engine", "other"), [("mean", fl.padded(), fl.packed(2)), ("median", fl.sequential(), fl.packed(2))], ids=["mean", "median"]
)
def test_engines_agree_and_empty_slots_are_inert(soft, engine, other):
    rule, poisson = getattr(aggregators, soft)(), fl.sampling.poisson(0.5)
    expected, found = (trained(algorithm(rule, engine=each), 2, poisson) for each in (engine, other))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found[0].server.clients, expected[0].server.clients)
    np.testing.assert_allclose(found[1]["teacher_accuracy"], expected[1]["teacher_accuracy"], atol=1e-6)


@pytest.mark.parametrize("ids", [[1], [5], [6, 2], [0, 1, 2, 3]])
def test_a_family_that_nobody_came_of_keeps_its_average(ids):
    state, _ = trained(built := algorithm(), sampler=lambda key, sizes, round: fl.sampling.cohort(key, sizes, jnp.array(ids)))
    target = jnp.asarray(scipy.special.softmax(logits(ids).mean(0), axis=-1), jnp.float32)
    key = jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(3), 0)), 1)
    for k in range(2):
        came = [i for i in ids if (i >= FIRST) == k]
        average = means([*came, *([0, 1, 2, 3] if k else [4, 5, 6])])[k] if came else PARAMS[k]
        expected = distill.taught(HOW, APPLIES[k], average, PUBLIC.examples, target, jax.random.fold_in(key, k))[0]
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), built.params(state)[k], expected)


def test_eight_devices_are_one():
    built, data = algorithm(aggregators.median()), softmax_data()
    state = built.init(PARAMS, jax.random.key(0))
    cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array([6, 0, 3, 4]))
    expected = jax.jit(built.round)(state, data, cohort)[0]
    with jax.set_mesh(mesh_of(jax.devices())):
        found = jax.jit(lambda *operands: built.round(*operands))(everywhere(state), everywhere(data), everywhere(cohort))[0]
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), found.server.clients, expected.server.clients)


def test_seeds_are_vmapped():
    built = algorithm()

    def run(key):
        return built.params(fl.simulate(built, softmax_data(), PARAMS, fl.sampling.uniform(4), rounds=2, key=key)[0])

    found = jax.jit(jax.vmap(run))(jax.vmap(jax.random.key)(jnp.arange(2)))
    one = built.params(trained(built, 2, fl.sampling.uniform(4), key=1)[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, atol=1e-5), found, one)


def test_attackers_of_both_families_move_a_mean_and_not_a_median():
    attack = fl.attacks.ipm(100.0), fl.attacks.byzantine(2, POPULATION, ids=[1, 5])
    clean, mean, median = (
        built.params(trained(built)[0])
        for built in (algorithm(), algorithm(attack=attack), algorithm(aggregators.median(), aggregators.median(), attack=attack))
    )
    assert optax.tree.norm(optax.tree.sub(mean, clean)) > 3 * optax.tree.norm(optax.tree.sub(median, clean))


def test_models_that_stay_have_rows_of_their_own_family_only():
    digest = distill.lessons(optax.sgd(0.1), 2, batch_size=10)
    built = fl.federate(
        families(models=False, digest=digest), distill.pooled(LOGITS, aggregators.mean(), public=PUBLIC),
        distill.consensus_server(PUBLIC, CLASSES), batches=fl.Batches(4), population=POPULATION,
    )  # fmt: skip
    state, history = trained(built, 2, fl.sampling.uniform(4))
    assert state.own[0].model.shape == (FIRST, FEATURES, CLASSES) and state.own[1].model["narrow"].shape == (3, 2, CLASSES)
    assert history["uplink_bits"].tolist() == [4 * 32 * 20 * CLASSES] * 2 == history["downlink_bits"].tolist()
    moved = [np.abs(np.asarray(x) - np.asarray(y)).reshape(len(x), -1).max(1) > 0 for x, y in (
        (state.own[0].model, PARAMS[0][None]), (state.own[1].model["narrow"], NARROW["narrow"][None]))]  # fmt: skip
    cohorts = [fl.sampling.uniform(4)(jax.random.fold_in(jax.random.key(3), t), softmax_data().size, t).id for t in range(2)]
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate(moved)), np.unique(np.concatenate(cohorts)))


def test_a_run_resumes_to_the_same_bits(tmp_path):
    def start(rounds, out, **more):
        built = algorithm()
        return fl.run(
            built, softmax_data(), PARAMS, fl.sampling.uniform(3), rounds=rounds, evaluate_every=1, key=jax.random.key(0), progress=False,
            out=tmp_path / out, **more,
        )  # fmt: skip

    whole = start(3, "whole")
    start(2, "parts")
    jax.tree.map(np.testing.assert_array_equal, start(3, "parts", resume=True).params, whole.params)
    with pytest.raises(ValueError, match="own_on_host=True needs an algorithm whose layout tells how each client starts"):
        start(1, "host", own_on_host=True)


def three_classes_and_four():
    wide = {"narrow": jnp.zeros((2, CLASSES + 1), jnp.float32)}
    digest = distill.lessons(optax.sgd(0.1), 2, batch_size=10)
    built = fl.federate(
        families(models=False, digest=digest), distill.pooled(LOGITS, aggregators.mean()), distill.consensus_server(PUBLIC, CLASSES),
        batches=fl.Batches(4), population=POPULATION,
    )  # fmt: skip
    built.init((PARAMS[0], wide), jax.random.key(0))


def other_messages():
    return [fl.Family(work, clients) for work, clients in zip(WORKS, (4, 3), strict=True)]


def too_narrow():
    uplink = distill.soft_labels(linear, PUBLIC, LOGITS, model=True, width=5)
    uplink.update(PARAMS[0], uplink.init(PARAMS[0]), PARAMS[0], client=fl.Client(0, None, 1, 0, 1.0))


def federate(work, **more):
    return fl.federate(work, aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4), population=POPULATION, **more)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (three_classes_and_four, r"distillation: a model says \[20, 4\] of the public examples, their soft labels are \[20, 3\]"),
        (
            lambda: federate(other_messages()).init(PARAMS, jax.random.key(0)),
            r"families: .* alike, family 0 sends \[\(6, 3\)\], family 1 \[\(2, 3\)\]",
        ),
        (lambda: federate(families()[:1]), r"families of \[4\] clients are not the population of 7"),
        (lambda: federate(families(), uplink=optax.identity()), "each of several families has its own uplink"),
        (too_narrow, "soft_labels: width=5 is less than the 18 parameters"),
        (lambda: distill.distillation_server(HOW, APPLIES, PUBLIC, student=NARROW), "a student of its own is one model"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_family_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"federate: work must be a fl.ClientWork, got 3"):
        federate([fl.Family(3, 7)])
