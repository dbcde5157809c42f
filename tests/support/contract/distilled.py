"""Distillation: public examples, features, generators."""

import jax.numpy as jnp
import numpy as np
import optax
from problems import CLASSES, FEATURES

import fedjax_lite as fl
from contract.models import IN_TWO
from contract.population import DATA, POPULATION, contract_data
from contract.works import WORKS
from fedjax_lite import aggregators, distill


def distilled(engine, rate, models=False, several=False):
    """A round of distillation: models travel, or stay and learn what was agreed on; of one architecture, or of two families."""
    public = distill.public_set({"x": np.random.default_rng(7).normal(size=(9, FEATURES))}, np.arange(9) % CLASSES)
    ensemble, how = distill.mean_probabilities(), distill.lessons(optax.sgd(0.5), 2, batch_size=4)
    apply = lambda params, batch, key: batch["x"] @ params  # noqa: E731
    work = WORKS["sgd"](rate) if models else distill.digest_work(WORKS["sgd"](rate), apply, public, how)
    uplink = distill.soft_labels(apply, public, ensemble, model=models)
    built = fl.federate(
        [fl.Family(work, 3, uplink), fl.Family(work, POPULATION - 3, uplink)] if several else work,
        distill.ensemble_aggregator(ensemble, aggregators.mean(), aggregators.weighted_mean() if models else None, public),
        distill.distillation_server(how, apply, public) if models else distill.consensus_server(public, CLASSES),
        batches=fl.Batches(4), population=POPULATION, uplink=None if several else uplink, engine=engine,
    )  # fmt: skip
    return built._replace(init=lambda params, key: built.init((params, 2 * params), key)) if several else built


def fedgkt(engine, rate):
    server = fl.models.Model(None, lambda params, batch, key: batch["x"] @ params), 0.1 * jnp.eye(CLASSES)
    return fl.algorithms.fedgkt(
        IN_TWO, server, optax.sgd(rate), optax.sgd(0.1, momentum=0.9), example=contract_data().example, largest=max(DATA["sizes"]),
        population=POPULATION, classes=CLASSES, batches=fl.Batches(4), server_batch_size=5, engine=engine,
    )  # fmt: skip


def fedgen(engine, rate):
    first = jnp.asarray(np.random.default_rng(3).normal(size=(2 + CLASSES, CLASSES)))
    generator = fl.algorithms.Generator(first, lambda params, *noise_and_labels: jnp.tanh(jnp.hstack(noise_and_labels) @ params), 2)
    return fl.algorithms.fedgen(
        IN_TWO, generator, optax.sgd(rate), batches=fl.Batches(4), population=POPULATION,
        classes=CLASSES, generator_batch_size=4, generator_steps=2, engine=engine,
    )  # fmt: skip


DISTILLING = {
    "fedgkt": lambda engine, rate=0.1: fedgkt(engine, rate),
    "fedgen": lambda engine, rate=0.1: fedgen(engine, rate),
    "distilled": lambda engine, rate=0.1: distilled(engine, rate, models=True),
    "families that keep their models": lambda engine, rate=0.1: distilled(engine, rate, several=True),
    "fd": lambda engine, rate=0.1: fl.algorithms.fd(
        fl.models.Model(None, lambda params, batch, key: batch["x"] @ params), optax.sgd(rate), CLASSES,
        batches=fl.Batches(4), population=POPULATION, engine=engine,
    ),
}  # fmt: skip
