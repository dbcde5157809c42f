"""Server-side distillation as a round: against its steps one by one, what travels, what is refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params
from rounds import filled, taught, trained

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.distill import Knowledge, Lesson
from fedjax_lite.ledger import sent
from fedjax_lite.streams import aggregate_key

PUBLIC = {"x": np.random.default_rng(7).normal(size=(30, FEATURES)).astype(np.float32)}
LABELS = np.random.default_rng(8).integers(0, CLASSES, 30)
HOW = distill.lessons(optax.sgd(0.5), 7, batch_size=10)
STUDENT = {"narrow": (0.1 * np.random.default_rng(9).normal(size=(2, CLASSES))).astype(np.float32)}
RATE, WORK = 0.3, fl.sgd_work(softmax_loss, optax.sgd(0.3))
UNSHUFFLED = fl.Batches(4, shuffle=False)
DENSE = 32 * FEATURES * CLASSES


def linear(params, batch, key):
    del key
    return batch["x"] @ params


def narrow(params, batch, key):
    """A smaller model: it looks at two features."""
    del key
    return batch["x"][:, :2] @ params["narrow"]


def algorithm(ensemble=None, soft=None, model="weighted", student=None, uplink=None, work=WORK, pool=None, **parts):
    ensemble = ensemble or distill.mean_logits()
    model = aggregators.weighted_mean() if model == "weighted" else model
    server = {"how": HOW, "apply": linear if student is None else narrow, "public": PUBLIC, "student": student}
    return fl.federate(
        work,
        pool or distill.ensemble_aggregator(ensemble, soft or aggregators.mean(), model, distill.public_set(PUBLIC, LABELS)),
        distill.distillation_server(**server | {name: parts.pop(name) for name in ("fresh", "server", "how") if name in parts}),
        uplink=uplink or distill.soft_labels(linear, distill.public_set(PUBLIC, LABELS), ensemble, model=model is not None),
        **{"batches": UNSHUFFLED, "population": len(SIZES), "engine": fl.sequential()} | parts,
    )


EVERYONE = range(len(SIZES))
DEFAULT, OF_ITS_OWN = algorithm(), algorithm(student=STUDENT)


def rounds(built, *cohorts, key=3):
    """The state after rounds with these cohorts, or one with everyone, and the metrics."""
    return trained(built, softmax_data(), softmax_params(), [filled(ids, len(SIZES)) for ids in cohorts or (EVERYONE,)], key)


@functools.cache
def clients_models():
    """Each client's model after its round, alone in it: what a client does is a function of the round's key and its id."""
    plain = fl.federate(
        WORK, aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=UNSHUFFLED, population=len(SIZES), engine=fl.sequential()
    )
    return np.stack([plain.params(trained(plain, softmax_data(), softmax_params(), [(k,)], 3)[0]) for k in EVERYONE])


def softmax(z):
    return scipy.special.softmax(z, axis=-1)


def learned(start, target, apply, key):
    return taught(HOW, apply)(start, PUBLIC, target, key)


WEIGHTS = np.array(SIZES) / sum(SIZES)
KEY = jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(3), 0)), 1)  # the server's, in round 0


def logits():
    return np.einsum("pf,kfc->kpc", PUBLIC["x"], clients_models())


ENSEMBLES = {
    "logits": (distill.mean_logits(), lambda: softmax(logits().mean(0))),
    "probabilities": (distill.mean_probabilities(), lambda: softmax(logits()).mean(0)),
    "sharpened": (distill.sharpened(), lambda: softmax(softmax(logits()).mean(0) / 0.1)),
}


@pytest.mark.parametrize("name", ["logits", *(pytest.param(name, marks=pytest.mark.deep) for name in ("probabilities", "sharpened"))])
def test_without_a_student_of_its_own_the_mean_of_the_models_is_taught(name):
    ensemble, target = ENSEMBLES[name]
    built = DEFAULT if name == "logits" else algorithm(ensemble)
    state, history = rounds(built)
    average = np.einsum("k,kfc->fc", WEIGHTS, clients_models())
    expected = learned(average.astype(np.float32), target(), linear, KEY)
    np.testing.assert_allclose(built.params(state), expected, atol=1e-5)
    np.testing.assert_allclose(state.server.clients.params, expected, atol=1e-5)  # where clients start from next
    assert history["ensemble_accuracy"][0] == pytest.approx(np.mean(target().argmax(-1) == LABELS))
    assert history["teacher_accuracy"][0] == pytest.approx(np.mean(logits().argmax(-1) == LABELS))
    assert history["update_norm"][0] == pytest.approx(np.linalg.norm(expected - softmax_params()), rel=1e-4)
    assert history["uplink_bits"][0] == len(SIZES) * DENSE == history["downlink_bits"][0]


@pytest.mark.deep
def test_a_student_of_its_own_goes_on_from_where_it_was_or_begins_anew():
    state, _ = rounds(OF_ITS_OWN)
    expected = learned(STUDENT, softmax(logits().mean(0)), narrow, KEY)["narrow"]
    np.testing.assert_allclose(OF_ITS_OWN.params(state)["narrow"], expected, atol=1e-5)
    average = np.einsum("k,kfc->fc", WEIGHTS, clients_models())
    np.testing.assert_allclose(state.server.clients.params, average, atol=1e-5)  # clients go on from the mean of their models

    @jax.jit
    def later(target, key):
        """What a server that has taught once, and one that begins anew, make of the same lesson."""
        info, servers = (
            fl.Info(1, key, {}),
            [distill.distillation_server(HOW, narrow, PUBLIC, student=STUDENT, fresh=f) for f in (False, True)],
        )
        return [server.update(Lesson(target), state.server, info).student["narrow"] for server in servers]

    target = softmax(logits().mean(0))
    for found, before in zip(later(target.astype(np.float32), KEY), (state.server.student, STUDENT), strict=True):
        np.testing.assert_allclose(found, learned(before, target, narrow, KEY)["narrow"], atol=1e-5)


def test_bits_are_those_of_what_travels():
    quantised = distill.soft_labels(linear, PUBLIC, distill.mean_probabilities(), then=fl.uplink.uniform(16))

    @jax.jit
    def bits(change, params):
        client = fl.Client(jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(0), jnp.ones(()))
        soft, state = quantised.update(change, quantised.init(change), params, client=client, key=client.key)
        return sent(state, soft)

    found = bits(softmax_params(), softmax_params())
    assert (found.payload, found.side) == (4 * 30 * CLASSES, 64)


@pytest.mark.deep
def test_bits_of_compressed_models_and_of_soft_labels_alone():
    compressed = optax.chain(fl.uplink.random_k(0.5), distill.soft_labels(linear, PUBLIC, distill.mean_logits(), model=True))
    assert rounds(algorithm(uplink=compressed))[1]["uplink_bits"][0] < 0.7 * len(SIZES) * DENSE
    alone = rounds(algorithm(model=None, student=STUDENT))[1]
    assert alone["uplink_bits"][0] == len(SIZES) * 32 * 30 * CLASSES


def targets(rule, soft):
    """The soft labels of a rule, and its metrics, of what everyone says."""
    data = softmax_data()
    cohort = fl.sampling.cohort(jax.random.key(0), data.size, jnp.arange(len(SIZES)))
    state = rule.init(jax.tree.map(lambda x: x[0], Knowledge(soft)))
    lesson, _, metrics = rule.finish(rule.collect(Knowledge(soft), cohort, state), state, jax.random.key(1))
    return lesson.target, metrics


RULES = {"mean": aggregators.mean(), "median": aggregators.median()}
POISON, BYZANTINE = fl.attacks.ipm(1000.0), [1, 5]  # they say 1000 times the opposite of what all say


def test_poisoned_soft_labels_move_a_mean_and_not_a_median():
    @jax.jit
    def run(soft, byzantine):
        each = {name: distill.ensemble_aggregator(distill.mean_logits(), rule) for name, rule in RULES.items()}
        return {name: targets(fl.attacks.attacked(POISON, byzantine, WORK, rule)[1], soft)[0] for name, rule in each.items()}

    said = logits().astype(np.float32)
    poisoned, clean = (run(said, np.isin(EVERYONE, ids)) for ids in (BYZANTINE, []))
    np.testing.assert_allclose(clean["mean"], softmax(said.mean(0)), atol=1e-5)
    assert np.linalg.norm(poisoned["mean"] - clean["mean"]) > 3 * np.linalg.norm(poisoned["median"] - clean["median"])


def test_soft_labels_can_be_private():
    """Probabilities clipped and noised once for the cohort, accounted for as any private message."""
    ensemble, soft = distill.mean_probabilities(), aggregators.dp_mean(clip=5.0, noise_multiplier=1.0, clients_per_round=7)
    built = algorithm(ensemble, soft, None, STUDENT)
    assert fl.privacy.account(built.privacy, fl.sampling.everyone(), 7, 1, 1e-3).pld > 0
    target, metrics = jax.jit(lambda soft_: targets(distill.ensemble_aggregator(ensemble, soft), soft_))(
        softmax(logits()).astype(np.float32)
    )
    assert np.isfinite(metrics["noise_to_signal"]) and metrics["clip_norm"] == 5
    assert np.abs(target - softmax(logits()).mean(0)).max() > 0.01
    with pytest.raises(ValueError, match="soft labels can't be private where models travel"):
        algorithm(soft=soft)


@pytest.mark.deep
@pytest.mark.parametrize("engine", [fl.packed(3), fl.padded()])
def test_engines_and_empty_slots_give_the_same(engine):
    cohorts = (4, 99, 2, 6, -1), (2, 1, 99, -1, 4)
    expected, measured = rounds(algorithm(soft=aggregators.median()), *cohorts)
    state, history = rounds(algorithm(soft=aggregators.median(), engine=engine), *cohorts)
    np.testing.assert_allclose(state.server.clients.params, expected.server.clients.params, atol=1e-5)
    np.testing.assert_allclose(history["teacher_accuracy"], measured["teacher_accuracy"], atol=1e-6)


def test_a_round_without_clients_teaches_nothing():
    state, _ = rounds(DEFAULT, ())
    np.testing.assert_array_equal(state.server.clients.params, softmax_params().astype(np.float32))


@pytest.mark.deep
def test_seeds_are_vmapped_and_share_the_public_examples():
    data = softmax_data()

    def run(key):
        state = OF_ITS_OWN.init(softmax_params(), jax.random.key(key))
        cohort = fl.sampling.cohort(fl.round_key(state), data.size, jnp.array(filled((4, 2, 6), len(SIZES))))
        return OF_ITS_OWN.params(OF_ITS_OWN.round(state, data, cohort)[0])["narrow"]

    found = jax.jit(jax.vmap(run))(np.arange(3))
    for key in range(3):
        np.testing.assert_allclose(found[key], rounds(OF_ITS_OWN, (4, 2, 6), key=key)[0].server.student["narrow"], atol=1e-5)


def run(rounds, out, **more):
    """A whole run, with a student of its own."""
    options = {"rounds": rounds, "evaluate_every": 1, "key": jax.random.key(0), "progress": False, "loss_fn": narrow_loss}
    return fl.run(OF_ITS_OWN, softmax_data(), softmax_params(), THREE, out=out, **options, **more)


def narrow_loss(params, batch, key):
    return softmax_loss(jnp.zeros((FEATURES, CLASSES)).at[:2].set(params["narrow"]), batch, key)


THREE = fl.sampling.uniform(3)


def test_what_is_learned_from_is_never_the_test(tmp_path):
    test = fl.FederatedData.from_clients([{"x": PUBLIC["x"][:20], "y": LABELS[:20]}])
    with pytest.raises(ValueError, match="public: 20 of 30 public examples are the test's"):
        run(1, tmp_path / "run", test=test)


@pytest.mark.deep
def test_a_run_resumes_to_the_same_bits(tmp_path):
    whole = run(3, tmp_path / "whole")
    run(2, tmp_path / "parts")
    np.testing.assert_array_equal(run(3, tmp_path / "parts", resume=True).params["narrow"], whole.params["narrow"])
    assert [json.loads(line)["ensemble_accuracy"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: algorithm(fresh=True), "distillation_server: fresh=True is for a student of its own"),
        (lambda: distill.distillation_server(HOW, linear, {"x": np.zeros((0, FEATURES))}), "public: there are no public examples"),
        (lambda: distill.distillation_server(HOW, linear, {"x": np.full((2, FEATURES), np.nan)}), "holds NaN or Inf"),
        (
            lambda: distill.soft_labels(linear, PUBLIC, distill.mean_logits(), model=True, then=optax.identity()),
            "soft_labels: with model=True soft labels are made at the server",
        ),
        (
            lambda: rounds(fl.federate(
                WORK, distill.ensemble_aggregator(distill.mean_logits(), aggregators.mean()),
                distill.distillation_server(HOW, linear, {"x": np.zeros((4, 9))}),
                batches=fl.Batches(4), population=7,
            )),
            r"public: examples of the shapes \[\(4, 9\)\] are none for the student's model",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
