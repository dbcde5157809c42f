"""The architecture beside a model's parameters, model.json: how the model was made, and of what examples."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fedjax_lite import models
from fedjax_lite.base import Tree
from fedjax_lite.models import Model
from fedjax_lite.models.loss_fn import LossFn
from fedjax_lite.models.made import MODEL, made_of
from fedjax_lite.models.reading import batch_shapes
from fedjax_lite.runner.files import write
from fedjax_lite.runner.own_code import module_in

__all__ = ["ARCHITECTURE", "architecture_of", "example_of", "made_again", "save_architecture"]

ARCHITECTURE = "model.json"
LEAF = re.compile(r"(\w+)\[([\d, ]*)\]")


def architecture_of(loss_fn: LossFn | None, params: Tree, example: Tree) -> dict[str, Any] | None:
    """Describe the model of a loss function.

    Returns:
        "name" and "arguments" of what made the model, both None where nobody knows, of the user's code its "code"; "example", the dtype and
        shape of each leaf; "outputs", those of the prediction for one example; "parameters", their number; "fedjax_lite", the version.
        None where the loss function tells of no model, or of another than the parameters are of.
    """
    model = getattr(loss_fn, "model", None)
    if not isinstance(model, Model):
        return None
    try:
        shapes = jax.eval_shape(model.init, jax.random.key(0), example)
        outputs = jax.eval_shape(lambda params, batch: model.apply(params, batch, None), params, batch_shapes(example))
    except Exception:  # of the user's or another library's: parameters of several models, say, and a run must not end by a description
        return None
    sizes = [(jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]) for tree in (shapes, params)]
    if sizes[0] != sizes[1]:
        return None
    return {
        **(made_of(model) or {"name": None, "arguments": None}),
        "example": _words(example),
        "outputs": _words(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), outputs)),
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "fedjax_lite": version("fedjax-lite"),
    }


def save_architecture(folder: Path, architecture: dict[str, Any] | None) -> None:
    """Write an architecture into a folder, beside its parameters; None removes that of an earlier run."""
    if architecture is None:
        (folder / ARCHITECTURE).unlink(missing_ok=True)
    else:
        lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in architecture.items())
        write(folder / ARCHITECTURE, "{\n" + ",\n".join(lines) + "\n}\n")


def example_of(words: Any) -> Tree:
    """Return the shapes of an example from an architecture's words for them.

    >>> example_of({"x": "float32[28, 28]"})
    {'x': ShapeDtypeStruct(shape=(28, 28), dtype=float32)}
    """
    if isinstance(words, dict):
        return {name: example_of(each) for name, each in words.items()}
    if isinstance(words, list):
        return [example_of(each) for each in words]
    if not (found := LEAF.fullmatch(words)):
        raise ValueError(f"{words!r} is no dtype with a shape")
    return jax.ShapeDtypeStruct(tuple(map(int, filter(None, found[2].split(",")))), jnp.dtype(found[1]))


def made_again(described: dict[str, Any], own_code: bool = False) -> Model:
    """Make a model by the name and arguments in its description, of the library's function, or where it may be run, of the user's.

    Raises:
        Exception: whatever the function raises; a ValueError for a function that is not there, is no longer what it was, may not
            be run, or makes no model.
    """
    name, code = described["name"], described.get("code")
    if name is None:
        raise ValueError("it was made of functions or modules, which no file holds")
    if code is None:
        factory = getattr(models, name, None) if name in models.__all__ else None
        if factory is None:
            raise ValueError(f"fl.models has no {name!r}: it is of another version, {described.get('fedjax_lite')}")
    elif not own_code:
        raise ValueError(f"it is code of {code['folder']}, which runs only where you allow it: own_code=True, for a folder of your own")
    else:
        module = module_in(name.rpartition(":")[0], Path(code["folder"]), code["sha256"])
        factory = getattr(module, name.rpartition(":")[2])
    model = factory(**{key: _value(each, own_code) for key, each in described["arguments"].items()})
    if not isinstance(model, Model):
        raise ValueError(f"it makes a {type(model).__name__}, and no fl.models.Model")
    return model


def _value(value: Any, own_code: bool) -> Any:
    """Return an argument, the model in place of one that is described."""
    if isinstance(value, dict):
        inner = value.keys() == {MODEL}
        return made_again(value[MODEL], own_code) if inner else {key: _value(each, own_code) for key, each in value.items()}
    return [_value(each, own_code) for each in value] if isinstance(value, list) else value


def _words(tree: Tree) -> Any:
    """Return a tree with a text for each leaf: dtype and shape."""
    if isinstance(tree, dict):
        return {str(name): _words(each) for name, each in tree.items()}
    if isinstance(tree, list | tuple):
        return [_words(each) for each in tree]
    return f"{jnp.result_type(tree)}{list(jnp.shape(tree))}"
