"""Check the arguments of `fl.run` and `fl.plan` before tracing; an error names the argument that does not fit."""

import argparse
import dataclasses
import enum
import operator
import os
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from fedjax_lite.base import Algorithm, Key, Tree
from fedjax_lite.data.federated import FederatedData
from fedjax_lite.data.store import Store
from fedjax_lite.models import Model
from fedjax_lite.refuse import is_count, is_number, short
from fedjax_lite.runner.convergence import Convergence
from fedjax_lite.runner.summary import NAMES
from fedjax_lite.tree import is_key
from fedjax_lite.writers.writer import Writer

__all__ = ["Count", "check_kinds", "check_notes", "check_options", "check_parts", "check_run", "plain_settings"]

Count = int | np.integer | Array


def check_run(
    algorithm: Any,
    data: Any,
    params: Tree,
    sampler: Any,
    rounds: Any,
    key: Any,
    test: Any,
    evaluate_every: Any,
    checkpoint_every: Any = None,
    converge: Any = None,
    own_on_host: Any = None,
    **others: Any,
) -> tuple[int, int]:
    """Check all arguments of a run; return `rounds` and `evaluate_every` as Python integers.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    check_options(rounds, evaluate_every, checkpoint_every, converge, own_on_host, **others)
    check_parts(algorithm, params, sampler, key)
    check_kinds(data, test)
    return operator.index(rounds), operator.index(evaluate_every)


def check_parts(algorithm: Any, params: Tree, sampler: Any, key: Key) -> None:
    """Refuse an algorithm, params, sampler or key of a wrong type.

    Raises:
        TypeError: naming the argument, and the function that makes a right value.
    """
    if not isinstance(algorithm, Algorithm):
        raise TypeError(f"algorithm must be a fl.Algorithm, got {_kind(algorithm)}: call fl.federate, or a function of fl.algorithms")
    if not callable(sampler):
        raise TypeError(f"sampler must be a function of the round's key, sizes and round, got {_kind(sampler)}: take one of fl.sampling")
    if isinstance(params, Model) or not jax.tree.leaves(params):
        raise TypeError(f"params must hold the arrays of a model, got {_kind(params)}: take model.init(key, data.example)")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not is_number(leaf) and not isinstance(leaf, bool) and not hasattr(leaf, "dtype"):
            raise TypeError(f"params{jax.tree_util.keystr(path)} must be an array, got {_kind(leaf)}")
    if not isinstance(key, jax.Array) or not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        raise TypeError(f"key must be one random key, got {_kind(key)}: take jax.random.key(0)")
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((params, key))):
        raise TypeError("fl.run writes and prints, so jax cannot trace it: inside jit, vmap and grad take fl.simulate")


def check_kinds(data: Any, test: Any) -> None:
    """Refuse `data` that is no FederatedData or Store, and `test` that is no FederatedData or None.

    Raises:
        TypeError: naming the argument, and the value to pass.
    """
    if not isinstance(data, FederatedData | Store):
        raise TypeError(f"data must be a FederatedData or a Store, got a {type(data).__name__}: of a TrainTest, pass data.train")
    if not isinstance(test, FederatedData | None):
        raise TypeError(f"test must be a FederatedData or None, got a {type(test).__name__}: of a Store, pass store.in_memory()")


def check_options(
    rounds: Any,
    evaluate_every: Any = 10,
    checkpoint_every: Any = None,
    converge: Any = None,
    own_on_host: Any = None,
    classification: Any = False,
    keep_best: Any = None,
    writers: Any = (),
) -> None:
    """Refuse values of `rounds`, `evaluate_every` and the other options that no run can use.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    for name, value in (("rounds", rounds), ("evaluate_every", evaluate_every), ("checkpoint_every", checkpoint_every)):
        if not is_count(value, 1) and not (value is None and name == "checkpoint_every"):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if checkpoint_every and checkpoint_every % evaluate_every:
        raise ValueError(
            f"checkpoint_every={checkpoint_every} must be a multiple of evaluate_every={evaluate_every}: states exist between segments only"
        )
    if not isinstance(own_on_host, bool | None):
        raise ValueError(f"own_on_host must be True, False or None, got {own_on_host!r}")
    if not isinstance(classification, bool):
        raise ValueError(f"classification must be True or False, got {classification!r}")
    if not isinstance(keep_best, str | None):
        raise ValueError(f'keep_best must be the name of a metric, such as "test_accuracy", or None, got {keep_best!r}')
    if not isinstance(writers, list | tuple) or not all(isinstance(each, Writer) for each in writers):
        raise TypeError(f"writers must be a list of objects with a method write(records, folder), got {writers!r}")
    if not isinstance(converge, Convergence | None):
        raise TypeError(f"converge must be a fl.Convergence or None, got {converge!r}: fl.Convergence('test_loss', patience=5)")
    if converge:
        if not is_count(converge.patience, 1) or not is_number(converge.tolerance) or not converge.tolerance >= 0:
            raise ValueError(f"converge needs a whole number patience >= 1 and a tolerance >= 0, got {converge}")
        if converge.best not in ("min", "max", None):
            raise ValueError(f'converge: best must be "min" or "max", got {converge.best!r}')


def plain_settings(config: Any, name: str = "config") -> dict[str, Any]:
    """Convert settings to values that TOML can write.

    NumPy's and JAX's numbers become Python's, paths text, dataclasses and namespaces tables; what is None is left out.

    Raises:
        TypeError: for settings without names.
        ValueError: naming the first setting that TOML has no value for.

    >>> from pathlib import Path
    >>> plain_settings({"client": {"rate": np.float32(0.5), "sizes": np.arange(2), "momentum": None}, "data": Path("mnist")})
    {'client': {'rate': 0.5, 'sizes': [0, 1]}, 'data': 'mnist'}
    """

    def plain(value, path):
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}  # not vars(): it may have slots
        if isinstance(value, argparse.Namespace | types.SimpleNamespace):
            value = vars(value)
        if isinstance(value, enum.Enum):
            value = value.value
        if hasattr(value, "_asdict"):
            value = value._asdict()
        if isinstance(value, Mapping):
            found = {str(key): plain(each, f"{path}.{key}") for key, each in value.items() if each is not None}
            for key in found:
                check_text(key, f"{path}.{key}")
            return found
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, np.ndarray | np.generic | jax.Array) and not is_key(value):
            return plain(np.asarray(value).tolist(), path)
        if isinstance(value, list | tuple):
            return [plain(each, f"{path}[{i}]") for i, each in enumerate(value)]
        if not isinstance(value, str | int | float | bool):
            raise ValueError(f"{path} is {_kind(value)}, for which TOML has no value: leave it out, or give a number or text")
        if isinstance(value, str):
            check_text(value, path)
        return value

    def check_text(text, path):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{short(repr(path))} is text that is no UTF-8, which no file holds: leave it out, or spell it otherwise"
            ) from None

    settings = plain({} if config is None else config, name)
    if not isinstance(settings, dict):
        raise TypeError(f"{name} must be a dict, a dataclass or a namespace of settings, got {_kind(config)}")
    return settings


def check_notes(notes: Any) -> dict[str, Any]:
    """Convert notes for the summary as settings are, once none has the name of an entry that a run makes itself.

    Raises:
        TypeError, ValueError: naming the first that cannot be kept.
    """
    plain = plain_settings(notes, "notes")
    if taken := [name for name in plain if name in NAMES]:
        raise ValueError(f"notes: {taken[0]!r} is an entry that the summary has of its own: call the note something else")
    return plain


def _kind(value: Any) -> str:
    """Describe `value` in an error: a plain value by its repr, an array by dtype and shape, another value by its type."""
    if hasattr(value, "dtype"):
        return f"an array {value.dtype}{list(value.shape)}"
    return repr(value) if value is None or isinstance(value, str | int | float) or value in ({}, ()) else f"a {type(value).__name__}"
