"""Refuse parts beside a private aggregator that would break its guarantee.

The guarantee is for a sum to which each client adds a message of bounded norm. The message depends on the client's own data and on
earlier releases alone. The server may use the noisy sum in every way: optimizers, momentum, averages of models.

Models that clients keep depend also on the rounds in which each was drawn. Where clients are drawn independently of each other, and anew in
every round, the bound is the same. Tell an adversary all draws of the clients but k, those of their rounds, batches and masks: they don't
depend on k, so this can only help. What the others send is then a function of earlier releases. Under each of k's possible pasts, k's
message in this round has a bounded norm and is there with probability q, whatever that past: the round is a mixture, over pasts, of pairs
that the accountant's pair dominates. Divergences are jointly convex, so it dominates the mixture, and rounds compose, given the releases
before, as always.
"""

import jax
import jax.numpy as jnp

from fedjax_lite.base import Hidden, Server, Tree
from fedjax_lite.ledger import Sent

__all__ = ["composable", "hidden", "refuse_memory"]


def hidden(own: Tree, uplink: Tree) -> bool:
    """Return whether clients hide their data themselves, by noise on their messages or in their steps."""
    return any(isinstance(x, Hidden) for x in jax.tree.leaves((own, uplink), is_leaf=lambda x: isinstance(x, Hidden)))


def composable(private: bool, server: Server) -> None:
    """Refuse a server that lets more than private messages change the model.

    Raises:
        ValueError: for a server that uses metrics which clients report.
    """
    if private and server.uses_metrics:
        raise ValueError(
            "the server changes the model by what clients report (adaptive_rate reads their gradient norms), which is released without "
            "noise: where clients are private take a schedule, fl.on_round(...), or Adam, which sees the noisy mean alone"
        )


def refuse_memory(own: Tree, uplink: Tree) -> None:
    """Refuse floating-point numbers in own and uplink rows, which carry data of one round into later rounds.

    An accountant relies on each round's sampling. Counts of steps, and compressors' counts of bits, are allowed.

    Raises:
        ValueError: naming the leaf.
    """
    for where, kept in (("client work", own), ("uplink", uplink)):
        kept = jax.tree.map(lambda x: () if isinstance(x, Sent) else x, kept, is_leaf=lambda x: isinstance(x, Sent))
        for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
            if jnp.issubdtype(leaf.dtype, jnp.inexact):
                raise ValueError(
                    f"with a private aggregator the {where} can't keep {jax.tree_util.keystr(path) or 'its state'} between rounds (error "
                    "feedback, momentum, control variates): data of one round would reach later ones, past the sampling that hides it; "
                    "take an unbiased compressor without error feedback, or momentum at the server"
                )
