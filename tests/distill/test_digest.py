"""Models that stay with their clients (FedMD, DS-FL): against their steps one by one, what travels, what is refused."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from problems import CLASSES, FEATURES, SIZES, softmax_data, softmax_loss, softmax_params
from rounds import taught, trained

import fedjax_lite as fl
from fedjax_lite import aggregators, distill
from fedjax_lite.models import Model

EXAMPLES = {"x": np.random.default_rng(7).normal(size=(20, FEATURES)).astype(np.float32)}
LABELS = np.random.default_rng(8).integers(0, CLASSES, 20)
PUBLIC = distill.public_set(EXAMPLES, LABELS)
POPULATION, KEY = len(SIZES), 3
PARAMS = softmax_params().astype(jnp.float32)
UNSHUFFLED = fl.Batches(4, shuffle=False)
DIGEST = distill.lessons(optax.sgd(0.5), 3, batch_size=10)
LINEAR = Model(lambda key, example: PARAMS, lambda params, batch, key: batch["x"] @ params)
NARROW = {"narrow": jnp.asarray(0.1 * np.random.default_rng(9).normal(size=(2, CLASSES)), jnp.float32)}
SMALL = Model(lambda key, example: NARROW, lambda params, batch, key: batch["x"][:, :2] @ params["narrow"]), NARROW


def fedmd(public=PUBLIC, digest=DIGEST, **more):
    options = {"batches": fl.Batches(4), "engine": fl.sequential()} | more
    return fl.algorithms.fedmd([LINEAR], [POPULATION], optax.sgd(0.3), public, CLASSES, digest, **options)


@functools.cache
def local():
    """One client's training in a round, from any model: by FedAvg of it alone."""
    plain = fl.federate(
        fl.sgd_work(fl.models.supervised(LINEAR), optax.sgd(0.3)), aggregators.mean(), fl.optimizer_server(optax.sgd(1.0)),
        batches=fl.Batches(4), population=POPULATION, engine=fl.sequential(),
    )  # fmt: skip

    @jax.jit
    def after(params, id, round):
        state = plain.init(params, jax.random.key(KEY))._replace(round=round)
        alone = fl.sampling.cohort(fl.round_key(state), softmax_data().size, id[None])
        return plain.params(plain.round(state, softmax_data(), alone)[0])

    return lambda params, id, round: after(params, np.int32(id), np.int32(round))


@jax.jit
def key_of(id, round):
    return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(jax.random.key(KEY), round), id), 2**32 - 3)


COHORTS = (4, 2, 6), (2, 1, 4), (6, 2, 0)
GRID = [
    pytest.param(8, "logits", fl.sequential(), id="8-logits-sequential"),
    *(
        pytest.param(each_round, rule, engine, marks=pytest.mark.deep, id=f"{each_round}-{rule}-{name}")
        for each_round, rule, name, engine in (
            (None, "logits", "padded", fl.padded()),
            (8, "sharpened", "packed", fl.packed(2)),
            (None, "sharpened", "padded", fl.padded()),
        )
    ),
]


@pytest.mark.parametrize("each_round, rule, engine", GRID)
def test_clients_digest_the_consensus_and_revisit_their_own(each_round, rule, engine):
    """Three rounds with partial cohorts, client by client."""
    public, digest = distill.public_set(EXAMPLES, LABELS, each_round), taught(DIGEST, LINEAR.apply)
    built = fedmd(public, ensemble={"logits": None, "sharpened": distill.sharpened()}[rule], engine=engine)
    state, history = trained(built, softmax_data(), (PARAMS,), COHORTS, KEY)
    models, target, asked = {k: PARAMS for k in range(POPULATION)}, None, None
    for round, ids in enumerate(COHORTS):
        shown, asked = asked, np.arange(20) if each_round is None else (round * 8 + np.arange(8)) % 20
        for k in ids:
            start = models[k] if round == 0 else digest(models[k], {"x": EXAMPLES["x"][shown]}, target, key_of(k, round))
            models[k] = local()(start, k, round)
        z = np.stack([EXAMPLES["x"][asked] @ np.asarray(models[k]) for k in ids])
        p = scipy.special.softmax(z, axis=-1)
        target = scipy.special.softmax(z.mean(0) if rule == "logits" else p.mean(0) / 0.1, axis=-1)
        assert history["teacher_accuracy"][round] == pytest.approx(np.mean(z.argmax(-1) == LABELS[asked]))
        assert history["ensemble_accuracy"][round] == pytest.approx(np.mean(target.argmax(-1) == LABELS[asked]))
        assert history["uplink_bits"][round] == 3 * 32 * len(asked) * CLASSES == history["downlink_bits"][round]
    np.testing.assert_allclose(state.server.labels, target, atol=2e-5)
    np.testing.assert_allclose(built.params(state), np.stack([models[k] for k in range(POPULATION)]), atol=2e-5)
    assert history["update_norm"].tolist() == [0, 0, 0]  # of the global model, which there is none of


@pytest.mark.deep
def test_dsfl_has_a_student_that_learns_what_clients_do():
    some = distill.public_set(EXAMPLES, LABELS, each_round=8)
    dsfl = fl.algorithms.dsfl(
        [LINEAR], [POPULATION], optax.sgd(0.3), some, CLASSES, DIGEST, SMALL, batches=fl.Batches(4), engine=fl.sequential()
    )
    state, history = trained(dsfl, softmax_data(), (PARAMS,), [range(POPULATION)], KEY)
    models = np.stack([local()(PARAMS, k, 0) for k in range(POPULATION)])
    asked = {"x": EXAMPLES["x"][:8]}
    target = scipy.special.softmax(scipy.special.softmax(asked["x"] @ models, axis=-1).mean(0) / 0.1, axis=-1)
    np.testing.assert_allclose(state.server.labels, target, atol=2e-5)
    key = jax.random.fold_in(fl.streams.aggregate_key(jax.random.fold_in(jax.random.key(KEY), 0)), 1)
    expected = taught(DIGEST, SMALL[0].apply)(NARROW, asked, target, key)["narrow"]
    np.testing.assert_allclose(dsfl.params(state)["narrow"], expected, atol=1e-5)
    right = np.mean((EXAMPLES["x"][:, :2] @ np.asarray(expected)).argmax(-1) == LABELS)
    assert history["student_accuracy"][0] == pytest.approx(right)


@pytest.mark.deep
def test_noised_and_quantised_soft_labels_count_their_bits_and_their_epsilon():
    probabilities = distill.mean_probabilities()
    uplink = optax.chain(fl.uplink.local_gaussian(clip=np.sqrt(20), epsilon=8.0, delta=1e-5), fl.uplink.uniform(16))
    noisy = fedmd(ensemble=probabilities, uplink=uplink, batches=UNSHUFFLED)
    (first, history), (second, _) = (trained(noisy, softmax_data(), (PARAMS,), [range(POPULATION)], key) for key in range(2))
    assert history["uplink_bits"][0] - history["uplink_side_bits"][0] == POPULATION * 4 * 20 * CLASSES
    a, b = first.server.labels, second.server.labels
    assert not np.allclose(a, b) and np.isfinite(a).all()
    np.testing.assert_allclose(a.sum(-1), (a > 0).any(-1), atol=1e-5)  # probabilities, or nothing where noise left none
    with pytest.raises(ValueError, match="with a private aggregator the client work can't keep"):
        built = fedmd(ensemble=probabilities, aggregator=aggregators.dp_mean(1.0, 1.0, 3))
        jax.eval_shape(built.init, (PARAMS,), jax.random.key(KEY))


def test_clients_start_where_their_key_says():
    work = distill.digest_work(fl.sgd_work(softmax_loss, optax.sgd(0.1)), start=lambda params, key: params + jax.random.normal(key))
    built = fl.federate(
        work, distill.ensemble_aggregator(distill.mean_logits(), aggregators.mean()), distill.consensus_server(PUBLIC, CLASSES),
        batches=fl.Batches(4), population=POPULATION, uplink=distill.soft_labels(LINEAR.apply, PUBLIC, distill.mean_logits()),
    )  # fmt: skip
    models = np.asarray(jax.jit(built.init)(PARAMS, jax.random.key(KEY)).own.model)
    assert len(np.unique(models[:, 0, 0])) == POPULATION


@pytest.mark.deep
def test_a_run_of_kept_models_resumes_and_is_evaluated_by_all_models(tmp_path):
    loss, built, data, test, sampler = (
        distill.mean_over_models(fl.models.supervised(LINEAR)),
        fedmd(),
        softmax_data(),
        softmax_data((9,), seed=5),
        fl.sampling.uniform(3),
    )

    def start(rounds, out, **more):
        options = {"evaluate_every": 1, "key": jax.random.key(KEY), "progress": False, "loss_fn": loss, "test": test}
        return fl.run(built, data, (PARAMS,), sampler, rounds=rounds, out=tmp_path / out, **options, **more)

    whole = start(3, "whole")
    start(2, "parts")
    np.testing.assert_array_equal(start(3, "parts", resume=True).params, whole.params)
    logits = np.einsum("pf,kfc->kpc", test.examples["x"], whole.params)
    assert whole.history[-1]["test_accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == np.asarray(test.examples["y"])))
    told = json.loads((tmp_path / "whole" / "summary.json").read_text())["traffic"]
    assert told["client_parameters"] == [FEATURES * CLASSES] and told["uplink_bytes"] == 3 * 3 * 4 * 20 * CLASSES
    assert told["uplink_of_model"] == pytest.approx(20 / FEATURES)
    assert "accuracy on public examples" in (tmp_path / "whole" / "report.html").read_text()


def test_mean_over_families_counts_every_model_once():
    loss = distill.mean_over_models(fl.models.supervised(LINEAR), fl.models.supervised(SMALL[0]))
    stacks = np.stack([PARAMS, 2 * PARAMS]), {"narrow": np.asarray(NARROW["narrow"])[None]}
    losses, metrics = jax.jit(lambda stacks: loss(stacks, {"x": jnp.asarray(EXAMPLES["x"]), "y": jnp.asarray(LABELS)}, None))(stacks)
    each = [EXAMPLES["x"] @ np.asarray(PARAMS), 2 * EXAMPLES["x"] @ np.asarray(PARAMS), EXAMPLES["x"][:, :2] @ np.asarray(NARROW["narrow"])]
    np.testing.assert_allclose(metrics["accuracy"], np.mean([z.argmax(-1) == LABELS for z in each], axis=0), atol=1e-6)
    expected = np.mean([scipy.special.logsumexp(z, axis=-1) - z[np.arange(20), LABELS] for z in each], axis=0)
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: distill.digest_work(fl.sgd_work(softmax_loss, optax.sgd(0.1)), digest=DIGEST),
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
    ],
)
def test_bad_input_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
