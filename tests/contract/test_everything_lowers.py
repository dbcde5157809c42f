"""Everything in the contract's lists, and every model, lowers for GPUs and TPUs in the forms that they take, from a CPU."""

import inspect
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract.averages import UPLINKS
from contract.groups import ALGORITHMS, ALIKE
from contract.population import POPULATION, contract_data
from contract.rules import AGGREGATORS, ONE_OF_EACH
from flax import nnx
from grouping import FORMS, tiered
from problems import CLASSES, FEATURES, SIZES

import fedjax_lite as fl
from fedjax_lite import forms, models
from fedjax_lite.checks.trial import cohort_of

# Eigenvectors (of caf) and QR (of power_sgd, and of the start of char_lstm and word_lstm) are cuSOLVER's, which come with jaxlib's CUDA
# plugin, and the TPU compiler's own.
KNOWN = {"cusolver_syevd_ffi", "cusolver_geqrf_ffi", "cusolver_orgqr_ffi", "Eigh", "Qr", "ProductOfElementaryHouseholderReflectors"}
KEY = jax.eval_shape(lambda: jax.random.key(0))


@pytest.fixture(scope="module", autouse=True)
def accelerator():
    with forms.use("accelerator"):
        yield


def lacking(fn, *operands):
    """What a function needs beside the known custom calls, lowered once for both platforms; arrays may be shapes.

    Raises:
        NotImplementedError: an operation that a platform lacks, or a callback to the host.
    """
    lowered = jax.export.export(jax.jit(fn), platforms=["cuda", "tpu"])(*operands).mlir_module()
    return {name for name in re.findall(r"custom_call @([\w.]+)", lowered) if name not in KNOWN}


def shaped(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


@tiered("name", AGGREGATORS, ordinary=("nnm", "rlr", "secure_mean", "dp_ftrl"), deep=ONE_OF_EACH, group=FORMS)
def test_aggregators_lower(name):
    aggregator = AGGREGATORS[name]

    def aggregate(stack, ids, weight, key):
        cohort = fl.sampling.cohort(key, jnp.asarray(SIZES, jnp.int32), ids, weight)
        state = aggregator.init(jax.tree.map(lambda x: x[0], stack))
        return aggregator.finish(aggregator.collect(stack, cohort, state), state, key)

    stack = {"w": shaped(POPULATION, 3, 2), "b": shaped(POPULATION)}
    assert not lacking(aggregate, stack, shaped(POPULATION, dtype=np.int32), shaped(POPULATION), KEY)


@tiered("name", UPLINKS, ordinary=("power_sgd", "top_k", "rotate"), group=FORMS)
def test_uplinks_lower(name):
    uplink = UPLINKS[name]

    def update(messages, keys):
        return jax.vmap(lambda message, key: uplink.update(message, uplink.init(message), message, key=key))(messages, keys)

    assert not lacking(
        update, {"w": shaped(3, FEATURES, CLASSES), "b": shaped(3)}, jax.eval_shape(lambda key: jax.random.split(key, 3), KEY)
    )


@tiered("name", [name for name in ALGORITHMS if name not in ALIKE], ordinary=("work adam",), group=FORMS)
def test_algorithms_lower(name):
    """With their work and servers; an uplink that only compresses lowers alone, above."""
    built = ALGORITHMS[name](None)

    def one_round(state, data):
        ids = fl.sampling.uniform(5)(fl.round_key(state), data.size, state.round).id
        return built.round(state, data, cohort_of(built, fl.round_key(state), data.size, state.round, ids))

    state = jax.eval_shape(built.init, shaped(FEATURES, CLASSES), KEY)
    assert not lacking(one_round, state, contract_data())


# name -> the model, and an example of it.
MODELS = {
    "linear": (models.linear(3), shaped(4)),
    "mlp": (models.mlp((5,), classes=3), shaped(4)),
    "from_linen": (models.from_linen(nn.Dense(3)), shaped(4)),
    "augmented": (models.augmented(models.logistic(3)), shaped(8, 8, 1)),
    "normalised": (models.normalised(models.logistic(3), 0.5, 2.0), shaped(4)),
    "from_nnx": (models.from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs)), shaped(4)),
    "logistic": (models.logistic(3), shaped(4)),
    "emnist_cnn": (models.emnist_cnn(3), shaped(28, 28, 1)),
    "mcmahan_cnn": (models.mcmahan_cnn(3), shaped(28, 28, 1)),
    "cifar_cnn": (models.cifar_cnn(3), shaped(32, 32, 3)),
    "feddyn_cnn": (models.feddyn_cnn(3), shaped(32, 32, 3)),
    "lenet5": (models.lenet5(3, padding=2), shaped(16, 16, 1)),
    "vgg11": (models.vgg11(3, widths=(2,) * 8, groups=2), shaped(32, 32, 3)),
    "resnet18": (models.resnet18(3, widths=(2, 2, 4, 4), stem="imagenet"), shaped(32, 32, 3)),
    "resnet20": (models.resnet20(3, widths=(2, 2, 4)), shaped(8, 8, 3)),
    "char_lstm": (models.char_lstm(5, hidden=4), shaped(6, dtype=np.int32)),
    "word_lstm": (models.word_lstm(5, embedding=2, hidden=4), shaped(6, dtype=np.int32)),
    "transformer": (models.transformer(5, width=4, layers=1, heads=2), shaped(6, dtype=np.int32)),
}


def test_every_model_has_its_line():
    made = [name for name in models.__all__ if inspect.signature(getattr(models, name)).return_annotation is models.Model]
    users = {"from_equinox", "from_functions", "from_haiku"}  # which add no operation to the user's
    assert sorted(set(made) - users) == sorted(MODELS)


@tiered("name", MODELS, ordinary=("emnist_cnn", "char_lstm", "transformer"), group=FORMS)
def test_models_lower(name):
    """From their start to a step of training, several clients' side by side."""
    model, example = MODELS[name]
    loss_fn = models.supervised(model)

    def step(params, batch, key):
        return jax.grad(lambda params: jnp.mean(loss_fn(params, batch, key)[0]))(params)

    def start_and_step(batches, keys):
        example = jax.tree.map(lambda x: x[0, 0], batches)
        return jax.vmap(step)(jax.vmap(lambda key: model.init(key, example))(keys), batches, keys)

    labels = shaped(3, 2, *(example.shape if example.dtype == np.int32 else ()), dtype=np.int32)
    batches = {"x": shaped(3, 2, *example.shape, dtype=example.dtype), "y": labels}
    assert not lacking(start_and_step, batches, jax.eval_shape(lambda key: jax.random.split(key, 3), KEY))


def test_what_accelerators_lack_is_found():
    def lapack(x):
        results = x, jax.ShapeDtypeStruct((3,), np.int32), jax.ShapeDtypeStruct((), np.int32)
        return jax.ffi.ffi_call("lapack_sgetrf_ffi", results)(x)

    matrix = shaped(3, 3)
    assert lacking(lapack, matrix) == {"lapack_sgetrf_ffi"}
    with pytest.raises(ValueError, match="no compatibility guarantees(.|\n)*nobody_s"):
        lacking(lambda x: jax.ffi.ffi_call("nobody_s", x)(x), matrix)
    with pytest.raises(NotImplementedError, match="schur"):
        lacking(jax.scipy.linalg.schur, matrix)
    with pytest.raises(NotImplementedError, match="callback"):
        lacking(lambda x: jax.pure_callback(np.sin, x, x), matrix)
