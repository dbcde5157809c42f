"""Methods of which something stays with each client."""

import jax.numpy as jnp
import optax
from problems import CLASSES

import fedjax_lite as fl
from contract.methods import optimised
from contract.models import BODY_AND_HEAD, IN_ONE, IN_TWO, in_leaves, in_statistics
from contract.population import POPULATION, contract_data


def personal(name, **own):
    """A method of fl.algorithms of which some leaves stay, as a function of the engine and the rate."""

    def make(engine, rate=0.1):
        batches = fl.Batches(4, epochs=2, shuffle=False)
        built = getattr(fl.algorithms, name)(in_leaves, optax.sgd(rate), batches=batches, population=POPULATION, engine=engine, **own)
        return built._replace(init=lambda params, key: built.init({"body": params, "head": jnp.zeros(CLASSES)}, key))

    return make


def with_statistics(engine, rate=0.1):
    """FedAdam on a model with running statistics."""
    batches = fl.Batches(4, epochs=2, shuffle=False)
    built = fl.algorithms.fedadam(in_statistics, optax.sgd(rate), batches=batches, population=POPULATION, engine=engine)
    return built._replace(init=lambda params, key: built.init(fl.models.WithStatistics(params, jnp.zeros(len(params))), key))


def fedproto(engine, rate=0.1):
    families = [IN_TWO._replace(apply=IN_ONE.apply)], [POPULATION]
    batches = fl.Batches(4, shuffle=False)
    built = fl.algorithms.fedproto(*families, optax.sgd(rate), CLASSES, example=contract_data().example, batches=batches, engine=engine)
    return built._replace(init=lambda params, key: built.init((params,), key))


def fedrod(engine, rate=0.1):
    built = optimised("fedrod", optax.sgd, of=BODY_AND_HEAD, classes=CLASSES, personal="head")(engine, rate)
    return built._replace(init=lambda params, key: built.init({"body": params, "head": jnp.ones(CLASSES)}, key))


PERSONAL = {
    "running statistics": with_statistics,
    "fedbn": personal("fedbn", personal="head"),
    "fedper": personal("fedper", personal="head"),
    "fedrep": personal("fedrep", personal="head", head_epochs=1),
    "fedbabu": personal("fedbabu", fixed="head"),
    "lg_fedavg": personal("lg_fedavg", personal="body"),
    "ditto": optimised("ditto", optax.sgd, lam=0.5),
    "apfl": optimised("apfl"),
    "pfedme": optimised("pfedme", lam=1.0, inner_rate=0.1, inner_steps=2),
    "per_fedavg": optimised("per_fedavg", optax.sgd, alpha=0.1),
    "ifca": optimised("ifca", optax.sgd, clusters=2),
    "fedala": optimised("fedala", optax.sgd),
    "fedproto": fedproto,
    "fedrod": fedrod,
}
