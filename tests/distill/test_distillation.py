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

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.base import aggregate_key

PUBLIC = {"x": np.random.default_rng(7).normal(size=(30, FEATURES)).astype(np.float32)}
LABELS = np.random.default_rng(8).integers(0, CLASSES, 30)
HOW = distill.lessons(optax.sgd(0.5), 7, batch_size=10)
STUDENT = {"narrow": jnp.asarray(0.1 * np.random.default_rng(9).normal(size=(2, CLASSES)), jnp.float32)}
RATE, WORK = 0.3, fl.sgd_work(softmax_loss, optax.sgd(0.3))
DENSE = 32 * FEATURES * CLASSES


def linear(params, batch, key):
    del key
    return batch["x"] @ params


def narrow(params, batch, key):
    """A smaller model: it looks at two features."""
    del key
    return batch["x"][:, :2] @ params["narrow"]


def algorithm(ensemble=None, soft=None, model="weighted", student=None, uplink=None, work=WORK, labels=LABELS, **parts):
    ensemble = ensemble or distill.mean_logits()
    model = aggregators.weighted_mean() if model == "weighted" else model
    server = {"how": HOW, "apply": linear if student is None else narrow, "public": PUBLIC, "student": student}
    return fl.federate(
        work,
        distill.pooled(ensemble, soft or aggregators.mean(), model, distill.public_set(PUBLIC, labels)),
        distill.distillation_server(**server | {name: parts.pop(name) for name in ("fresh", "server", "how") if name in parts}),
        batches=fl.Batches(4), population=len(SIZES),
        uplink=uplink or distill.soft_labels(linear, PUBLIC, ensemble, model=model is not None), **parts,
    )  # fmt: skip


def trained(built, rounds=1, sampler=None, data=None, key=3):
    data = data or softmax_data()
    return fl.simulate(built, data, softmax_params(), sampler or fl.sampling.everyone(), rounds=rounds, key=jax.random.key(key))


@functools.cache
def clients_models():
    """Each client's model after its round, alone in it: what a client does is a function of the round's key and its id."""
    plain = fl.federate(WORK, aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)), batches=fl.Batches(4), population=len(SIZES))

    def alone(k):
        return plain.params(trained(plain, sampler=lambda key, sizes, round: fl.sampling.cohort(key, sizes, k[None]))[0])

    return np.asarray(jax.jit(lambda ids: jax.lax.map(alone, ids))(jnp.arange(len(SIZES))))


def softmax(z):
    return scipy.special.softmax(z, axis=-1)


def learned(start, target, apply, key):
    return distill.taught(HOW, apply, start, jax.tree.map(jnp.asarray, PUBLIC), jnp.asarray(target, jnp.float32), key)[0]


WEIGHTS = np.array(SIZES) / sum(SIZES)
KEY = jax.random.fold_in(aggregate_key(jax.random.fold_in(jax.random.key(3), 0)), 1)  # the server's, in round 0


def logits():
    return np.einsum("pf,kfc->kpc", PUBLIC["x"], clients_models())


ENSEMBLES = {
    "logits": (distill.mean_logits(), lambda: softmax(logits().mean(0))),
    "probabilities": (distill.mean_probabilities(), lambda: softmax(logits()).mean(0)),
    "sharpened": (distill.sharpened(), lambda: softmax(softmax(logits()).mean(0) / 0.1)),
}


@pytest.mark.parametrize("name", ENSEMBLES)
def test_without_a_student_of_its_own_the_mean_of_the_models_is_taught(name):
    ensemble, target = ENSEMBLES[name]
    state, history = trained(built := algorithm(ensemble))
    average = np.einsum("k,kfc->fc", WEIGHTS, clients_models())
    expected = learned(jnp.asarray(average, jnp.float32), target(), linear, KEY)
    np.testing.assert_allclose(built.params(state), expected, atol=1e-5)
    np.testing.assert_allclose(state.server.clients.params, expected, atol=1e-5)  # where clients start from next
    assert history["ensemble_accuracy"][0] == pytest.approx(np.mean(target().argmax(-1) == LABELS))
    assert history["teacher_accuracy"][0] == pytest.approx(np.mean(logits().argmax(-1) == LABELS))
    assert history["update_norm"][0] == pytest.approx(np.linalg.norm(expected - softmax_params()), rel=1e-4)


def test_a_student_of_its_own_goes_on_from_where_it_was_or_begins_anew():
    state, _ = trained(built := algorithm(student=STUDENT))
    np.testing.assert_allclose(built.params(state)["narrow"], learned(STUDENT, softmax(logits().mean(0)), narrow, KEY)["narrow"], atol=1e-5)
    average = np.einsum("k,kfc->fc", WEIGHTS, clients_models())
    np.testing.assert_allclose(state.server.clients.params, average, atol=1e-5)  # clients go on from the mean of their models
    for fresh in (False, True):  # a second round from the student as it is, or as it first was
        before = state._replace(server=state.server._replace(student=STUDENT)) if fresh else state
        expected = fl.advance(built, softmax_data(), before, fl.sampling.everyone(), rounds=1)[0].server.student["narrow"]
        found = trained(algorithm(student=STUDENT, fresh=fresh), rounds=2)[0].server.student["narrow"]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bits_are_those_of_what_travels():
    every = len(SIZES)
    told = trained(algorithm())[1]
    assert told["uplink_bits"][0] == every * DENSE == told["downlink_bits"][0]
    compressed = optax.chain(fl.uplink.random_k(0.5), distill.soft_labels(linear, PUBLIC, distill.mean_logits(), model=True))
    assert trained(algorithm(uplink=compressed))[1]["uplink_bits"][0] < 0.7 * every * DENSE
    alone = trained(algorithm(model=None, student=STUDENT))[1]
    assert alone["uplink_bits"][0] == every * 32 * 30 * CLASSES
    quantised = distill.soft_labels(linear, PUBLIC, distill.mean_probabilities(), then=fl.uplink.uniform(16))
    fewer = trained(algorithm(distill.mean_probabilities(), model=None, student=STUDENT, uplink=quantised))[1]
    assert fewer["uplink_bits"][0] - fewer["uplink_side_bits"][0] == every * 4 * 30 * CLASSES


def test_poisoned_soft_labels_move_a_mean_and_not_a_median():
    """Two of seven say 1000 times the opposite of what all say."""
    attack, byzantine = fl.attacks.ipm(1000.0), fl.attacks.byzantine(2, len(SIZES), ids=[1, 5])

    def far(soft):
        ensemble = distill.mean_logits()
        rule = distill.pooled(ensemble, soft, None)
        work, rule = fl.attacks.attacked(attack, byzantine, WORK, rule)
        built = fl.federate(
            work, rule, distill.distillation_server(HOW, narrow, PUBLIC, student=STUDENT), batches=fl.Batches(4), population=len(SIZES),
            uplink=distill.soft_labels(linear, PUBLIC, ensemble),
        )  # fmt: skip
        clean = trained(algorithm(ensemble, soft, None, STUDENT))[0].server.student["narrow"]
        return np.linalg.norm(trained(built)[0].server.student["narrow"] - clean)

    assert far(aggregators.mean()) > 3 * far(aggregators.median())


def test_soft_labels_can_be_private():
    """Probabilities clipped and noised once for the cohort, accounted for as any private message."""
    soft = aggregators.dp_mean(clip=5.0, noise_multiplier=1.0, clients_per_round=7)
    built = algorithm(distill.mean_probabilities(), soft, None, STUDENT)
    assert fl.privacy.account(built.privacy, fl.sampling.everyone(), 7, 1, 1e-3).pld > 0
    _, history = trained(built)
    assert np.isfinite(history["noise_to_signal"]).all() and history["clip_norm"][0] == 5
    with pytest.raises(ValueError, match="soft labels can't be private where models travel"):
        algorithm(soft=soft)


@pytest.mark.parametrize("engine", [fl.packed(3), fl.padded()])
def test_engines_and_empty_slots_give_the_same(engine):
    poisson = fl.sampling.poisson(0.5)
    expected, measured = trained(algorithm(soft=aggregators.median(), engine=fl.sequential()), 2, poisson)
    state, history = trained(algorithm(soft=aggregators.median(), engine=engine), 2, poisson)
    np.testing.assert_allclose(state.server.clients.params, expected.server.clients.params, atol=1e-5)
    np.testing.assert_allclose(history["teacher_accuracy"], measured["teacher_accuracy"], atol=1e-6)


def test_a_round_without_clients_teaches_nothing():
    state, _ = trained(algorithm(), sampler=fl.sampling.dropout(fl.sampling.uniform(2), 0.999999))
    np.testing.assert_array_equal(state.server.clients.params, softmax_params().astype(np.float32))


def test_seeds_are_vmapped_and_share_the_public_examples():
    built = algorithm(student=STUDENT)
    run = jax.jit(
        jax.vmap(
            lambda key: built.params(fl.simulate(built, softmax_data(), softmax_params(), fl.sampling.poisson(0.5), rounds=2, key=key)[0])
        )
    )
    found = run(jax.vmap(jax.random.key)(jnp.arange(3)))["narrow"]
    for i in range(3):
        np.testing.assert_allclose(found[i], built.params(trained(built, 2, fl.sampling.poisson(0.5), key=i)[0])["narrow"], atol=1e-5)


def test_a_run_resumes_to_the_same_bits_and_never_teaches_on_the_test(tmp_path):
    def start(rounds, out, **more):
        loss = lambda params, batch, key: softmax_loss(jnp.zeros((FEATURES, CLASSES)).at[:2].set(params["narrow"]), batch, key)  # noqa: E731
        options = {"rounds": rounds, "evaluate_every": 1, "key": jax.random.key(0), "progress": False, "loss_fn": loss}
        return fl.run(
            algorithm(student=STUDENT), softmax_data(), softmax_params(), fl.sampling.uniform(3), out=tmp_path / out, **options, **more
        )

    whole = start(3, "whole")
    start(2, "parts")
    again = start(3, "parts", resume=True)
    np.testing.assert_array_equal(again.params["narrow"], whole.params["narrow"])
    assert [json.loads(line)["ensemble_accuracy"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    test = fl.FederatedData.from_clients([{"x": PUBLIC["x"][:20], "y": LABELS[:20]}])
    with pytest.raises(ValueError, match="public: 20 of 30 public examples are the test's"):
        start(1, "other", test=test)


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
            lambda: trained(fl.federate(
                WORK, distill.pooled(distill.mean_logits(), aggregators.mean()),
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
