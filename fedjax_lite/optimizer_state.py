"""What an optimizer of optax keeps and asks for, and what of it there is not in a federated round."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import optax

from fedjax_lite.base import Tree

__all__ = ["fit", "keeps_rate", "needs_value", "refuse_common_noise", "refuse_restarting"]

# The class of a state, by name since optax exports few of them -> whose it is.
RESTARTING = {
    "ReduceLROnPlateauState": "reduce_on_plateau",
    "ProdigyState": "prodigy, which learns its rate over many steps,",
    "DAdaptAdamWState": "dadapt_adamw, which learns its rate over many steps,",
    "MechanicState": "mechanize, which learns its rate over many steps,",
}
_SEARCH = "a line search calls the loss at several points: take optax.lbfgs(learning_rate, linesearch=None)"
UNFIT = {
    "SAMState": "sam takes two gradients a step: compute both in fl.sgd_work(..., gradients=), with the optimizer that sam would be given",
    "SophiaState": "sophia asks for the loss function beside the gradient: take another, such as optax.adam",
    "LookaheadState": "lookahead trains a pair of models: over clients' steps a server does the same, fl.optimizer_server(optax.sgd(0.5))",
    "ScaleByZoomLinesearchState": _SEARCH,
    "ScaleByBacktrackingLinesearchState": _SEARCH,
}


def fit(optimizer: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """An optimizer that refuses, when its state is made, to go without what it would need.

    Raises:
        ValueError: by its name, with what to take.
    """

    def init(params):
        state = optimizer.init(params)
        for node in _nodes(state):
            if reason := UNFIT.get(type(node).__name__):
                raise ValueError(f"optimizer: {reason}")
        return state

    return optimizer._replace(init=init)


@contextmanager
def needs_value(where: str, given: bool) -> Iterator[None]:
    """Say why an optimizer that reads the loss is not given it."""
    try:
        yield
    except TypeError as error:
        if given or "value" not in str(error):
            raise
        raise ValueError(
            f"{where}: the optimizer reads the loss (reduce_on_plateau, polyak_sgd and their kind), which no noise hides: with private "
            "clients take another, or a schedule"
        ) from error


def keeps_rate(state: Tree) -> bool:
    """Whether a state keeps an injected rate."""
    return any(isinstance(node, optax.schedules.InjectStatefulHyperparamsState) for node in _nodes(state))


def refuse_restarting(state: Tree) -> None:
    """Refuse a fresh client optimizer state that would do harm by being fresh in every round, or equal for all clients.

    Known are optax's schedule counts (of rates, weight decay, injected hyperparameters), what learns a rate over many steps, and noise
    keys.
    """
    for node in _nodes(state):
        if name := RESTARTING.get(type(node).__name__):
            raise ValueError(f"{name} in the client optimizer would start over in every round: give it to fl.optimizer_server")
        if _counts(node):
            raise ValueError(
                "the client optimizer holds an optax schedule, and its count would restart every round: pass the factory and "
                "learning_rate=fl.on_round(schedule), fl.on_client_step(schedule) or, to restart on purpose, fl.on_step(schedule)"
            )
    refuse_common_noise(state, "client optimizer")


def refuse_common_noise(state: Tree, where: str) -> None:
    """Refuse a state that holds a random key: every client would start from it and draw the same noise."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if "rng_key" in jax.tree_util.keystr(path) or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"the {where} keeps a random key in its state{jax.tree_util.keystr(path)}, so all clients would draw the same noise: "
                "write a transformation that draws from the keyword `key`, which differs by client and round"
            )


_COUNTING = (
    optax.ScaleByScheduleState,
    type(jax.eval_shape(optax.add_decayed_weights(lambda count: 0.0).init, ())),  # importing must not start a device
    optax.schedules.InjectStatefulHyperparamsState,
)


def _nodes(state: Tree) -> list:
    """The parts of a state that are known by their class."""
    known = RESTARTING.keys() | UNFIT.keys()
    return jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, _COUNTING) or type(x).__name__ in known)


def _counts(node) -> bool:
    injected = isinstance(node, optax.schedules.InjectStatefulHyperparamsState)
    return bool(jax.tree.leaves(node.hyperparams_states)) if injected else isinstance(node, _COUNTING)
