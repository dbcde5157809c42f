"""What every optimizer of optax does here, at a client and at the server: prints the table of docs/optimizers.md.

Sixty rounds of three clients on one least-squares problem, three local steps a round, from zero; at the server over plain SGD at the
clients. "learns": the loss is less than half. What wraps another optimizer is given `optax.sgd`.
"""

import inspect
import logging
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fedjax_lite as fl

ROUNDS = 60
SGD = optax.sgd(0.02)
WRAPPERS = {
    "lookahead": lambda: optax.lookahead(SGD, 2, 0.5),
    "apply_if_finite": lambda: optax.apply_if_finite(SGD, 2),
    "apply_every": lambda: optax.chain(optax.apply_every(2), SGD),
    "sam": lambda: optax.contrib.sam(SGD, optax.sgd(0.05)),
    "mechanize": lambda: optax.contrib.mechanize(SGD),
    "schedule_free": lambda: optax.contrib.schedule_free(SGD, 0.02),
    "reduce_on_plateau": lambda: optax.chain(SGD, optax.contrib.reduce_on_plateau()),
    "split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(SGD),
    "adaptive_grad_clip": lambda: optax.chain(optax.adaptive_grad_clip(1.0), SGD),
    "lbfgs (linesearch=None)": lambda: optax.lbfgs(0.05, linesearch=None),
}
NUMBERS = {"learning_rate": 0.05, "noise_multiplier": 0.01, "l2_norm_clip": 1.0, "key": 0}  # what a factory may require
POINTS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
DATA = fl.data.FederatedData.from_clients([{"x": k * POINTS, "y": k * POINTS @ np.array([1, -2], np.float32)} for k in (0.5, 1, 1.5)])


def factories() -> dict[str, Callable[[], optax.GradientTransformation]]:
    """Every optimizer of optax by name: what takes a rate, or learns one."""
    found = {}
    for module in (optax, optax.contrib):
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or name.startswith(("_", "scale_by")):
                continue
            signature = inspect.signature(function)
            if "GradientTransformation" not in str(signature.return_annotation) or "learning_rate" not in signature.parameters:
                continue
            needed = [
                p.name for p in signature.parameters.values() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            ]
            if all(name in NUMBERS for name in needed):
                given = {name: NUMBERS[name] for name in {*needed, "learning_rate"}}
                found[name] = lambda function=function, given=given: function(**given)
    return dict(sorted((WRAPPERS | {k: v for k, v in found.items() if k not in WRAPPERS}).items()))


def losses(params, batch, key):
    return (batch["x"] @ params["w"] - batch["y"]) ** 2


def outcome(make: Callable[[], optax.GradientTransformation], where: str) -> str:
    """What comes of an optimizer at a "client" or at the "server"."""
    try:
        local, server = (make(), optax.sgd(1.0)) if where == "client" else (SGD, make())
        algorithm = fl.federate(
            fl.sgd_work(losses, local),
            fl.aggregators.mean(),
            fl.optimizer_server(server),
            batches=fl.Batches(None, steps=3),
            population=3,
            engine=fl.sequential(),
        )
        run = jax.jit(
            lambda data: fl.simulate(algorithm, data, {"w": jnp.zeros(2)}, fl.sampling.everyone(), rounds=ROUNDS, key=jax.random.key(0))
        )
        loss = run(DATA)[1]["initial_loss"]
    except ValueError as error:
        return f"refused: {str(error).removeprefix('optimizer: ').split(':')[0]}"
    return "learns" if loss[-1] < 0.5 * loss[0] else f"slow: {100 * (1 - loss[-1] / loss[0]):.0f} % off the loss"


def table() -> str:
    """All optimizers in Markdown."""
    rows = [f"| `{name}` | {outcome(make, 'client')} | {outcome(make, 'server')} |" for name, make in factories().items()]
    return "\n".join(["| optax | at a client | at the server |", "|---|---|---|", *rows])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    print(table())
