"""Models in one piece, in two halves, in leaves, with running statistics."""

import jax.numpy as jnp
from problems import softmax_loss

import fedjax_lite as fl
from fedjax_lite.models.loss_fn import losses_and_metrics


def features(params, batch, key):
    """Those of a model in two halves."""
    del key
    return jnp.tanh(batch["x"] @ params)


IN_TWO = fl.models.Model(None, None, features, lambda params, features: 2 * features)
IN_ONE = fl.models.Model(None, lambda params, batch, key: 2 * features(params, batch, key))
BODY_AND_HEAD = fl.models.Model(
    None,
    lambda params, batch, key: features(params["body"], batch, key) * params["head"][None],
    lambda params, batch, key: features(params["body"], batch, key),
    lambda params, features: features * params["head"][None],
)


def in_leaves(params, batch, key):
    """The loss of a model with a body and a head."""
    return softmax_loss(params["body"] * (1 + params["head"][None]), batch, key)


def in_statistics(params, batch, key, mask=None):
    """The loss of a model with a running mean of its inputs, which evaluation takes off."""
    leaves, running = params
    if key is None:
        return softmax_loss(leaves, batch | {"x": batch["x"] - running[None]}, key)
    mean = jnp.sum(jnp.where(mask[:, None], batch["x"], 0), 0) / jnp.maximum(jnp.sum(mask), 1)
    return *losses_and_metrics(softmax_loss(leaves, batch | {"x": batch["x"] - mean[None]}, key)), 0.9 * running + 0.1 * mean
