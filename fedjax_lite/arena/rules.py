"""The built-in aggregators in the arena, with their arguments for f Byzantine clients, and those left out."""

from collections.abc import Callable
from typing import cast

from fedjax_lite import aggregators as of
from fedjax_lite.base import Aggregator, Number

Make = Callable[[Number], Aggregator]  # the number of Byzantine clients that the rule is told -> the rule

# Lengths and rates are in the units of the field's messages, whose norms are about 0.5.
RULES: dict[str, Make] = {
    "mean": lambda f: of.mean(),
    "weighted_mean": lambda f: of.weighted_mean(),
    "median": lambda f: of.median(),
    "weighted_median": lambda f: of.weighted_median(),
    "trimmed_mean": lambda f: of.trimmed_mean(f),
    "meamed": lambda f: of.meamed(f),
    "krum": lambda f: of.krum(f),
    "multi_krum": lambda f: of.multi_krum(f),
    "bulyan": lambda f: of.bulyan(f),
    "geometric_median": lambda f: of.geometric_median(),
    "centered_clipping(radius=0.5)": lambda f: of.centered_clipping(radius=0.5),
    "norm_bounding(max_norm=0.5)": lambda f: of.norm_bounding(max_norm=0.5),
    "sign_majority(learning_rate=0.01)": lambda f: of.sign_majority(learning_rate=0.01),
    "rlr(threshold=2f+1)": lambda f: of.rlr(threshold=2 * f + 1),
    # It must know its number; of 6 among 20 there would be 38,760 sets, eight times as many as of 4.
    "mda(num_byzantine=min(f, 4))": lambda f: of.mda(min(cast(int, f), 4)),
    "caf": lambda f: of.caf(f),
    "nnm(trimmed_mean)": lambda f: of.nnm(of.trimmed_mean(f), f),
    "nnm(krum)": lambda f: of.nnm(of.krum(f), f),
    "bucketing(median, size=2)": lambda f: of.bucketing(of.median(), size=2),
    "arc(trimmed_mean)": lambda f: of.arc(of.trimmed_mean(f), f),
}
LEFT_OUT = {
    "fltrust": "needs a client that the server trusts",
    "monna": "needs a client that the server trusts",
    "weighted_sum": "a sum: with weights of 1 each it is the mean, times the clients",
    "secure_mean": "a secure sum: the mean but for fixed point, which no rule can look into",
    "dp_mean": "private: its noise, not its rule, would decide",
    "dp_ftrl": "private: its noise, not its rule, would decide",
    "ddgauss": "private: its noise, not its rule, would decide",
    "skellam": "private: its noise, not its rule, would decide",
    "by_part": "as robust as the rules that it is given for each part",
    "from_stack": "makes rules",
    "from_sum": "makes rules",
    "transformed": "makes rules",
    "padded_size": "no rule",
}
