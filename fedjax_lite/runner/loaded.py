"""A run read back from its folder: settings, records, clients, and the global model, ready to predict."""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.flax import load_file

from fedjax_lite.base import Tree
from fedjax_lite.models import Model, WithStatistics
from fedjax_lite.models.reading import batch_shapes, by_name, read_by
from fedjax_lite.refuse import short
from fedjax_lite.runner.architecture import ARCHITECTURE, example_of, made_again
from fedjax_lite.runner.client_table import read_table
from fedjax_lite.runner.compiled import Compiled
from fedjax_lite.runner.files import holds, read_whole
from fedjax_lite.runner.folder import CONFIG, SUMMARY, WORDS
from fedjax_lite.runner.model_file import BEST, PARAMS, load_params
from fedjax_lite.runner.records import Records, read_records
from fedjax_lite.tree import nested, paths_of

__all__ = ["Run", "load_run"]


class Run(NamedTuple):
    """What a run has left in its folder."""

    config: dict[str, Any]  # its settings, as config.toml has them; {} where the run was given none
    summary: dict[str, Any]  # status, last evaluation, fingerprints; {} where there is none
    history: Records  # one dict a round
    model: Model | None  # None where the folder does not tell how the model was made
    params: Tree | None  # the global model; without a model nested dicts by name; None where the run has not ended
    clients: dict[str, np.ndarray]  # the columns of clients.csv; {} where there is none
    predict: Callable[[Any], Any]  # batch of examples, or of the one input that the model reads -> outputs [batch, ...], in evaluation
    words: tuple[str, ...] | None  # names of classes, or the vocabulary
    example: Tree | None  # shapes and dtypes of an example, without a batch axis


def load_run(folder: str | Path, model: Model | None = None, *, best: bool = False, own_code: bool = False) -> Run:
    """Read a run's folder back: what it was, what came out, and its global model, ready to predict.

    The model is made again by the name and arguments in model.json, which a run writes where its `loss_fn` is of
    `fl.models.supervised`. A function of your own, that a configuration names, is run where you allow it (`own_code`), from the file
    that it was in, as long as that is unchanged. A model made of modules or functions (`from_linen`, `Model`) is to be given.

    Args:
        folder: what `fl.run` was given as `out`.
        model: in place of the one that the folder tells of.
        best: take the best model, which `fl.run(..., keep_best=...)` has kept, in place of the last one.
        own_code: whether a function that model.json names outside of the package may be run to make the model. It can be any function of
            any file, called with any arguments: allow it for folders of your own only.

    Returns:
        A `Run`. What is not there, is empty or None: of a run that still goes on or has failed, parameters and clients. What `predict`
        lacks, it says when it is called.

    Raises:
        ValueError: for a folder without a run, a file that is damaged, and parameters that do not fit the model; names the leaf.

    >>> import tempfile, optax, fedjax_lite as fl
    >>> data, out = fl.data.digits(fl.partition.iid(4), seed=0), Path(tempfile.mkdtemp()) / "run"
    >>> model = fl.models.logistic(10)
    >>> loss_fn = fl.models.supervised(model)
    >>> algorithm = fl.algorithms.fedavg(loss_fn, optax.sgd(0.1), batches=fl.Batches(50), population=4)
    >>> sampler, params = fl.sampling.everyone(), model.init(jax.random.key(0), data.example)
    >>> result = fl.run(algorithm, data.train, params, sampler, rounds=2, key=jax.random.key(0), loss_fn=loss_fn, out=out, progress=False)
    >>> run = fl.load_run(out)
    >>> run.summary["status"], len(run.history), run.predict(data.test.examples["x"][:3]).shape
    ('finished', 2, (3, 10))
    """
    place = Path(folder).expanduser()
    if not place.is_dir() or holds(place) != "run":
        has = "is no folder" if not place.is_dir() else "holds a study, of many runs" if holds(place) else "holds no run"
        raise ValueError(f"load_run: {place} {has}: give the folder that fl.run(..., out=...) has written")
    config, summary = read_whole(place / CONFIG, tomllib.loads, dict), read_whole(place / SUMMARY, json.loads, dict)
    described, words = read_whole(place / ARCHITECTURE, json.loads, dict), read_whole(place / WORDS, json.loads, list)
    model, example, why = _model(place, described, model, own_code)
    file = place / (BEST if best else PARAMS)
    params = _params(file, model, example)
    if params is None:
        remedy = "let it end, or resume it" + (", with keep_best" if best else "")
        why = f"there is no {file.name} yet, the run's status is {summary.get('status', 'unknown')!r}: {remedy}"
    known = (config, summary, read_records(place), model, params, read_table(place))
    return Run(*known, _prediction(place, model, params, example, why), tuple(words) if words else None, example)


def _model(place: Path, described: dict[str, Any], model: Model | None, own_code: bool) -> tuple[Model | None, Tree | None, str]:
    """Return the model that is given or described, the shapes of an example, and why there is no model, if there is none."""
    remedy = "give the model that was trained: fl.load_run(folder, model=model)"
    try:
        example = example_of(described["example"]) if described else None
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"load_run: {place / ARCHITECTURE} is damaged ({short(error)}): delete it, and {remedy}") from None
    if model is not None:
        return model, example, ""
    if not described:
        return None, None, f"there is no {ARCHITECTURE}: the run's loss_fn told of no model, or its global model is several; {remedy}"
    try:
        return made_again(described, own_code), example, ""
    except (Exception, SystemExit) as error:  # of the user's code, or arguments that another version takes
        return None, example, f"the model {described.get('name') or 'of the run'} cannot be made again ({short(error, 500)}): {remedy}"


def _params(file: Path, model: Model | None, example: Tree | None) -> Tree | None:
    """Read parameters, into the model's structure where that is known, with the file's precision; None where there is no file."""
    if not file.exists():
        return None
    try:
        stored = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"load_run: {file} is damaged ({error}): resume the run, which writes it anew") from None
    if model is None or example is None:
        tree = nested({() if name == "params" else tuple(name.split("/")): x for name, x in stored.items()})
        return WithStatistics(**tree) if isinstance(tree, dict) and tree.keys() == {"params", "statistics"} else tree
    try:
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    except Exception as error:
        raise ValueError(f"load_run: the model is not for the run's examples, {_told(example)}: {short(error)}") from error
    like = [
        jax.ShapeDtypeStruct(x.shape, stored[name].dtype if name in stored and jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)
        for name, x in zip(paths_of(shapes), jax.tree.leaves(shapes), strict=True)
    ]
    return load_params(file, jax.tree.unflatten(jax.tree.structure(shapes), like))


def _prediction(place: Path, model: Model | None, params: Tree | None, example: Tree | None, why: str) -> Callable[[Any], Any]:
    """Return the model's prediction, or a function that says why there is none."""
    if model is None or params is None:

        def refuse(inputs: Any) -> Any:
            raise ValueError(f"load_run: {place}: {why}")

        return refuse
    reads = batch_shapes(read_by(model, params, example)) if isinstance(example, Mapping) else {"x": None}

    def predict(inputs: Any) -> Any:
        if isinstance(example, Mapping) or example is None:
            inputs = by_name("predict", inputs, reads)
        return _apply(model.apply, params, inputs)

    return predict


_apply = Compiled(lambda apply, params, batch: apply(params, batch, None), parts=1)


def _told(example: Tree) -> str:
    """Return an example's leaves for a person."""
    return short(", ".join(f"{name} {x.dtype}{list(x.shape)}" for name, x in zip(paths_of(example), jax.tree.leaves(example), strict=True)))
