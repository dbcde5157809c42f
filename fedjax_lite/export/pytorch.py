"""The parameters of the package's networks as a PyTorch module's `state_dict`, without PyTorch."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.base import Tree
from fedjax_lite.export.arrays import checked
from fedjax_lite.export.layouts import Layout, back, turned, turned_shape
from fedjax_lite.models import Model
from fedjax_lite.models.made import MODEL, made_of
from fedjax_lite.refuse import short
from fedjax_lite.tree import paths_of

__all__ = ["from_state_dict", "state_dict"]

FLATTENED = ("cifar_cnn", "emnist_cnn", "feddyn_cnn", "lenet5", "mcmahan_cnn", "vgg11")  # a dense layer after the pixels of convolutions
NETWORKS = (*FLATTENED, "char_lstm", "linear", "logistic", "mlp", "resnet18", "resnet20", "transformer", "word_lstm")
WRAPPERS = ("augmented", "normalised")  # whose parameters are those of the model inside
LISTS = {"Conv": "conv", "Dense": "dense", "GroupNorm": "norm", "BatchNorm": "norm", "LayerNorm": "norm", "LSTM": "lstm", "Block": "blocks"}
WORDS = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var", "embedding": "embedding.weight"}
PATH = re.compile(rf"((params|statistics)/)?(_?({'|'.join(LISTS)})_\d+/)*({'|'.join(WORDS)}|bias|recurrent|positions)")
OF_ATTENTION = {  # a block of the transformer, as torch.nn.TransformerEncoderLayer names its layers
    "dense.0.": "self_attn.in_proj_",
    "dense.1.": "self_attn.out_proj.",
    "dense.2.": "linear1.",
    "dense.3.": "linear2.",
    "norm.0.": "norm1.",
    "norm.1.": "norm2.",
}
COUNTED = "num_batches_tracked"  # by which torch's batch normalisation makes no difference in evaluation


def state_dict(model: Model, params: Tree) -> dict[str, np.ndarray]:
    """Return the parameters of one of the package's networks by PyTorch's names, in PyTorch's layouts.

    The module has lists `conv`, `norm`, `dense`, `lstm` and `blocks` of layers, in the order in which they are applied; the page on
    exporting has one for each network. Kernels become [out, in] and [out, in, height, width]; the dense layer behind convolutions reads
    channels first; a gate's bias is torch's `bias_ih`, beside a `bias_hh` of zeros.

    Args:
        model: from `fl.models.mlp` and the like, or `normalised` or `augmented` around one: what these do to inputs is the caller's.
        params: its parameters; half precision is widened to float32, which NumPy has.

    Returns:
        name -> array, for `module.load_state_dict({name: torch.from_numpy(x) for name, x in ... })`.

    Raises:
        ValueError: for another model, and parameters that are not its own.

    >>> import fedjax_lite as fl
    >>> model = fl.models.mlp((3,), classes=2)
    >>> state = state_dict(model, model.init(jax.random.key(0), {"x": jnp.zeros(4)}))
    >>> {name: x.shape for name, x in state.items()}
    {'dense.0.bias': (3,), 'dense.0.weight': (3, 4), 'dense.1.bias': (2,), 'dense.1.weight': (2, 3)}
    """
    state: dict[str, np.ndarray] = {}
    leaves = dict(zip(paths_of(params), jax.tree.leaves(jax.device_get(params)), strict=True))
    for path, names in _names("state_dict", model, params).items():
        for name, x in zip(names, turned(_layout(model, params, path), _widened(leaves[path])), strict=True):
            state[name] = x
            if name.endswith("running_var"):
                state[name.replace("running_var", COUNTED)] = np.array(0, np.int64)
    return state


def from_state_dict(model: Model, state: Mapping[str, Any], like: Tree) -> Tree:
    """Return the parameters of one of the package's networks from a PyTorch module's `state_dict`; the inverse of `fl.export.state_dict`.

    Args:
        model: as there.
        state: name -> array, or tensor of PyTorch. Of two biases of an LSTM's gate the sum is taken.
        like: the model's parameters, as `model.init` gives them, or their shapes.

    Returns:
        A tree like `like`.

    Raises:
        ValueError: for another model, and naming every name that is missing, has no place, or is of another shape.

    >>> import fedjax_lite as fl
    >>> model = fl.models.logistic(2)
    >>> like = model.init(jax.random.key(0), {"x": jnp.zeros(3)})
    >>> from_state_dict(model, {"dense.0.weight": np.ones((2, 3)), "dense.0.bias": np.zeros(2)}, like)["Dense_0"]["kernel"].shape
    (3, 2)
    """
    names = _names("from_state_dict", model, like)
    wanted = {name for each in names.values() for name in each}
    found = {name: _on_host(x) for name, x in state.items() if name in wanted or not name.endswith(COUNTED)}
    wrong = [f"{name} is missing" for name in sorted(wanted - found.keys())]
    wrong += [f"the model has no place for {name}" for name in sorted(found.keys() - wanted)]
    places = {path: (_layout(model, like, path), jnp.shape(leaf)) for path, leaf in zip(names, jax.tree.leaves(like), strict=True)}
    for path, each in names.items():
        shape = turned_shape(*places[path])
        shapes = {name: found[name].shape for name in each if name in found}
        wrong += [f"{name} is {list(has)}, the model's is {list(shape)}" for name, has in shapes.items() if has != shape]
    if wrong:
        raise ValueError(f"from_state_dict: {short('; '.join(wrong), 2000)}: give the state of a module with these names and sizes")
    leaves = {path: back(layout, [found[name] for name in names[path]], shape) for path, (layout, shape) in places.items()}
    cast = [checked(f"from_state_dict: {path}", x, leaf) for (path, x), leaf in zip(leaves.items(), jax.tree.leaves(like), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), cast)


def _names(function: str, model: Model, params: Tree) -> dict[str, list[str]]:
    """Return PyTorch's names for each path of a network's parameters: one, or two for an LSTM's bias."""
    network = _network(model)
    if network is None:
        raise ValueError(
            f"{function}: the model must be one of fl.models.{', '.join(NETWORKS)}: write a model of your own with fl.export.arrays(params)"
        )
    if strange := [path for path in paths_of(params) if not PATH.fullmatch(path)]:
        raise ValueError(
            f"{function}: the parameters are not those of {network}, which has no leaf {strange[0]!r}: give what its init makes"
        )
    return {path: _torch_names(path, network == "transformer") for path in paths_of(params)}


def _network(model: Model) -> str | None:
    """Return the name of the package's network that a model is, or is around; None for another model."""
    made = made_of(model)
    while made is not None and made["name"] in WRAPPERS and "code" not in made:
        made = made["arguments"]["inner"][MODEL]
    return made["name"] if made is not None and made["name"] in NETWORKS and "code" not in made else None


def _torch_names(path: str, attends: bool) -> list[str]:
    """Return PyTorch's names for the path of a leaf, in a decoder's blocks those of an encoder layer."""
    *layers, leaf = re.sub("^(params|statistics)/", "", path).split("/")
    prefix = "".join(f"{LISTS[word.strip('_')]}.{number}." for word, _, number in (layer.rpartition("_") for layer in layers))
    if prefix.startswith("lstm."):
        return [f"{prefix}{name}_l0" for name in {"kernel": ["weight_ih"], "recurrent": ["weight_hh"]}.get(leaf, ["bias_ih", "bias_hh"])]
    if attends and prefix:
        block, inside = re.fullmatch(r"((?:blocks\.\d+\.)?)(.*)", prefix).groups()  # type: ignore[union-attr]
        prefix = block + OF_ATTENTION[inside] if block else "norm."
    return [prefix + WORDS.get(leaf, leaf)]


def _layout(model: Model, params: Tree, path: str) -> Layout:
    """Return the layout of a leaf."""
    leaf = path.rpartition("/")[2]
    if "LSTM_" in path and leaf == "bias":
        return Layout("two", 0)
    if leaf not in ("kernel", "recurrent"):
        return Layout("same", 0)
    if path == "Dense_0/kernel" and _network(model) in FLATTENED:
        shapes = dict(zip(paths_of(params), map(jnp.shape, jax.tree.leaves(params)), strict=True))
        last = max((name for name in shapes if re.fullmatch(r"Conv_\d+/kernel", name)), key=lambda name: int(name[5:-7]))
        return Layout("flattened", shapes[last][-1])
    return Layout("kernel", 0)


def _widened(x: np.ndarray) -> np.ndarray:
    """Return a leaf as NumPy has it: half precision as float32."""
    return np.asarray(x, np.float32) if x.dtype == jnp.bfloat16 else np.asarray(x)


def _on_host(x: Any) -> np.ndarray:
    """Return an array, or a tensor of PyTorch wherever it is, as NumPy's."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
