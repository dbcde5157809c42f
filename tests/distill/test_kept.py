"""Models that stay with their clients (FedMD, DS-FL, FD): against their steps one by one and plain NumPy, what travels, what is refused."""

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
from fedjax_lite.models import Model

EXAMPLES = {"x": np.random.default_rng(7).normal(size=(20, FEATURES)).astype(np.float32)}
LABELS = np.random.default_rng(8).integers(0, CLASSES, 20)
PUBLIC = distill.public_set(EXAMPLES, LABELS)
POPULATION, KEY = len(SIZES), jax.random.key(3)
PARAMS = softmax_params().astype(jnp.float32)
DIGEST = distill.lessons(optax.sgd(0.5), 3, batch_size=10)
LINEAR = Model(lambda key, example: PARAMS, lambda params, batch, key: batch["x"] @ params)
NARROW = {"narrow": jnp.asarray(0.1 * np.random.default_rng(9).normal(size=(2, CLASSES)), jnp.float32)}
SMALL = Model(lambda key, example: NARROW, lambda params, batch, key: batch["x"][:, :2] @ params["narrow"]), NARROW


def fedmd(public=PUBLIC, digest=DIGEST, **more):
    return fl.algorithms.fedmd(
        [LINEAR], [POPULATION], optax.sgd(0.3), public, CLASSES, digest, batches=fl.Batches(4), engine=fl.padded(), **more
    )


def trained(built, rounds=2, sampler=None, params=(PARAMS,), key=KEY):
    sampler = sampler or fl.sampling.everyone()
    return jax.jit(lambda data, params: fl.simulate(built, data, params, sampler, rounds=rounds, key=key))(softmax_data(), params)


def cohort(sampler, round):
    return sampler(jax.random.fold_in(KEY, round), softmax_data().size, jnp.int32(round)).id


@functools.cache
def local():
    """One client's training in a round, from any model: by FedAvg of it alone."""
    plain = fl.federate(
        fl.sgd_work(fl.models.supervised(LINEAR), optax.sgd(0.3)), aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=POPULATION, engine=fl.padded(),
    )  # fmt: skip

    def after(params, id, round):
        state = plain.init(params, KEY)._replace(round=round)
        alone = fl.sampling.cohort(fl.round_key(state), softmax_data().size, id[None])
        return plain.params(plain.round(state, softmax_data(), alone)[0])

    return jax.jit(after)


def taught(model, examples, target, id, round):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, round), id), 2**32 - 3)
    return distill.taught(DIGEST, LINEAR.apply, model, examples, jnp.asarray(target, jnp.float32), key)[0]


@pytest.mark.parametrize("each_round", [None, 8])
@pytest.mark.parametrize("rule", ["logits", "sharpened"])
def test_clients_digest_the_consensus_and_revisit_their_own(each_round, rule):
    """Three rounds with partial cohorts, client by client."""
    public, sampler = distill.public_set(EXAMPLES, LABELS, each_round), fl.sampling.uniform(3)
    ensemble = {"logits": None, "sharpened": distill.sharpened()}[rule]
    state, history = trained(built := fedmd(public, ensemble=ensemble), 3, sampler)
    models, target, asked = {k: PARAMS for k in range(POPULATION)}, None, None
    for round in range(3):
        ids, shown = [int(id) for id in cohort(sampler, round)], asked
        asked = np.arange(20) if each_round is None else (round * 8 + np.arange(8)) % 20
        for k in ids:
            start = models[k] if round == 0 else taught(models[k], {"x": jnp.asarray(EXAMPLES["x"][shown])}, target, k, round)
            models[k] = local()(start, jnp.int32(k), jnp.int32(round))
        z = np.stack([EXAMPLES["x"][asked] @ np.asarray(models[k]) for k in ids])
        p = scipy.special.softmax(z, axis=-1)
        target = scipy.special.softmax(z.mean(0) if rule == "logits" else p.mean(0) / 0.1, axis=-1)
        np.testing.assert_allclose(state.server.labels if round == 2 else target, target, atol=2e-5)
        assert history["teacher_accuracy"][round] == pytest.approx(np.mean(z.argmax(-1) == LABELS[asked]))
        assert history["ensemble_accuracy"][round] == pytest.approx(np.mean(target.argmax(-1) == LABELS[asked]))
        assert history["uplink_bits"][round] == 3 * 32 * len(asked) * CLASSES == history["downlink_bits"][round]
    np.testing.assert_allclose(built.params(state), np.stack([models[k] for k in range(POPULATION)]), atol=2e-5)
    assert history["update_norm"].tolist() == [0, 0, 0]  # of the global model, which there is none of


def test_dsfl_has_a_student_that_learns_what_clients_do():
    some = distill.public_set(EXAMPLES, LABELS, each_round=8)
    dsfl = fl.algorithms.dsfl(
        [LINEAR], [POPULATION], optax.sgd(0.3), some, CLASSES, DIGEST, SMALL, batches=fl.Batches(4), engine=fl.padded()
    )
    state, history = trained(dsfl, 1)
    models = np.stack([local()(PARAMS, jnp.int32(k), jnp.int32(0)) for k in range(POPULATION)])
    asked = {"x": EXAMPLES["x"][:8]}
    target = scipy.special.softmax(scipy.special.softmax(asked["x"] @ models, axis=-1).mean(0) / 0.1, axis=-1)
    np.testing.assert_allclose(state.server.labels, target, atol=2e-5)
    key = jax.random.fold_in(fl.base.aggregate_key(jax.random.fold_in(KEY, 0)), 1)
    expected = distill.taught(DIGEST, SMALL[0].apply, NARROW, jax.tree.map(jnp.asarray, asked), state.server.labels, key)[0]["narrow"]
    np.testing.assert_allclose(dsfl.params(state)["narrow"], expected, atol=1e-5)
    right = np.mean((EXAMPLES["x"][:, :2] @ np.asarray(expected)).argmax(-1) == LABELS)
    assert history["student_accuracy"][0] == pytest.approx(right)


def test_quantised_and_noised_soft_labels_count_their_bits_and_their_epsilon():
    probabilities = distill.mean_probabilities()
    plain, few = (trained(fedmd(ensemble=probabilities, uplink=uplink), 1)[1] for uplink in (None, fl.uplink.uniform(16)))
    assert few["uplink_bits"][0] - few["uplink_side_bits"][0] == plain["uplink_bits"][0] / 8
    noisy = fedmd(ensemble=probabilities, uplink=fl.uplink.local_gaussian(clip=np.sqrt(20), epsilon=8.0, delta=1e-5))
    a, b = (trained(noisy, 1, key=jax.random.key(k))[0].server.labels for k in range(2))
    assert not np.allclose(a, b) and np.isfinite(a).all()
    np.testing.assert_allclose(a.sum(-1), (a > 0).any(-1), atol=1e-5)  # probabilities, or nothing where noise left none
    with pytest.raises(ValueError, match="with a private aggregator the client work can't keep"):
        fedmd(ensemble=probabilities, aggregator=aggregators.dp_mean(1.0, 1.0, 3)).init((PARAMS,), KEY)


def test_clients_start_where_their_key_says():
    work = distill.kept(fl.sgd_work(softmax_loss, optax.sgd(0.1)), start=lambda params, key: params + jax.random.normal(key))
    built = fl.federate(
        work, distill.pooled(distill.mean_logits(), aggregators.mean()), distill.consensus_server(PUBLIC, CLASSES),
        batches=fl.Batches(4), population=POPULATION, uplink=distill.soft_labels(LINEAR.apply, PUBLIC, distill.mean_logits()),
    )  # fmt: skip
    models = np.asarray(built.init(PARAMS, KEY).own.model)
    assert len(np.unique(models[:, 0, 0])) == POPULATION


def test_a_run_of_kept_models_resumes_and_is_evaluated_by_all_models(tmp_path):
    loss = distill.mean_over_models(fl.models.supervised(LINEAR))

    def start(rounds, out, **more):
        options = {"evaluate_every": 1, "key": KEY, "progress": False, "loss_fn": loss, "test": softmax_data((9,), seed=5)}
        return fl.run(fedmd(), softmax_data(), (PARAMS,), fl.sampling.uniform(3), rounds=rounds, out=tmp_path / out, **options, **more)

    whole = start(3, "whole")
    start(2, "parts")
    np.testing.assert_array_equal(start(3, "parts", resume=True).params, whole.params)
    test = softmax_data((9,), seed=5).examples
    logits = np.einsum("pf,kfc->kpc", test["x"], whole.params)
    assert whole.history[-1]["test_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == np.asarray(test["y"])))
    told = json.loads((tmp_path / "whole" / "summary.json").read_text())["traffic"]
    assert told["client_parameters"] == [FEATURES * CLASSES] and told["uplink_bytes"] == 3 * 3 * 4 * 20 * CLASSES
    assert told["uplink_of_model"] == pytest.approx(20 / FEATURES)
    assert "accuracy on public examples" in (tmp_path / "whole" / "report.html").read_text()


# FD, in plain NumPy


def fd(gamma=0.5, **more):
    return fl.algorithms.fd(LINEAR, optax.sgd(0.2), CLASSES, batches=fl.Batches(None, epochs=2), population=POPULATION, gamma=gamma, **more)


def fd_by_hand(rounds, gamma, cohorts):
    """Full-batch steps of every client in turn; what was said of a round is of its cohort."""
    data, W = softmax_data(), {k: np.asarray(PARAMS, float) for k in range(POPULATION)}
    said = {}
    for round in range(rounds):
        now = {}
        for k in cohorts[round]:
            x, y = (np.asarray(data.client(k)[name]) for name in ("x", "y"))
            others = [said[j] for j in said if j != k]
            soft = np.zeros((len(y), CLASSES))
            for i, label in enumerate(y):
                rows = [outputs[label] for outputs, has in others if has[label]]
                soft[i] = np.mean(rows, axis=0) if rows else 0
            sums, number = np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES)
            for _ in range(2):
                p = scipy.special.softmax(x @ W[k], axis=-1)
                for i, label in enumerate(y):
                    sums[label] += p[i]
                    number[label] += 1
                hard = np.eye(CLASSES)[y]
                slope = (p - hard) + gamma * (soft.sum(-1, keepdims=True) * p - soft)
                W[k] = W[k] - 0.2 * x.T @ slope / len(y)
            now[k] = sums / np.maximum(number, 1)[:, None], number > 0
        said = now
    return np.stack([W[k] for k in range(POPULATION)])


@pytest.mark.parametrize("gamma", [0.0, 0.5])
@pytest.mark.parametrize("clients", [3, POPULATION])
def test_fd_is_the_papers_loop(gamma, clients):
    sampler = fl.sampling.uniform(clients)
    state, history = trained(built := fd(gamma, engine=fl.padded()), 3, sampler, PARAMS)
    cohorts = [[int(id) for id in cohort(sampler, round)] for round in range(3)]
    np.testing.assert_allclose(built.params(state), fd_by_hand(3, gamma, cohorts), atol=2e-5)
    assert history["uplink_bits"].tolist() == [clients * 32 * (CLASSES * CLASSES + CLASSES)] * 3


def test_fd_of_one_client_is_training_alone_and_of_none_nothing():
    one = fl.sampling.uniform(1)
    cohorts = [[int(id) for id in cohort(one, round)] for round in range(2)]
    np.testing.assert_allclose(trained(fd(), 2, one, PARAMS)[0].own.model, fd_by_hand(2, 0.0, cohorts), atol=2e-5)
    nobody = lambda key, sizes, round: fl.sampling.cohort(key, sizes, jnp.arange(2), jnp.zeros(2))  # noqa: E731
    state, _ = trained(fd(), 2, nobody, PARAMS)
    np.testing.assert_array_equal(state.own.model, np.broadcast_to(PARAMS, (POPULATION, *PARAMS.shape)))
    assert state.server[1] == -1


def test_mean_over_families_counts_every_model_once():
    loss = distill.mean_over_models(fl.models.supervised(LINEAR), fl.models.supervised(SMALL[0]))
    batch = {"x": EXAMPLES["x"], "y": LABELS}
    stacks = jnp.stack([PARAMS, 2 * PARAMS]), jax.tree.map(lambda x: x[None], NARROW)
    losses, metrics = loss(stacks, batch, None)
    each = [EXAMPLES["x"] @ np.asarray(PARAMS), 2 * EXAMPLES["x"] @ np.asarray(PARAMS), EXAMPLES["x"][:, :2] @ np.asarray(NARROW["narrow"])]
    np.testing.assert_allclose(metrics["accuracy"], np.mean([z.argmax(-1) == LABELS for z in each], axis=0), atol=1e-6)
    expected = np.mean([scipy.special.logsumexp(z, axis=-1) - z[np.arange(20), LABELS] for z in each], axis=0)
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: distill.kept(fl.sgd_work(softmax_loss, optax.sgd(0.1)), digest=DIGEST),
            "kept: digest needs apply, of the client's model, and public",
        ),
        (lambda: distill.consensus_server(PUBLIC, CLASSES, how=DIGEST), "a student needs how, apply and student"),
        (lambda: distill.consensus_server(PUBLIC, 1), "consensus_server: classes must be"),
        (
            lambda: distill.consensus_server(PUBLIC, 4, how=DIGEST, apply=SMALL[0].apply, student=NARROW).init(PARAMS),
            "the student has another number of classes than classes=4",
        ),
        (lambda: distill.public_set(EXAMPLES, LABELS[:3]), r"public: labels of the shape \(3,\) for 20 examples"),
        (lambda: distill.public_set(EXAMPLES, each_round=21), "public: each_round=21 is more than the 20 public examples"),
        (lambda: distill.public_set(EXAMPLES, each_round=0), "public: each_round must be"),
        (lambda: fd(-1.0), "fd: gamma must be at least 0, got -1.0"),
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
