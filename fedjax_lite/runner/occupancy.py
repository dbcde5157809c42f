"""How much of what the lanes of a queue do is of use: from the steps that each client of a cohort needs."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedjax_lite.base import Algorithm, State
from fedjax_lite.engine.placement import device_count
from fedjax_lite.guarantees import hidden
from fedjax_lite.runner.memory import Need

__all__ = ["Occupancy", "made_by", "occupancy_of"]

MOST = 50_000  # clients whose rounds are laid out again, at most; what comes later is left out


class Occupancy:
    """Steps that clients needed, and that lanes made until the last client of a round was done.

    share = sum of clients' steps / (devices x lanes x steps of the device that was busy longest)

    The clients of a round are dealt over devices and lanes as the queue deals them, the longest first, and all wait for the last. Passes
    over clients' examples before and after training are not counted.

    Args:
        lanes: on each device; 0: not known.
        devices: how many there are.

    >>> lanes = Occupancy(lanes=2, devices=1)
    >>> lanes.add(np.array([[4, 2, 2], [1, 1, 0]]))
    >>> lanes.summary()
    {'share': 1.0, 'needed': 10, 'made': 10, 'rounds': 2, 'lanes': 2, 'devices': 1}
    """

    def __init__(self, lanes: int, devices: int) -> None:
        self._lanes, self._devices = lanes, devices
        self._needed = self._made = self._rounds = self._clients = 0

    def add(self, steps: np.ndarray) -> None:
        """Lay rounds out: `[rounds, clients]`, the local steps that each client of a cohort needed, 0 in an empty slot."""
        for of_round in steps if self._lanes and steps.shape[1] else ():
            if self._clients > MOST:
                return
            working = of_round[of_round > 0].tolist()
            self._needed += sum(working)
            self._made += self._devices * self._lanes * made_by(working, self._lanes, self._devices, len(of_round))
            self._clients, self._rounds = self._clients + len(of_round), self._rounds + 1

    def summary(self) -> dict[str, Any]:
        """Return the share, its two sums, in how many rounds, of which lanes; nothing where no step is known."""
        if not self._made:
            return {}
        counted = {"needed": self._needed, "made": self._made, "rounds": self._rounds}
        return {"share": self._needed / self._made} | counted | {"lanes": self._lanes, "devices": self._devices}


def occupancy_of(algorithm: Algorithm, shapes: State, needs: Mapping[str, Need]) -> Occupancy:
    """Make what counts a run's lanes; of a private run, and of lanes that no queue fills, it counts nothing.

    Args:
        algorithm, shapes: what runs, and the shapes of its state.
        needs: of each device, with the stack of lanes.
    """
    known = algorithm.layout is not None and algorithm.layout.queued
    private = algorithm.privacy is not None or hidden(shapes.own, shapes.uplink)  # which steps were needed tells of who took part
    return Occupancy(needs["lane stack"].rows if known and not private else 0, device_count())


def made_by(steps: Sequence[int], lanes: int, devices: int, slots: int) -> int:
    """Return how many steps pass until the last client is done.

    Args:
        steps: of each client.
        lanes, devices: to each device with fewest steps and a slot left, the longest client first; there to the first lane that is free.
        slots: of the cohort; a device has as many as another, rounded up.

    >>> made_by([9, 5, 1], lanes=1, devices=2, slots=3), made_by([3, 2, 2, 1], lanes=2, devices=1, slots=4)
    (9, 4)
    """
    order, each = sorted(steps, reverse=True), -(-slots // devices)
    loads, counts = [0] * devices, [0] * devices
    free = [[0] * lanes for _ in range(devices)]
    for step in order:
        device = min((k for k in range(devices) if counts[k] < each), key=lambda k: loads[k])
        loads[device], counts[device] = loads[device] + step, counts[device] + 1
        heapq.heapreplace(free[device], free[device][0] + step)
    return max((max(lane) for lane in free), default=0)
