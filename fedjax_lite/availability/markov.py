"""A chain of two states a client, which can be asked at any time without the steps before it."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedjax_lite.availability.availability import Availability
from fedjax_lite.availability.steps import answered, step_of
from fedjax_lite.availability.words import BITS, seeds, threshold, words
from fedjax_lite.base import Number
from fedjax_lite.refuse import a_count, a_share, plain, positive

__all__ = ["markov"]

AT_ONCE = 32  # steps back that are looked at together
NEVER = 1e-12  # the probability up to which a client's last decisive draw may lie further back than is looked


def markov(share: Number, mean_on: Number, seed: int = 0, step: Number = 1.0) -> Availability:
    r"""Each client is on or off, and changes by chance: on for `mean_on` on average, and for a part `share` of the time.

    A two-state chain with one transition a step: on -> off with a = step / mean_on, off -> on with b = a share / (1 - share), so
    P^t(on, on) = share + (1 - share) (1 - a - b)^t. It has run for ever: at every time a client is on with probability `share`.

    A step's draw U sends both states off if U < min(a, 1 - b), both on if U >= max(a, 1 - b), and else leaves the state, or flips it if
    a + b > 1. The state at a time is found by looking back to the last draw that decided: 1 / (a + b) steps on average.

    Args:
        share: the part of the time that a client is on, in (0, 1).
        mean_on: how long it stays on, on average, in the clock's units: rounds, or seconds.
        seed: names the chains; a client's chain is a function of it and of the client's id.
        step: the time between two transitions; far below `mean_on` it costs time and changes little.

    Raises:
        ValueError: for numbers out of range, and for a `mean_on` that is too short for the share: b would be above 1.

    >>> import jax.numpy as jnp
    >>> law = markov(share=0.5, mean_on=10)
    >>> [round(float(law.there(jnp.arange(1000), t).mean()), 1) for t in (0, 1, 100)]
    [0.5, 0.5, 0.5]
    """
    chain, step = _chain(share, mean_on, a_count("markov", "seed", seed, least=0), step)
    return Availability(
        lambda ids, time: _state(chain, jnp.asarray(ids, jnp.int32), step_of(time, step)),
        lambda ids, time: jnp.full(jnp.shape(ids), chain.share),
        lambda population: answered(step, _Host(chain, population).states),
    )


class _Chain(NamedTuple):
    """One law's draws and probabilities."""

    seed: tuple[np.uint32, np.uint32]
    first_seed: tuple[np.uint32, np.uint32]  # of the state long ago
    off: float  # a
    on: float  # b
    share: float

    @property
    def ends(self) -> tuple[int, int]:
        """Words below the first send both states off, words from the second on send both on."""
        return threshold(min(self.off, 1 - self.on)), threshold(max(self.off, 1 - self.on))

    @property
    def flips(self) -> bool:
        """Whether the words between flip the state."""
        return self.off + self.on > 1

    @property
    def farthest(self) -> int:
        """How many steps back are looked at, at most."""
        low, high = self.ends
        between = (high - low) / 2**BITS
        return AT_ONCE if between in (0, 1) else AT_ONCE * math.ceil(math.log(NEVER) / math.log(between) / AT_ONCE)


def _chain(share: Number, mean_on: Number, seed: int, step: Number) -> tuple[_Chain, float]:
    """Return the chain of these arguments and its step; refuse those of which there is none."""
    share = float(a_share("markov", "share", share, "(0, 1)"))
    for name, value in (("mean_on", mean_on), ("step", step)):
        positive("markov", name, plain(value))
    off = float(step) / float(mean_on)
    on = off * share / (1 - share)
    if max(off, on) > 1 + 1e-12:
        least = float(step) * max(1, share / (1 - share))
        raise ValueError(f"markov: mean_on={mean_on} is too short for share={share:g} and step={step}: it must be at least {least:g}")
    return _Chain(seeds(seed, 0), seeds(seed, 1), min(off, 1.0), min(on, 1.0), share), float(step)


def _state(chain: _Chain, ids: Any, now: Any) -> Any:
    """Return whether each client is on at a step, looking back at some steps at once until all clients' last decisive draws are found."""
    flat, (low, high) = ids.reshape(-1, 1), chain.ends

    def look(carry):
        back, known, on = carry
        steps = now - back - jnp.arange(AT_ONCE, dtype=jnp.int32)
        drawn = words(chain.seed, flat, steps[None])
        decisive = (drawn < low) | (drawn >= high)
        first = jnp.argmax(decisive, axis=1)
        found = jnp.take_along_axis(drawn, first[:, None], axis=1)[:, 0] >= high
        found = found ^ ((back + first) % 2 == 1) if chain.flips else found
        return back + AT_ONCE, known | jnp.any(decisive, axis=1), jnp.where(known, on, found)

    def more(carry):
        return ~jnp.all(carry[1]) & (carry[0] < chain.farthest)

    long_ago = _long_ago(chain, flat[:, 0], now)
    _, known, on = jax.lax.while_loop(more, look, (jnp.int32(0), jnp.zeros(flat.shape[:1], bool), long_ago))
    return jnp.where(known, on, long_ago).reshape(ids.shape)


def _long_ago(chain: _Chain, ids: Any, now: Any) -> Any:
    """Return the state at a step of clients that no draw decided."""
    on = words(chain.first_seed, ids, np.zeros((1,), np.int32)) < threshold(chain.share)
    return on ^ (now % 2 == 1) if chain.flips else on


class _Host:
    """The states of a whole population in NumPy: of the step after by one draw a client, of another step by looking back."""

    def __init__(self, chain: _Chain, population: int):
        self.chain, self.ids = chain, np.arange(population)
        self.at: int | None = None
        self.on = np.zeros(population, bool)

    def states(self, now: int) -> np.ndarray:
        """Return whether each client is on at a step."""
        ahead = -1 if self.at is None else now - self.at
        if 0 <= ahead <= 1 / (self.chain.off + self.chain.on):
            for step in range(now - ahead + 1, now + 1):
                self._advance(step)
        else:
            self._look_back(now)
        self.at = now
        return self.on

    def _decide(self, ids: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for whom the draw of a step decides, and for what."""
        low, high = self.chain.ends
        drawn = words(self.chain.seed, ids, np.array([step]))
        return (drawn < low) | (drawn >= high), drawn >= high

    def _advance(self, step: int) -> None:
        """Let every client make the transition of a step."""
        decided, on = self._decide(self.ids, step)
        self.on = np.where(decided, on, self.on ^ self.chain.flips)

    def _look_back(self, now: int) -> None:
        """Find each client's last decisive draw."""
        self.on, open_ = _long_ago(self.chain, self.ids, np.int64(now)), self.ids
        for back in range(self.chain.farthest):
            decided, on = self._decide(open_, now - back)
            self.on[open_[decided]] = (on ^ bool(self.chain.flips and back % 2))[decided]
            open_ = open_[~decided]
            if not len(open_):
                break
