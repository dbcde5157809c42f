"""What a message takes behind a secure sum: every coordinate the same, whatever compressors did before."""

import jax
import numpy as np
import optax
import pytest
from contract.works import federate
from problems import simulate, softmax_data, softmax_params

import fedjax_lite as fl
from fedjax_lite import aggregators, uplink

COORDINATES = 18
PADDED = 32


def of_clients(kind, **others):
    return kind(clip=1.0, noise_multiplier=0.0, clients_per_round=4, dimension=PADDED, **others)


def attacked(rule):
    return fl.attacks.attacked(fl.attacks.nan(), fl.attacks.byzantine(0, 7), fl.sgd_work(lambda *_: None, optax.sgd(0.1)), rule)[1]


RULES = {
    "secure_mean": (aggregators.secure_mean(bound=8.0, fraction_bits=4, bits=16), 16 * COORDINATES),
    "secure_mean of 32": (aggregators.secure_mean(), 32 * COORDINATES),
    "under attack": (attacked(aggregators.secure_mean(bound=8.0, fraction_bits=4, bits=16)), 16 * COORDINATES),
    "ddgauss": (of_clients(aggregators.ddgauss, bits=12), 12 * PADDED),
    "skellam": (of_clients(aggregators.skellam), 16 * PADDED),
}


@pytest.mark.parametrize("rule", RULES)
def test_an_aggregator_says_what_its_arithmetic_takes(rule):
    aggregator, expected = RULES[rule]
    assert aggregator.bits(softmax_params()) == expected
    assert aggregators.padded_size(softmax_params()) == PADDED


@pytest.mark.parametrize(
    "before", [uplink.top_k(0.05), *(pytest.param(x, marks=pytest.mark.deep) for x in (optax.identity(), uplink.uniform(256)))]
)
def test_a_round_counts_it_whatever_stands_before(before):
    algorithm = federate(aggregator=RULES["secure_mean"][0], uplink=before, batches=fl.Batches(4, shuffle=False))
    _, history = simulate(algorithm, softmax_data(), softmax_params(), fl.sampling.uniform(3), 1, jax.random.key(0))
    np.testing.assert_array_equal(history["uplink_bits"], 3 * 16 * COORDINATES)
    np.testing.assert_array_equal(history["uplink_side_bits"], 0)


def test_of_soft_labels_and_of_models_that_travel_in_their_place():
    knowledge = fl.distill.Knowledge(np.zeros((5, 3)), np.zeros(7))
    secure, plain = aggregators.secure_mean(bits=20, bound=1.0, fraction_bits=4), aggregators.mean()
    pooled = fl.distill.ensemble_aggregator
    assert pooled(fl.distill.mean_logits(), secure).bits(knowledge) == 20 * 15
    assert pooled(fl.distill.mean_logits(), plain, model=secure).bits(knowledge) == 20 * 7
    assert pooled(fl.distill.mean_logits(), secure, model=plain).bits is None
