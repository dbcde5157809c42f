"""Partitions that are given as a matrix of clients and classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedjax_lite.data.partition.parts import Partition, by_counts, check_inner, checked_sizes, examples_by_class, in_proportion


def class_shares(shares: Sequence[Sequence[float | int]]) -> Partition:
    """Client i gets the share `shares[i][k]` of class k's examples, up to rounding.

    Args:
        shares: weights `[clients][classes]`, at least 0, the classes in order; a column is divided by its sum, so that all examples are
            dealt. What rounding down leaves goes to the largest remainders.

    Raises:
        ValueError: also for a class of weight 0, and where rounding leaves a client without examples.

    >>> y = np.repeat([0, 1], [10, 20])
    >>> parts = class_shares([[1, 0], [1, 3], [0, 1]])(np.random.default_rng(0), y)
    >>> [np.bincount(y[part], minlength=2).tolist() for part in parts]
    [[5, 0], [5, 15], [0, 5]]

    Source: Yurochkin et al. 2019, "Bayesian Nonparametric Federated Learning of Neural Networks", section 4, where the shares p_k are
    drawn and not given; `DistributionPartitioner` of flwr-datasets 0.6.1.
    """
    weights = _weights("class_shares", "shares", shares)
    if not weights.any(axis=0).all():
        raise ValueError(f"class_shares: column {_first(~weights.any(axis=0))} of shares is 0: every class needs a client")

    def partition(rng, labels):
        members = examples_by_class("class_shares", labels)
        if weights.shape[1] != len(members):
            raise ValueError(
                f"class_shares: shares have {weights.shape[1]} columns, there are {len(members)} classes: give one weight a class"
            )
        counts = np.stack([in_proportion(column, len(rows)) for column, rows in zip(weights.T, members, strict=True)], axis=1)
        if not counts.any(axis=1).all():
            client = _first(~counts.any(axis=1))
            raise ValueError(f"class_shares: row {client} of shares brings no example of {len(labels)}: raise it, or leave it out")
        return by_counts(rng, members, counts)

    return partition


def label_mix(inner: Any, mix: Sequence[Sequence[float | int]]) -> Partition:
    """Client i's label mix is row i of a matrix: of its n_i examples, n_i `mix[i][k]` have label k, up to rounding.

    Args:
        inner: a partition with the sizes wanted, such as iid(clients=2) or given_sizes([10, 5]); which examples it chooses does not matter.
        mix: weights `[clients][classes]`, at least 0, the classes in order; a row is divided by its sum. What rounding down leaves goes
            to the largest remainders. Examples that no client wants are left out.

    Raises:
        ValueError: also if clients want more of a label than there is.

    >>> from fedjax_lite.data import partition
    >>> sizes, y = partition.given_sizes([10, 5]), np.repeat([0, 1], 20)
    >>> parts = label_mix(sizes, [[9, 1], [1, 4]])(np.random.default_rng(0), y)
    >>> [np.bincount(y[part]).tolist() for part in parts]
    [[9, 1], [1, 4]]

    Source: Zhao et al. 2018, "Federated Learning with Non-IID Data", section 3, whose clients have given label distributions.
    """
    check_inner("label_mix", inner)
    weights = _weights("label_mix", "mix", mix)
    if not weights.any(axis=1).all():
        raise ValueError(f"label_mix: row {_first(~weights.any(axis=1))} of mix is 0: every client needs a label")

    def partition(rng, labels):
        members = examples_by_class("label_mix", labels)
        sizes = checked_sizes("label_mix", inner, rng, labels)
        if weights.shape != (len(sizes), len(members)):
            raise ValueError(
                f"label_mix: mix has {len(weights)} rows of {weights.shape[1]}, there are {len(sizes)} clients and {len(members)} labels: "
                "give one row a client, one weight a label"
            )
        counts = np.stack([in_proportion(row, size) for row, size in zip(weights, sizes.tolist(), strict=True)])
        for label, (wanted, rows) in enumerate(zip(counts.sum(axis=0), members, strict=True)):
            if wanted > len(rows):
                raise ValueError(
                    f"label_mix: mix wants {wanted} examples of label {labels[rows[0]]}, there are {len(rows)}: lower column {label} "
                    "of mix, or the sizes of inner"
                )
        return by_counts(rng, members, counts)

    return partition


def _weights(factory, argument, values) -> np.ndarray:
    """Return a matrix of weights as floats; refuse ragged rows, and weights that are not finite or below 0."""
    try:
        weights = np.array(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{factory}: {argument} must be rows of numbers, all of one length") from None
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"{factory}: {argument} must be a matrix [clients][classes], got the shape {list(weights.shape)}")
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"{factory}: {argument} must be finite and not negative, got {weights[row, column]} in row {row}, column {column}")
    return weights


def _first(mask) -> int:
    """Return the first place where `mask` is true."""
    return int(np.flatnonzero(mask)[0])
