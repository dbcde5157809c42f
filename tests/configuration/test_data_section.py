"""What a configuration's data says of its model."""

import numpy as np

import fedjax_lite as fl
from fedjax_lite.configuration.data import outputs_of
from fedjax_lite.configuration.table import Config
from fedjax_lite.data.train_test import Source


def of_one_client(*labels):
    return fl.FederatedData.from_clients([{"x": np.ones((len(labels), 2)), "y": np.array(labels)}])


def test_a_class_that_only_the_test_has_gets_an_output():
    assert outputs_of(Config({}), Source(of_one_client(0, 1), None)) == (2, "softmax")
    assert outputs_of(Config({}), Source(of_one_client(0, 1), of_one_client(2, 0))) == (3, "softmax")
    assert outputs_of(Config({}), Source(of_one_client(0.5, 2.0), None)) == (1, "squared")
