"""Start from the parameters in a safetensors file, whoever wrote it: leaves by name, shapes checked, torch's layouts turned round."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors import SafetensorError
from safetensors.flax import load_file

from fedjax_lite.base import Tree
from fedjax_lite.data.error import DataError
from fedjax_lite.refuse import short
from fedjax_lite.tree import paths_of

__all__ = ["pretrained"]


def pretrained(
    params: Tree, path: str | os.PathLike, *, names: Mapping[str, str] | None = None, transpose: str = "", strict: bool = True
) -> Tree:
    r"""Take a model's leaves from a safetensors file.

    Args:
        params: the model's parameters, as `model.init` gives them; their structure, shapes and dtypes stay.
        path: the file, or the folder of a run, whose model is in it.
        names: regular expressions for whole names in the file, and what they become: paths of the model, in which `\1` is what the first
            bracket matched; the first that matches counts, and "" leaves a leaf of the file out. A name that none matches stays, with "/"
            for ".".
        transpose: a regular expression for whole paths of the model, ".*/kernel" for instance: the file has these leaves in torch's layout,
            of a dense layer [out, in], which becomes [in, out], of a convolution [out, in, height, width], which becomes
            [height, width, in, out]. A dense layer after a convolution needs more: torch flattens channels first.
        strict: False keeps the given values where the file has no leaf of that name, and skips leaves of the file that the model lacks;
            shapes must fit in any case.

    Returns:
        Parameters like `params`.

    Raises:
        FileNotFoundError: no such file.
        DataError: for a file that is not safetensors.
        ValueError: naming every leaf that is missing or unused, of another shape or no real numbers, or that two names lead to; and for an
            expression that is none.

    >>> import tempfile, numpy as np
    >>> from safetensors.numpy import save_file
    >>> file = Path(tempfile.mkdtemp()) / "torch.safetensors"
    >>> save_file({"fc.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "fc.bias": np.zeros(3, np.float32)}, file)
    >>> like = {"Dense_0": {"kernel": jnp.zeros((2, 3)), "bias": jnp.ones(3)}}
    >>> names = {r"fc\.weight": "Dense_0/kernel", r"fc\.(.*)": r"Dense_0/\1"}
    >>> pretrained(like, file, names=names, transpose=".*/kernel")["Dense_0"]["kernel"].tolist()
    [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    """
    file, stored = _read(path)
    paths, leaves = paths_of(params), jax.tree.leaves(params)
    found, unplaced = _named(file, stored, names or {}, set(paths))
    turned = _pattern("transpose", transpose) if transpose else None
    if turned is not None and not any(map(turned.fullmatch, paths)):
        raise ValueError(f"pretrained: transpose={transpose!r} fits no leaf; the model's leaves are {short(', '.join(paths))}")
    wrong = [f"{name} is not in the file" for name in paths if name not in found]
    if unplaced:
        wrong.append(f"the model has no place for {short(', '.join(unplaced), 1000)}; the model has {short(', '.join(paths))}")
    wrong = wrong if strict else []
    values = []
    for name, leaf in zip(paths, leaves, strict=True):
        value = leaf
        if name in found:
            source = stored[found[name]]
            value = _in_order(source) if turned is not None and turned.fullmatch(name) else source
            if jnp.shape(value) != jnp.shape(leaf) or jnp.issubdtype(value.dtype, jnp.floating) != jnp.issubdtype(leaf.dtype, jnp.floating):
                kinds = f"{value.dtype}{list(jnp.shape(value))}", f"{leaf.dtype}{list(jnp.shape(leaf))}"
                wrong.append(f"{name} is {kinds[0]} (of {found[name]} {list(source.shape)}), the model has {kinds[1]}")
        values.append(value)
    if wrong:
        remedy = 'give names ("" for what is to be left out) and transpose that make them fit, or strict=False for a part of the model'
        raise ValueError(f"pretrained: {file}: {short('; '.join(wrong), 2000)}: {_told(file) or remedy}")
    cast = [jnp.asarray(value).astype(leaf.dtype) for value, leaf in zip(values, leaves, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(params), cast)


def _read(path: Any) -> tuple[Path, dict[str, Any]]:
    """Read a file's leaves, by name."""
    file = Path(path).expanduser()
    file = file / "params.safetensors" if file.is_dir() else file
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: give the path of a safetensors file, or of a run's folder")
    try:
        return file, load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} is no safetensors file ({error}): save it anew, of torch with safetensors.torch.save_file") from error


def _told(file: Path) -> str:
    """Return the remedy for a file that a run has written, with the architecture beside it; "" for another file."""
    try:
        model = json.loads((file.parent / "model.json").read_text(encoding="utf-8"))
        arguments = ", ".join(f"{name}={json.dumps(value)}" for name, value in model["arguments"].items())
        return f"the run that wrote it had the model {model['name']}({short(arguments, 500)}): take that, or strict=False for a part of it"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ""


def _named(file: Path, stored: Mapping[str, Any], names: Mapping[str, str], paths: set[str]) -> tuple[dict[str, str], list[str]]:
    """Return the name in the file of each of the model's paths that it has, and the names that the model has no place for."""
    rules = [(_pattern("names", rule), into) for rule, into in names.items()]
    found: dict[str, str] = {}
    unplaced = []
    for name in stored:
        fits = ((rule.fullmatch(name), into) for rule, into in rules)
        into = next((match.expand(into) for match, into in fits if match), name if name in paths else name.replace(".", "/"))
        if into in found:
            raise ValueError(f"pretrained: {file}: {found[into]} and {name} both become {into}: make names tell them apart")
        if into in paths:
            found[into] = name
        elif into:
            unplaced.append(name if into == name else f"{name} (as {into})")
    return found, unplaced


def _pattern(argument: str, text: str) -> re.Pattern:
    """Compile a regular expression, or refuse a text that is none."""
    try:
        return re.compile(text)
    except (re.error, TypeError) as error:
        raise ValueError(f"pretrained: {argument}: {text!r} is no regular expression ({error})") from None


def _in_order(leaf: Any) -> Any:
    """Turn torch's layout [out, in, ...] into [..., in, out]."""
    return jnp.transpose(leaf, (*range(2, leaf.ndim), 1, 0)) if leaf.ndim > 1 else leaf
