"""Models: pairs of pure functions `init` and `apply`; the networks here are flax."""

import inspect

from fedjax_lite.models.convolution import matmul_conv
from fedjax_lite.models.equinox import from_equinox
from fedjax_lite.models.examples import example_by_example
from fedjax_lite.models.functions import from_functions
from fedjax_lite.models.haiku import from_haiku
from fedjax_lite.models.inputs import augmented, normalised
from fedjax_lite.models.linen import from_linen
from fedjax_lite.models.losses import supervised
from fedjax_lite.models.made import remembering
from fedjax_lite.models.model import Model, WithStatistics
from fedjax_lite.models.networks.cnn import cifar_cnn, emnist_cnn, feddyn_cnn, lenet5, mcmahan_cnn
from fedjax_lite.models.networks.linear import linear, logistic, mlp
from fedjax_lite.models.networks.recurrent import char_lstm, word_lstm
from fedjax_lite.models.networks.resnet import resnet18, resnet20
from fedjax_lite.models.networks.transformer import transformer
from fedjax_lite.models.networks.vgg import vgg11
from fedjax_lite.models.nnx import from_nnx
from fedjax_lite.models.normalisation import group_norm
from fedjax_lite.models.pooling import max_pool
from fedjax_lite.models.pretrained import pretrained
from fedjax_lite.models.recurrent import lstm

__all__ = [
    "Model",
    "WithStatistics",
    "augmented",
    "char_lstm",
    "cifar_cnn",
    "emnist_cnn",
    "example_by_example",
    "feddyn_cnn",
    "from_equinox",
    "from_functions",
    "from_haiku",
    "from_linen",
    "from_nnx",
    "group_norm",
    "lenet5",
    "linear",
    "logistic",
    "lstm",
    "matmul_conv",
    "max_pool",
    "mcmahan_cnn",
    "mlp",
    "normalised",
    "pretrained",
    "resnet18",
    "resnet20",
    "supervised",
    "transformer",
    "vgg11",
    "word_lstm",
]

# What makes a model notes its own name and arguments with it, so that a run can write them beside its parameters.
_factories = [name for name in __all__ if getattr(inspect.unwrap(globals()[name]), "__annotations__", {}).get("return") is Model]
globals().update({name: remembering(globals()[name], name) for name in _factories})
