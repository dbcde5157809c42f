"""pfl-research's contender, by the framework's own path, on one of `workloads.py`. Speaks the protocol of `peers.py`.

    python benchmarks/peer_pfl.py WORKLOAD [--start FILE.npz] [--procs 1|2] [--method fedavg|fedprox|scaffold]

`FederatedAveraging`, `SimulatedBackend` and `PyTorchModel` on tensors built in advance, weights by examples (SCAFFOLD's are equal, and its
control variates stay in memory), server rate 1. With
`--procs 2` two ranks of one thread each (gloo) share a cohort by the framework's greedy scheduler; this process is rank 0 and
starts the others. A training run never ends: a callback after each round measures it, and waits for the next order between turns.
"""

import argparse
import asyncio
import itertools
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from peers import say
from workloads import WORKLOADS

WARM_UP = 2  # rounds
MU = 0.1  # of FedProx, as here
FILL = 4.0  # seconds after which the scheduler's process has drawn ahead and sleeps


def join(procs):
    """Make this process rank 0 of `procs`, the others its children, in torchrun's words, which pfl reads when it is imported."""
    if procs == 1 or "RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "TORCHELASTIC_RUN_ID": "peers"}
    for rank in reversed(range(procs)):
        os.environ |= address | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(procs), "LOCAL_WORLD_SIZE": str(procs)}
        if rank:
            subprocess.Popen([sys.executable, Path(__file__), *sys.argv[1:]], stdin=subprocess.DEVNULL, stdout=sys.stderr)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--start", help="initial parameters, an .npz file")
    parser.add_argument("--procs", type=int, default=1, help="ranks")
    parser.add_argument("--method", default="fedavg", choices=["fedavg", "fedprox", "scaffold"])
    parser.add_argument("--threads", type=int, default=1, help="threads a rank; beyond 1, a busy machine stalls them")
    return parser.parse_args()


def main():
    options = parsed()
    join(options.procs)
    asyncio.set_event_loop(asyncio.new_event_loop())  # pfl asks for the current one

    import pfl
    import torch
    from peer_torch_models import Data, build, mean_loss, trained
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByDatapoints
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.algorithm.fedprox import FedProx, FedProxParams
    from pfl.algorithm.scaffold import SCAFFOLD, SCAFFOLDParams
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.pytorch import PyTorchTensorDataset
    from pfl.data.user_state import InMemoryUserStateStorage
    from pfl.hyperparam.base import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    several = options.procs > 1
    torch.set_num_threads(options.threads)
    np.random.seed(0)  # the same on every rank, as the scheduler demands
    data, network = Data(options.workload), build(options.workload, options.start)
    workload, init = data.workload, {name: p.detach().clone() for name, p in trained(network).items()}
    users = [PyTorchTensorDataset(data.client(c), user_id=str(c)) for c in range(workload.population)]
    losses = []  # of the local steps of a round: loss, examples

    def loss(x, y):
        value = mean_loss(network(x), y)
        losses.append((value.detach().clone(), len(y)))
        return value

    network.loss = loss
    network.metrics = lambda x, y: {}
    model = PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), lr=1.0))

    cohorts = workload.cohorts(200)
    ids = itertools.cycle(np.roll(cohorts, WARM_UP, axis=0).ravel().tolist())  # the warm-up takes the last cohorts
    weights = dict(enumerate(data.steps.tolist())) if several else None
    dataset = FederatedDataset(users.__getitem__, lambda: next(ids), user_id_to_weight=weights)

    class Turns(TrainingProcessCallback):
        """Measures the rounds ordered, answers, and waits for the next order: rank 0 reads it and tells the others."""

        def on_train_begin(self, *, model):
            self.left, self.warm_up, self.began = 1, [], time.perf_counter()
            return Metrics()

        def after_central_iteration(self, aggregate_metrics, model, *, central_iteration):
            self.left -= 1
            if self.left == 0:
                self.answer(time.perf_counter() - self.began)
                self.left = self.ordered = self.order()
                self.began = time.perf_counter()
            losses.clear()
            return self.left == 0, Metrics()

        def answer(self, seconds):
            if len(self.warm_up) < WARM_UP:
                self.warm_up.append(seconds)
                return
            sums = torch.tensor([sum(float(value) * count for value, count in losses), sum(count for _, count in losses)])
            if several:
                torch.distributed.all_reduce(sums)
            self.say({"seconds": seconds / self.ordered, "loss": float(sums[0] / sums[1])})

        def order(self):
            if len(self.warm_up) < WARM_UP:
                return 1
            if len(self.warm_up) == WARM_UP:
                with torch.no_grad():
                    for name, parameter in trained(network).items():
                        parameter.copy_(init[name])
                time.sleep(FILL if several else 0)
                self.hello()
                self.warm_up.append(None)
            rounds = torch.tensor([int(sys.stdin.readline() or 0)])
            if several:
                torch.distributed.broadcast(rounds, src=0)
            return int(rounds)

        def hello(self):
            versions = {"pfl": pfl.__version__, "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()}
            seconds = round(max(0.0, self.warm_up[0] - self.warm_up[1]), 2)
            self.say({"program": "pfl", "variant": f"{options.procs}x{options.threads}", "versions": versions, "compile_seconds": seconds})

        def say(self, line):
            if os.environ.get("RANK", "0") == "0":
                say(line)

    common = dict(central_num_iterations=10**9, evaluation_frequency=10**9, train_cohort_size=workload.cohort, val_cohort_size=0)
    algorithm, params = {
        "fedavg": lambda: (FederatedAveraging(), NNAlgorithmParams(**common)),
        "fedprox": lambda: (FedProx(), FedProxParams(mu=MU, **common)),
        "scaffold": lambda: (SCAFFOLD(), SCAFFOLDParams(
            population=workload.population, use_gradient_as_control_variate=False, user_state_storage=InMemoryUserStateStorage(), **common
        )),
    }[options.method]()  # fmt: skip
    algorithm.run(
        algorithm_params=params,
        backend=SimulatedBackend(dataset, dataset, postprocessors=[] if options.method == "scaffold" else [WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(local_num_epochs=1, local_learning_rate=workload.rate, local_batch_size=workload.batch),
        callbacks=[Turns()],
        send_metrics_to_platform=False,
    )


if __name__ == "__main__":
    main()
