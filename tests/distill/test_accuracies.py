"""What is told of teachers and their ensemble: of models, however much their say counts, and of soft labels that there are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fedjax_lite as fl
from fedjax_lite import distill
from fedjax_lite.distill.public_set import _times
from fedjax_lite.uplink.client_metrics import metrics_of

LABELS = np.array([0, 0, 1, 2])
PUBLIC = distill.public_set({"x": np.eye(4, dtype=np.float32)}, LABELS)
RIGHT = np.eye(3, dtype=np.float32)[LABELS]  # a model is its logits
WRONG = np.eye(3, dtype=np.float32)[(LABELS + 1) % 3]
ONE = fl.Client(jnp.int32(0), jax.random.key(0), jnp.int32(1), jnp.int32(1), jnp.float32(1))


def logits_of(params, batch, key):
    return batch["x"] @ params


@pytest.mark.parametrize(
    ("weigh", "model", "accuracy"),
    [
        (distill.by_accuracy(LABELS), WRONG, 0.0),
        (distill.by_class_counts([[0, 1, 1]]), RIGHT, 1.0),
        (distill.by_certainty(), np.where(np.arange(4)[:, None] < 3, RIGHT, WRONG), 0.75),
        (None, RIGHT, 1.0),
    ],
)
def test_a_teachers_accuracy_is_that_of_its_model_whatever_its_weight(weigh, model, accuracy):
    uplink = distill.soft_labels(logits_of, PUBLIC, distill.mean_logits(weigh=weigh))
    state = uplink.init(jnp.zeros((4, 3)))
    _, state = uplink.update(jnp.asarray(model), state, jnp.zeros((4, 3)), client=ONE)
    assert metrics_of(state)["teacher_accuracy"].value() == accuracy


def test_it_is_the_mean_over_the_clients_of_a_round_attackers_or_not():
    """Models of half and of no accuracy, which no step changes; an attack on messages does not touch what is told."""

    def finish(shared, own, carry, client):
        half = jnp.asarray(np.where(np.arange(4)[:, None] < 2, RIGHT, WRONG))
        return jnp.where(client.id == 0, half, jnp.asarray(WRONG)), (), {}

    work = fl.ClientWork(lambda params, key: (), lambda shared, own, client: (), lambda shared, own, carry, batch: (carry, {}), finish)
    ensemble = distill.mean_logits(weigh=distill.by_accuracy(LABELS))
    work, rule = fl.attacks.attacked(
        fl.attacks.ipm(1000.0),
        fl.attacks.byzantine(1, 2),
        work,
        distill.ensemble_aggregator(ensemble, fl.aggregators.mean(), public=PUBLIC),
    )
    built = fl.federate(
        work, rule, distill.consensus_server(PUBLIC, 3), batches=fl.Batches(1, steps=1), population=2,
        uplink=distill.soft_labels(logits_of, PUBLIC, ensemble),
    )  # fmt: skip
    data = fl.FederatedData.from_clients([{"x": np.ones(1)}] * 2)

    def run(data):
        state = built.init(jnp.zeros((4, 3)), jax.random.key(0))
        cohort = fl.sampling.everyone()(jax.random.key(0), data.size, 0)
        return built.round(state, data, cohort)[1]

    assert jax.jit(run)(data)["teacher_accuracy"] == 0.25


def test_soft_labels_that_nobody_had_a_say_in_are_not_right():
    ensemble = distill.mean_logits(weigh=distill.by_class_counts([[1, 1, 1]]))
    rule = distill.ensemble_aggregator(ensemble, fl.aggregators.mean(), public=PUBLIC)
    for weight, accuracy in (([1.0] * 4, 1.0), ([0.0] * 4, 0.0), ([1.0, 0.0, 1.0, 0.0], 0.5)):
        weight = jnp.asarray(weight)[None, :, None]
        weighted = ensemble.say(jnp.asarray(RIGHT), ONE)._replace(total=RIGHT[None] * weight, weight=weight * jnp.ones((1, 4, 3)))
        said = distill.Knowledge(weighted)
        cohort = jax.tree.map(lambda x: x[None], ONE)
        state = rule.init(jax.tree.map(lambda x: x[0], said))
        assert rule.finish(rule.collect(said, cohort, state), state, jax.random.key(0))[2]["ensemble_accuracy"] == accuracy


@pytest.mark.parametrize("each_round", [1, 2])
def test_weights_by_accuracy_need_the_labels_of_a_rounds_examples(each_round):
    some = distill.public_set(PUBLIC.examples, each_round=each_round)
    uplink = distill.soft_labels(logits_of, some, distill.mean_logits(weigh=distill.by_accuracy(LABELS)))
    with pytest.raises(ValueError, match=f"by_accuracy: 4 labels, and a model speaks of {each_round} examples: .*leave each_round out"):
        uplink.init(jnp.zeros((4, 3)))


@pytest.mark.parametrize("length, each_round", [(200_000, 60_000), (199_999, 60_001), (2**30 - 1, 2**30 - 2), (7, 3)])
def test_each_round_begins_where_the_last_ended_in_late_rounds_too(length, each_round):
    first = jax.jit(lambda round: _times(round % length, each_round, length))
    for round in (0, 1, 35_791, 35_792, 199_999, 10**9, 2**31 - 1):
        assert int(first(np.int32(round))) == round * each_round % length, round


ADAMW = optax.adamw(0.1, weight_decay=0.1)


@pytest.mark.parametrize("held_out", [0, 1])
def test_where_nothing_is_agreed_on_nothing_is_learnt(held_out):
    """Weight decay, too, is a step; some of the labels are enough for it."""
    how = distill.lessons(ADAMW, 20, batch_size=2, held_out=held_out, every=5)
    run = jax.jit(lambda target: distill.teach(how, logits_of, jnp.asarray(RIGHT), PUBLIC.examples, target, jax.random.key(0)))
    only_held_out = np.zeros((4, 3), np.float32)
    only_held_out[3:] = 1 / 3 if held_out else 0
    for nothing in (np.zeros((4, 3), np.float32), only_held_out):
        params, steps, _ = run(nothing)
        np.testing.assert_array_equal(params, RIGHT)
        assert steps == 0
    half = np.float32([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert np.abs(run(half)[0] - RIGHT).max() > 0.1 or held_out
    assert run(half)[1] > 0 and (np.isnan(run(half * np.nan)[0]).any() or held_out)
