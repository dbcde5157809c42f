"""How far clients' labels are from the population's."""

from typing import Any

import numpy as np

from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.noise import class_counts

__all__ = ["label_skew"]


def label_skew(data: FederatedData) -> Any:
    """Return each client's distance from the population's label distribution, the total variation between them.

    d_k = 1/2 sum_y |p_k(y) - p(y)|, with p(y) the share of class y among all examples and p_k(y) among client k's.

    Args:
        data: with labels "y", whole numbers from 0.

    Returns:
        float64 `[population]` in [0, 1]: 0 for the population's own mix; NaN for a client without examples. Its mean is usually quoted.

    Raises:
        ValueError: for data without labels.

    >>> label_skew(FederatedData.from_clients([{"y": np.array([0, 0])}, {"y": np.array([0, 1])}])).tolist()
    [0.25, 0.25]

    Source: Zhao et al. 2018, "Federated Learning with Non-IID Data", section 3, whose earth mover's distance is sum_y |p_k(y) - p(y)|,
    twice this one.
    """
    counts = np.asarray(class_counts(data), float)
    with np.errstate(invalid="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    return np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1) / 2
