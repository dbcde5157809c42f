"""PyTorch's contender: FedAvg written by hand and tuned, on one of `workloads.py`. Speaks the protocol of `peers.py`.

    python benchmarks/peer_torch.py WORKLOAD [--start FILE.npz] [--variant seq|vmap|hand] [--procs 1|2] [--compile]

Variants:
    seq   one model, one client after the other; the parameters are views of one flat buffer, so that a client starts with
          one flat copy and ends with one flat axpy. `--compile` puts the step through `torch.compile`.
    vmap  `torch.func.vmap` over stacked clients, sorted by steps; the stack shrinks as clients finish. Not for char_lstm:
          `nn.LSTM` has no batching rule.
    hand  gradients in closed form, fused with the update; softmax and mlp only: a floor, not a simulator anyone would write.

`--procs 2` starts two worker processes of one thread each; clients are dealt out greedily, longest first.
"""

import argparse
import contextlib
import platform
import time

import numpy as np
import torch
import torch.multiprocessing
from peer_torch_models import Data, build, example_losses, mean_loss, trained
from peers import serve
from workloads import WORKLOADS


class Sequential:
    """One model, one client after the other."""

    def __init__(self, data, model, compiled=False):
        self.data, self.rate, self.model = data, data.workload.rate, model
        self.parameters = list(trained(model).values())
        self.flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        end = 0
        for p in self.parameters:
            start, end = end, end + p.numel()
            view = self.flat[start:end]
            if p.dim() == 4:  # channels-last weights, as the images are
                view = view.view(p.shape[0], *p.shape[2:], p.shape[1]).permute(0, 3, 1, 2)
            p.data = view.view_as(p).copy_(p.data)
        self.init, self.total = self.flat.clone(), torch.zeros_like(self.flat)
        self.train = self.compiled_trainer() if compiled else self.train_client

    def run(self, flat, ids):
        """Train the clients from `flat`; the sum of their parameters weighted by examples, and the sum of example losses."""
        losses, weights = [], []
        self.total.zero_()
        for c in ids:
            self.flat.copy_(flat)
            for loss, count in self.train(c):
                losses.append(loss)
                weights.append(count)
            self.total.add_(self.flat, alpha=float(self.data.sizes[c]))
        return self.total, float(torch.stack(losses) @ torch.tensor(weights, dtype=torch.float32))

    def train_client(self, c):
        for x, y in self.data.batches(c):
            loss = mean_loss(self.model(x), y)
            gradients = torch.autograd.grad(loss, self.parameters)
            with torch.no_grad():
                torch._foreach_add_(self.parameters, gradients, alpha=-self.rate)
            yield loss.detach(), len(y)

    def compiled_trainer(self):
        """As `train_client` with a compiled step: the short batch is padded to one static shape, parameters have storage of their own."""
        size, rate = self.data.workload.batch, self.rate
        slots, whole = torch.arange(size), torch.ones(size)
        views = [p.data for p in self.parameters]
        own = {name: p.data.clone() for name, p in trained(self.model).items()}

        def loss_fn(parameters, x, y, mask):
            return (example_losses(torch.func.functional_call(self.model, parameters, (x,)), y) * mask).sum() / mask.sum()

        @torch.compile(dynamic=False)
        def step(parameters, x, y, mask):
            gradients, loss = torch.func.grad_and_value(loss_fn)(parameters, x, y, mask)
            for name, value in parameters.items():  # value.add_(gradient, alpha=-rate) is miscompiled by torch 2.13 on CPU
                value.copy_(value - rate * gradients[name])
            return loss

        def train(c):
            torch._foreach_copy_(list(own.values()), views)
            for x, y in self.data.batches(c):
                count, mask = len(y), whole
                if count < size:
                    index, mask = slots.clamp(max=count - 1), (slots < count).float()
                    x, y = x[index], y[index]
                yield step(own, x, y, mask), count
            torch._foreach_copy_(views, list(own.values()))

        return train


class Vmap:
    """Stacked clients under `torch.func.vmap`."""

    def __init__(self, data, model):
        self.data, self.rate = data, data.workload.rate
        self.shapes = {name: p.shape for name, p in trained(model).items()}
        self.init = torch.cat([p.detach().reshape(-1) for p in trained(model).values()])

        def loss_fn(parameters, x, y, mask):
            return (example_losses(torch.func.functional_call(model, parameters, (x,)), y) * mask).sum() / mask.sum()

        self.gradients = torch.func.vmap(torch.func.grad_and_value(loss_fn))

    def run(self, flat, ids):
        """As `Sequential.run`."""
        ids, loss_sum = longest_first(self.data, ids), 0.0
        parts = flat.split([shape.numel() for shape in self.shapes.values()])
        stacked = {
            name: part.view(shape).expand(len(ids), *shape).clone() for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
        for count, x, y, mask in self.data.stacked_batches(ids):
            active = {name: value[:count] for name, value in stacked.items()}
            gradients, losses = self.gradients(active, x, y, mask)
            for name, value in active.items():
                value.add_(gradients[name], alpha=-self.rate)
            loss_sum += float(losses @ mask.sum(1))
        weights = torch.from_numpy(self.data.sizes[ids].astype(np.float32))
        return torch.cat([weights @ value.reshape(len(ids), -1) for value in stacked.values()]), loss_sum


class HandMLP:
    """The mlp's gradients in closed form, one client after the other; weights are stored `[in, out]`."""

    def __init__(self, data, model):
        self.data, self.rate = data, data.workload.rate
        parts = [p.detach().t() for p in model.parameters()]
        self.init = torch.cat([part.reshape(-1) for part in parts])
        self.flat, self.total = self.init.clone(), torch.zeros_like(self.init)
        views = self.flat.split([part.numel() for part in parts])
        self.parameters = [view.view(part.shape) for view, part in zip(views, parts, strict=True)]

    @torch.no_grad()
    def run(self, flat, ids):
        """As `Sequential.run`."""
        w1, b1, w2, b2, w3, b3 = self.parameters
        relu_gradient, rate, losses = torch.ops.aten.threshold_backward, self.rate, []
        self.total.zero_()
        for c in ids:
            self.flat.copy_(flat)
            for x, y in self.data.batches(c):
                x, y = x.view(len(x), 784), y[:, None]
                h1 = torch.addmm(b1, x, w1).relu_()
                h2 = torch.addmm(b2, h1, w2).relu_()
                logp = torch.addmm(b3, h2, w3).log_softmax(1)
                losses.append(logp.gather(1, y).sum())
                d3 = softmax_gradient(logp, y).div_(len(y))
                d2 = relu_gradient(d3 @ w3.t(), h2, 0)
                d1 = relu_gradient(d2 @ w2.t(), h1, 0)
                for w, b, inputs, d in ((w3, b3, h2, d3), (w2, b2, h1, d2), (w1, b1, x, d1)):
                    w.addmm_(inputs.t(), d, alpha=-rate)
                    b.sub_(d.sum(0), alpha=rate)
            self.total.add_(self.flat, alpha=float(self.data.sizes[c]))
        return self.total, -float(torch.stack(losses).sum())


class HandSoftmax:
    """The softmax regression's gradients in closed form, all clients at once; weights are stored `[in, out]`."""

    def __init__(self, data, model):
        self.data, self.rate = data, data.workload.rate
        self.init = torch.cat([model.weight.detach().t().reshape(-1), model.bias.detach()])

    @torch.no_grad()
    def run(self, flat, ids):
        """As `Sequential.run`."""
        ids, loss_sum = longest_first(self.data, ids), 0.0
        w, b = flat[:600].view(60, 10).repeat(len(ids), 1, 1), flat[600:].repeat(len(ids), 1)
        for count, x, y, mask in self.data.stacked_batches(ids):
            y, mask = y[..., None], mask[..., None]
            logp = torch.baddbmm(b[:count, None], x, w[:count]).log_softmax(2)
            loss_sum -= float((logp.gather(2, y) * mask).sum())
            d = softmax_gradient(logp, y).mul_(mask / mask.sum(1, keepdim=True))
            w[:count].baddbmm_(x.transpose(1, 2), d, alpha=-self.rate)
            b[:count].sub_(d.sum(1), alpha=self.rate)
        weights = torch.from_numpy(self.data.sizes[ids].astype(np.float32))
        return torch.cat([weights @ w.view(len(ids), -1), weights @ b]), loss_sum


def softmax_gradient(logp, y):
    """Softmax minus one-hot, in the memory of `logp`."""
    return logp.exp_().scatter_add_(-1, y, logp.new_full(y.shape, -1))


def longest_first(data, ids):
    return ids[np.argsort(-data.steps[ids], kind="stable")]


def make(options):
    """The trainer a command line asks for; its clients' data is loaded here."""
    data, model = Data(options.workload), build(options.workload, options.start)
    if options.variant == "seq":
        return Sequential(data, model, options.compile)
    return Vmap(data, model) if options.variant == "vmap" else {"mlp": HandMLP, "softmax": HandSoftmax}[options.workload](data, model)


class Local:
    """Rounds in this process."""

    def __init__(self, options):
        torch.set_num_threads(options.threads)
        self.trainer = make(options)
        self.sizes, self.init, self.flat = self.trainer.data.sizes, self.trainer.init, self.trainer.init.clone()

    def round(self, ids):
        """One round of FedAvg; returns the mean training loss of its local steps."""
        total, loss_sum = self.trainer.run(self.flat, ids)
        self.flat.copy_(total).div_(float(self.sizes[ids].sum()))
        return loss_sum / self.sizes[ids].sum()


class Pool:
    """Rounds in worker processes, which share the global parameters and their own sums with this one."""

    def __init__(self, options):
        torch.set_num_threads(1)
        workload = WORKLOADS[options.workload]
        self.sizes, self.steps = workload.sizes, -(-workload.sizes // workload.batch)
        count = sum(p.numel() for p in trained(build(options.workload)).values())
        self.flat = torch.zeros(count).share_memory_()
        self.totals = [torch.zeros(count).share_memory_() for _ in range(options.procs)]
        self.pipes, context = [], torch.multiprocessing.get_context("spawn")
        for total in self.totals:
            pipe, far_end = context.Pipe()
            context.Process(target=work, args=(options, self.flat, total, far_end), daemon=True).start()
            far_end.close()
            self.pipes.append(pipe)
        self.init = [torch.from_numpy(pipe.recv()) for pipe in self.pipes][0]
        self.flat.copy_(self.init)

    def round(self, ids):
        """As `Local.round`."""
        loads, parts = [0.0] * len(self.pipes), [[] for _ in self.pipes]
        for c in sorted(ids, key=lambda c: -self.steps[c]):
            least = loads.index(min(loads))
            parts[least].append(c)
            loads[least] += self.steps[c] + 0.3  # a client's start and end cost about a third of a step
        for pipe, part in zip(self.pipes, parts, strict=True):
            pipe.send(np.array(part))
        loss_sum = sum(pipe.recv() for pipe in self.pipes)
        torch.sum(torch.stack(self.totals), 0, out=self.flat)
        self.flat.div_(float(self.sizes[ids].sum()))
        return loss_sum / self.sizes[ids].sum()


def work(options, flat, total, pipe):
    """A worker of `Pool`."""
    torch.set_num_threads(options.threads)
    trainer = make(options)
    pipe.send(trainer.init.numpy())
    with contextlib.suppress(EOFError):  # the pool has ended
        while True:
            part, loss_sum = trainer.run(flat, pipe.recv())
            total.copy_(part)
            pipe.send(loss_sum)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--start", help="initial parameters, an .npz file")
    parser.add_argument("--variant", choices=["seq", "vmap", "hand"], default="seq")
    parser.add_argument("--procs", type=int, default=1, help="worker processes")
    parser.add_argument("--threads", type=int, default=1, help="threads a process; beyond 1, a busy machine stalls them")
    parser.add_argument("--compile", action="store_true", help="torch.compile the step of seq")
    options = parser.parse_args()
    if options.compile and options.variant != "seq":
        parser.error("--compile is for --variant seq")
    if options.variant == "vmap" and options.workload == "char_lstm":
        parser.error("--variant vmap cannot train char_lstm: nn.LSTM has no batching rule")
    if options.variant == "hand" and options.workload not in ("mlp", "softmax"):
        parser.error(f"--variant hand is for mlp and softmax, not {options.workload}")

    simulator = Pool(options) if options.procs > 1 else Local(options)
    cohorts = WORKLOADS[options.workload].cohorts(200)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        simulator.round(cohorts[-1])
        seconds.append(time.perf_counter() - start)
    simulator.flat.copy_(simulator.init)
    serve(
        simulator.round,
        cohorts,
        program="torch",
        variant=f"{options.variant}{' compiled' * options.compile}, {options.procs}x{options.threads}",
        versions={"torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version()},
        compile_seconds=round(max(0.0, seconds[0] - seconds[1]), 2),
    )


if __name__ == "__main__":
    main()
