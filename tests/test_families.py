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
from fedjax_lite.engine.placement import everywhere, mesh_of
from fedjax_lite.streams import aggregate_key

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
    works = WORKS if digest is None else [distill.digest_work(w, a, PUBLIC, digest) for w, a in zip(WORKS, applies, strict=True)]
    width = FEATURES * CLASSES if models else None
    uplinks = [distill.soft_labels(a, PUBLIC, LOGITS, model=models, width=width, then=then) for a in applies]
    return [fl.Family(w, n, u) for w, n, u in zip(works, (FIRST, POPULATION - FIRST), uplinks, strict=True)]


BATCHES = fl.Batches(4, shuffle=False)


def algorithm(soft=None, model=None, engine=fl.padded(), attack=None, **parts):  # noqa: B008 - padded() compiles fastest
    work = families(**parts)
    rule = distill.ensemble_aggregator(
        LOGITS, soft or aggregators.mean(), model or aggregators.weighted_mean(), PUBLIC, (FIRST, POPULATION - FIRST)
    )
    if attack:
        work = [family._replace(work=fl.attacks.attacked(*attack, family.work, rule)[0]) for family in work]
        rule = fl.attacks.attacked(*attack, WORKS[0], rule)[1]
    server = distill.distillation_server(HOW, APPLIES, PUBLIC)
    return fl.federate(work, rule, server, batches=BATCHES, population=POPULATION, engine=engine)


def a_round(built):
    """The models after one round and what it tells, as a function of data, clients, whether each came, and key."""

    def run(data, ids, weight, key):
        sampler = lambda key, sizes, round: fl.sampling.cohort(key, sizes, ids, weight)  # noqa: E731
        state, history = fl.simulate(built, data, PARAMS, sampler, rounds=1, key=key)
        return built.params(state), history

    return run


BUILT = algorithm()
compiled = jax.jit(a_round(BUILT))
KEY = jax.random.key(3)


def slots(came):
    """Every client, and whether it came."""
    return np.arange(POPULATION, dtype=np.int32), np.isin(np.arange(POPULATION), came).astype(np.float32)


@functools.cache
def models_of(k):
    """Each client's model after its round, had it the architecture of family k and were it there alone."""
    server, engine = fl.optimizer_server(optax.sgd(1.0)), fl.sequential()
    plain = fl.federate(WORKS[k], aggregators.mean(), server, batches=BATCHES, population=POPULATION, engine=engine)

    def one(id):
        sampler = lambda key, sizes, round: fl.sampling.cohort(key, sizes, id[None])  # noqa: E731
        return plain.params(fl.simulate(plain, softmax_data(), PARAMS[k], sampler, rounds=1, key=KEY)[0])

    return jax.tree.map(np.asarray, jax.jit(lambda ids: jax.lax.map(one, ids))(jnp.arange(POPULATION)))


def alone(client):
    return jax.tree.map(lambda x: x[client], models_of(int(client >= FIRST)))


def logits(clients):
    public = {"x": np.asarray(PUBLIC.examples["x"])}
    return np.stack([APPLIES[int(k >= FIRST)](alone(k), public, None) for k in clients])


def means(clients):
    """The weighted mean of each family's models; what it started with where nobody came."""
    size = np.array(SIZES)
    groups = [[k for k in clients if k < FIRST], [k for k in clients if k >= FIRST]]
    mean = lambda mine: lambda *x: sum(size[k] * leaf for k, leaf in zip(mine, x, strict=True)) / size[mine].sum()  # noqa: E731
    return [jax.tree.map(mean(mine), *map(alone, mine)) if mine else PARAMS[k] for k, mine in enumerate(groups)]


@functools.partial(jax.jit, static_argnums=0)
def taught(k, average, target):
    key = jax.random.fold_in(aggregate_key(jax.random.fold_in(KEY, 0)), 1)  # the server's
    return distill.teach(HOW, APPLIES[k], average, PUBLIC.examples, target, jax.random.fold_in(key, k))[0]


@pytest.mark.parametrize("came", [range(POPULATION), [1], [5], [6, 2], [0, 1, 2, 3]], ids=str)
def test_each_family_is_averaged_and_all_teach_all(came):
    """A family that nobody came of keeps its average, and is taught."""
    params, history = compiled(softmax_data(), *slots(came), KEY)
    target = scipy.special.softmax(logits(came).mean(0), axis=-1).astype(np.float32)
    for k, average in enumerate(means(came)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), params[k], taught(k, average, target))
    assert history["teacher_accuracy"][0] == pytest.approx(np.mean(logits(came).argmax(-1) == LABELS))
    assert history["ensemble_accuracy"][0] == pytest.approx(np.mean(target.argmax(-1) == LABELS))
    bits = 32 * sum(FEATURES * CLASSES if k < FIRST else 2 * CLASSES for k in came)  # each its own model, there and back
    assert history["uplink_bits"][0] == bits == history["downlink_bits"][0] and history["clients"][0] == len(came)


def close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found, expected)


@pytest.mark.deep
def test_another_engine_s_runs_side_by_side_are_the_same():
    keys, came = jax.vmap(jax.random.key)(np.arange(2)), [1, 2, 4, 6]
    found = jax.jit(jax.vmap(a_round(algorithm(engine=fl.packed(2))), (None, None, None, 0)))(softmax_data(), *slots(came), keys)
    for i in range(2):
        close(jax.tree.map(lambda x, i=i: x[i], found), compiled(softmax_data(), *slots(came), keys[i]))


@pytest.mark.parametrize(  # parts that stand beside each other, and parts that add
    ("soft", "engine", "other"),
    [
        pytest.param("median", fl.sequential(), fl.packed(2), id="median", marks=pytest.mark.deep),
        pytest.param("mean", fl.padded(), fl.packed(2), id="mean", marks=pytest.mark.slow),
    ],
)
def test_engines_agree_and_empty_slots_are_inert(soft, engine, other):
    rule, poisson = getattr(aggregators, soft)(), fl.sampling.poisson(0.5)
    expected, found = (trained(algorithm(rule, engine=each), 2, poisson) for each in (engine, other))
    close(found[0].server.clients, expected[0].server.clients)
    np.testing.assert_allclose(found[1]["teacher_accuracy"], expected[1]["teacher_accuracy"], atol=1e-6)


def trained(built, rounds, sampler):
    return jax.jit(lambda data, params: fl.simulate(built, data, params, sampler, rounds=rounds, key=KEY))(softmax_data(), PARAMS)


ATTACK = fl.attacks.ipm(100.0), fl.attacks.byzantine(2, POPULATION, ids=[1, 5])


@functools.cache
def under_attack(robust):
    """How far a client of each family that attacks moves the models of a round."""
    rules = {"soft": aggregators.median(), "model": aggregators.median()} if robust else {}
    everyone = softmax_data(), *slots(range(POPULATION)), KEY
    attacked, clean = jax.jit(a_round(algorithm(attack=ATTACK, **rules)))(*everyone)[0], compiled(*everyone)[0]
    return optax.tree.norm(optax.tree.sub(attacked, clean)) / optax.tree.norm(clean)


@pytest.mark.deep
def test_a_median_bears_attackers_of_both_families():
    assert 0 < under_attack(robust=True) < 1


@pytest.mark.slow
def test_a_mean_does_not_bear_them():
    assert under_attack(robust=False) > 3 * under_attack(robust=True)


@pytest.mark.deep
def test_eight_devices_are_one():
    run, operands = a_round(algorithm(aggregators.median())), (softmax_data(), *slots([0, 3, 4, 6]), KEY)
    with jax.set_mesh(mesh_of(jax.devices())):
        found = jax.jit(lambda *operands: run(*operands))(*everywhere(operands))
    close(found, jax.jit(run)(*operands))


def run_of_models_that_stay(out, rounds, **more):
    sampler = fl.sampling.uniform(4)
    return fl.run(STAY, softmax_data(), PARAMS, sampler, rounds=rounds, evaluate_every=1, key=KEY, progress=False, out=out, **more)


STAY = fl.federate(
    families(models=False, digest=distill.lessons(optax.sgd(0.1), 2, batch_size=10)),
    distill.ensemble_aggregator(LOGITS, aggregators.mean(), public=PUBLIC), distill.consensus_server(PUBLIC, CLASSES),
    batches=BATCHES, population=POPULATION, engine=fl.sequential(),
)  # fmt: skip


@pytest.fixture(scope="module")
def stayed(tmp_path_factory):
    """Two rounds of them."""
    return run_of_models_that_stay(tmp_path_factory.mktemp("stayed") / "run", 2)


@pytest.mark.deep
def test_models_that_stay_have_rows_of_their_own_family_only(stayed):
    state, history = stayed.state, stayed.history
    assert state.own[0].model.shape == (FIRST, FEATURES, CLASSES) and state.own[1].model["narrow"].shape == (3, 2, CLASSES)
    bits = 4 * 32 * 20 * CLASSES
    assert [(record["uplink_bits"], record["downlink_bits"]) for record in history] == [(bits, bits)] * 2
    moved = [np.abs(np.asarray(x) - np.asarray(y)).reshape(len(x), -1).max(1) > 0 for x, y in (
        (state.own[0].model, PARAMS[0][None]), (state.own[1].model["narrow"], NARROW["narrow"][None]))]  # fmt: skip
    cohort = jax.jit(lambda size, t: fl.sampling.uniform(4)(jax.random.fold_in(KEY, t), size, t).id)
    came = np.unique([cohort(softmax_data().size, t) for t in range(2)])
    np.testing.assert_array_equal(np.flatnonzero(np.concatenate(moved)), came)


@pytest.mark.deep
def test_a_run_resumes_to_the_same_bits(stayed, tmp_path):
    run_of_models_that_stay(tmp_path / "parts", 1)
    resumed = run_of_models_that_stay(tmp_path / "parts", 2, resume=True)
    jax.tree.map(np.testing.assert_array_equal, (resumed.params, resumed.state.own), (stayed.params, stayed.state.own))


def test_rows_of_families_stay_on_the_device(tmp_path):
    with pytest.raises(ValueError, match="own_on_host=True needs an algorithm whose layout tells how each client starts"):
        run_of_models_that_stay(tmp_path / "host", 1, own_on_host=True)


def test_models_of_several_architectures_are_not_fine_tuned(tmp_path):
    with pytest.raises(ValueError, match="finetune: there are models of 2 architectures, of which no client has all"):
        how = fl.FineTune(optax.sgd(0.1), fl.Batches(4))
        run_of_models_that_stay(tmp_path / "tuned", 1, finetune=how, loss_fn=distill.mean_over_models(softmax_loss, softmax_loss))
    assert not (tmp_path / "tuned").exists()


def three_classes_and_four():
    wide = {"narrow": jnp.zeros((2, CLASSES + 1), jnp.float32)}
    digest = distill.lessons(optax.sgd(0.1), 2, batch_size=10)
    built = fl.federate(
        families(models=False, digest=digest), distill.ensemble_aggregator(LOGITS, aggregators.mean()),
        distill.consensus_server(PUBLIC, CLASSES), batches=fl.Batches(4), population=POPULATION,
    )  # fmt: skip
    jax.eval_shape(built.init, (PARAMS[0], wide), jax.random.key(0))


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
            lambda: jax.eval_shape(federate(other_messages()).init, PARAMS, jax.random.key(0)),
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
