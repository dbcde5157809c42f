"""Refuse data whose labels a model has no output for, before anything is compiled."""

from typing import Any

import jax
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.data.arrays import client_of, shown, stranger
from fedjax_lite.models.losses.options import SIGMOID, Options
from fedjax_lite.models.model import leaf_of


def check_data(options: Options, params: Tree, data: Any, name: str) -> None:
    """Refuse data without the labels, or with one that the model has no output for."""
    labels = leaf_of(data.examples, "supervised: target", options.target)
    if options.loss == "squared" or isinstance(labels, jax.core.Tracer):
        return
    if options.loss in SIGMOID:
        classes, has = 2, f'the loss "{options.loss}" is of labels 0 and 1'
    else:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), data.examples)
        classes = jax.eval_shape(lambda params, batch: options.model.apply(params, batch, None), params, one).shape[-1]
        has = f"the model has {classes} outputs, for labels from 0 to {classes - 1}"
    if strange := stranger(np.asarray(labels), classes, options.ignore):
        row, number = strange
        raise ValueError(
            f"{name}: label {shown(labels, row)} of client {client_of(data, row)} is out of range: {has} ({number} such examples)"
        )
    counts = options.class_counts
    if name == "data" and counts is not None and counts.ndim == 2 and len(counts) != data.population:
        raise ValueError(f"supervised: class_counts has {len(counts)} rows for {data.population} clients: give one for each")


def check_labels(loss_fn: Any, params: Tree, data: Any, name: str) -> None:
    """Refuse data whose labels a model has no output for, where a loss function knows its model: `supervised`, and what wraps it.

    Args:
        loss_fn: whose labels they are; None: no loss.
        params: of its model, or their shapes.
        data: a population, in memory or on disk.
        name: of the data.

    Raises:
        ValueError: with the label, its client and the number of outputs.
    """
    check = getattr(loss_fn, "check", None)
    if check is not None:
        check(params, data, name)
