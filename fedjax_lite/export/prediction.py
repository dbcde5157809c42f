"""A model's prediction in one file, compiled for several platforms, that needs nothing of this package to run."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax import export

from fedjax_lite.base import Tree
from fedjax_lite.models import Model
from fedjax_lite.models.reading import by_name, read_by
from fedjax_lite.refuse import a_count, short
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.files import replacing

__all__ = ["Prediction", "load_prediction", "prediction"]

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class Prediction(NamedTuple):
    """A prediction that was read from a file; call it with a batch, or with the only input."""

    call: Callable[[Any], Any]  # a batch as the file has it -> outputs [batch, ...]
    inputs: Tree  # shapes and dtypes of a batch; the number of examples is open where it is called "batch"
    outputs: Tree
    platforms: tuple[str, ...]

    def __call__(self, inputs: Any) -> Any:
        """Return the outputs for a batch, a dict with the leaves in `inputs`, or an array where there is one leaf."""
        if isinstance(self.inputs, Mapping):
            inputs = by_name("load_prediction", inputs, self.inputs, strict=True)
        return self.call(inputs)


def prediction(
    model: Model,
    params: Tree,
    example: Tree,
    path: str | Path,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    *,
    batch: int | None = None,
) -> Path:
    """Write a model's prediction with its parameters into one file: StableHLO, which `jax.export.deserialize` reads on each platform.

    The program is `model.apply(params, batch, None)` of the leaves that it reads, for any number of examples but 0. Layers that a CPU
    runs on one example after another are so in all of the file if a CPU writes it.

    Args:
        model, params: the model.
        example: one example, or its shapes, without a batch axis; only these sizes can be predicted.
        path: the file; the folder is made.
        platforms: of "cpu", "cuda", "rocm" and "tpu"; none of them needs to be here.
        batch: the number of examples of every batch, for a model that cannot leave it open.

    Returns:
        The path.

    Raises:
        ImportError: without flatbuffers, which the extra `export` installs.
        ValueError: for other platforms, and a model that a platform, or an open number of examples, has no program for.

    >>> import tempfile, numpy as np, fedjax_lite as fl
    >>> model = fl.models.mlp((3,), classes=2)
    >>> example = {"x": np.zeros(4, np.float32), "y": 0}
    >>> path = prediction(model, model.init(jax.random.key(0), example), example, tempfile.mkdtemp() + "/model.jax")
    >>> predict = load_prediction(path)
    >>> predict(np.zeros((5, 4), np.float32)).shape, predict.platforms, predict.inputs
    ((5, 2), ('cpu', 'cuda', 'tpu'), {'x': ShapeDtypeStruct(shape=(batch, 4), dtype=float32)})
    """
    _needed("prediction")
    names = tuple(platforms) if isinstance(platforms, list | tuple) else (platforms,)
    if not names or not set(names) <= set(PLATFORMS):
        raise ValueError(f"prediction: platforms must be some of {', '.join(map(repr, PLATFORMS))}, got {platforms!r}")
    (size,) = export.symbolic_shape("batch") if batch is None else (a_count("prediction", "batch", batch),)
    reads = read_by(model, params, example)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), jax.eval_shape(lambda: reads))
    apply = Compiled(lambda apply, batch: apply(params, batch, None), parts=1).of(lambda *args: model.apply(*args))
    try:
        exported = export.export(apply, platforms=names)(shapes)
    except Exception as error:  # of the user's model, or of jax
        open_size = "" if batch else "; if it needs the number of examples, write x.shape[0] for len(x), or fix the number: batch=20"
        raise ValueError(f"prediction: the model has no program for {', '.join(names)} ({short(error, 500)}){open_size}") from error
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_bytes(exported.serialize())
    return file


def load_prediction(path: str | Path) -> Prediction:
    """Read a prediction that `fl.export.prediction` wrote.

    Args:
        path: the file.

    Returns:
        A `Prediction`: call it with a batch.

    Raises:
        ImportError: without flatbuffers.
        ValueError: for a file that cannot be read, or is none; when called, for inputs of other shapes.

    >>> import tempfile, jax.numpy as jnp
    >>> double = Model(lambda key, example: (), lambda params, batch, key: 2 * batch["x"])
    >>> load_prediction(prediction(double, (), {"x": 1.0}, tempfile.mkdtemp() + "/double.jax"))(jnp.arange(3.0)).tolist()
    [0.0, 2.0, 4.0]
    """
    _needed("load_prediction")
    file = Path(path).expanduser()
    try:
        exported = export.deserialize(bytearray(file.read_bytes()))
        (inputs,), named = jax.tree.unflatten(exported.in_tree, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in exported.in_avals])
        outputs = jax.tree.unflatten(exported.out_tree, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in exported.out_avals])
    except OSError as error:
        raise ValueError(f"load_prediction: {file} cannot be read: {error.strerror}") from None
    except Exception as error:  # flatbuffers reads whatever the bytes say
        raise ValueError(f"load_prediction: {file} holds no prediction ({short(error)}): write it with fl.export.prediction") from error
    return Prediction(exported.call, inputs, outputs, tuple(exported.platforms))


def _needed(function: str) -> None:
    """Refuse to go on without the package that jax writes programs with."""
    if find_spec("flatbuffers") is None:
        raise ImportError(f"{function} needs flatbuffers: pip install flatbuffers, or pip install 'fedjax_lite[export]'")
