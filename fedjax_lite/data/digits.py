"""Real handwritten digits that come with the package: no download, trains in seconds."""

from pathlib import Path

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.deal import deal
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest


def digits(partition: Partition, *, seed: Whole = 0, test: Number = 1 / 6) -> TrainTest:
    """1,797 real 8x8 images of handwritten digits, dealt to clients.

    Args:
        partition: deals examples to clients, for instance `fl.partition.iid(clients=10)`: a function of (rng, labels).
        seed: `default_rng(seed)` draws the partition, then one permutation a client that picks its held-out examples.
        test: each client holds out floor(its examples * test), in [0, 1); 0 holds nothing out.

    Returns:
        TrainTest with the same clients in both parts (`test` is None if test=0). Examples: "x" float32 `[64]` in [0, 1],
        row by row; "y" int32, 10 classes.

    Raises:
        TypeError: the partition is not a function.
        ValueError: bad `test`, a partition that does not fit, nothing left to hold out.

    >>> from fedjax_lite.data import partition
    >>> data = digits(partition.iid(clients=10))
    >>> data.population, int(data.train.size.sum()), int(data.test.size.sum())
    (10, 1500, 297)

    Source: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (test part).
    """
    with np.load(Path(__file__).with_name("digits.npz")) as stored:
        examples = {"x": stored["x"].astype(np.float32) / 16, "y": stored["y"].astype(np.int32)}
    return deal(examples, partition, seed=seed, test=test, classes=10)
