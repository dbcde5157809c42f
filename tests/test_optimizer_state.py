"""Optimizers that ask for what there is not here are refused by their name, wherever they are given; the table of all says the same."""

import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import fedjax_lite as fl

ROOT = Path(__file__).parent.parent
SGD = optax.sgd(0.1)
UNFIT = {
    "sam": (optax.contrib.sam(SGD, SGD), r"sam takes two gradients a step: compute both in fl.sgd_work\(..., gradients=\)"),
    "sam, wrapped": (optax.apply_if_finite(optax.contrib.sam(SGD, SGD), 3), "sam takes two gradients a step"),
    "lookahead": (optax.lookahead(SGD, 2, 0.5), r"lookahead trains a pair of models: .* fl.optimizer_server\(optax.sgd\(0.5\)\)"),
    "lbfgs": (optax.lbfgs(), r"a line search calls the loss at several points: take optax.lbfgs\(learning_rate, linesearch=None\)"),
    "sophia": (optax.contrib.sophia(0.1), "sophia asks for the loss function beside the gradient"),
}
RESTARTING = {
    "prodigy": optax.contrib.prodigy(),
    "dadapt_adamw": optax.contrib.dadapt_adamw(),
    "mechanize": optax.contrib.mechanize(SGD),
    "reduce_on_plateau": optax.chain(SGD, optax.contrib.reduce_on_plateau()),
}


def start(client=SGD, server=SGD):
    """The first state, for which a client's is made too."""
    work = fl.sgd_work(lambda params, batch, key: (params - batch["x"]) ** 2, client)
    algorithm = fl.federate(work, fl.aggregators.mean(), fl.optimizer_server(server), batches=fl.Batches(None), population=1)
    return jax.eval_shape(algorithm.init, jnp.ones(()), jax.random.key(0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", UNFIT)
def test_what_asks_for_more_than_a_gradient_is_refused(name, caplog):
    optimizer, message = UNFIT[name]
    for where in ("client", "server"):
        with pytest.raises(ValueError, match=f"^optimizer: {message}"):
            start(**{where: optimizer})


@pytest.mark.parametrize("name", RESTARTING)
def test_what_learns_its_rate_over_many_steps_is_for_the_server(name):
    with pytest.raises(
        ValueError, match=f"^{name}.* in the client optimizer would start over in every round: give it to fl.optimizer_server"
    ):
        start(client=RESTARTING[name])
    start(server=RESTARTING[name])


def test_the_search_is_what_lbfgs_can_do_without():
    start(client=optax.lbfgs(0.1, linesearch=None), server=optax.lbfgs(0.1, linesearch=None))


@pytest.fixture
def script():
    return runpy.run_path(str(ROOT / "benchmarks" / "optimizers.py"))


def written():
    return re.findall(r"^\| `(.*?)` \|", (ROOT / "docs" / "optimizers.md").read_text(), flags=re.MULTILINE)


def test_the_table_has_every_optimizer(script):
    assert written() == [*script["factories"]()] and len(written()) > 50


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_table_is_what_they_do(script):
    """How fast one learns hangs on rounding here and there, and tests compile with few optimisations."""

    def rows(text):
        return [re.sub("slow: [^|]* left", "learns", line) for line in text.splitlines() if line.startswith("| `")]

    assert rows(script["table"]()) == rows((ROOT / "docs" / "optimizers.md").read_text())
