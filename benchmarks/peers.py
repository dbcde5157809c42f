"""This project and other programs on one workload, in turns on one machine.

    python benchmarks/peers.py WORKLOAD [--pairs 5] [--rounds 3] [--only torch fedjax pfl]
        [--method fedprox|scaffold] [--torch-python PATH] [--fedjax-python PATH] [--pfl-python PATH]

Every program trains the same clients from the same parameters, so the losses must agree. All are started and warmed up first
and then wait; in each pair this project runs some rounds and then every peer runs the same ones, so that a change of the
machine's speed hits all of them: read the ratio, which is taken pair by pair. One JSON line a program, then a Markdown table.
With --method it is FedProx or SCAFFOLD in place of FedAvg, beside pfl-research, which has them, too.
A peer whose packages are absent is skipped with a word on how to install it; PATH is the interpreter of an environment that has them.

The protocol of a contender: `python benchmarks/peer_X.py WORKLOAD [--start FILE.npz]` loads, compiles, warms up, returns to the start
and prints {"program", "variant", "versions", "compile_seconds"}. For every line on its standard input, an integer n, it runs the next
n rounds (`workload.cohorts(200)` in turn, over and over) and prints {"seconds": seconds a round, "loss": mean training loss over
the examples of all local steps of the last of these rounds}. It ends with its input.
The start holds the parameters in the order of the forward pass as arrays "0", "1", ... in flax's layouts: kernel `[in, out]` or
`[height, width, in, out]`, then bias; images and their flatten in height, width, channels order; of an LSTM kernel, recurrent
kernel and one bias with the gates in the order i, f, g, o. Of a block of layers convolutions come first, then normalisations (scale, then
bias), then dense layers.
"""

import argparse
import itertools
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
CORES = str(len(os.sched_getaffinity(0)))
INSTALL = {
    "torch": "pip install torch==2.13.0",
    "fedjax": "pip install fedjax==0.0.17 jax==0.4.23 jaxlib==0.4.23 dm-haiku==0.0.12 'numpy<2' 'scipy<1.13'"
    " in an environment of its own (Python 3.11)",
    "pfl": "pip install pfl==0.6.0 torch==2.13.0",
}
VARIANTS = {  # the fastest settings of each peer, from measurements on 2 cores
    "torch": {
        "softmax": [f"--variant vmap --procs {CORES}", f"--variant hand --procs {CORES}", f"--variant hand --threads {CORES}"],
        "mlp": [f"--variant seq --procs {CORES}", f"--variant seq --procs {CORES} --compile", f"--variant hand --procs {CORES}"],
        "emnist_cnn": [f"--variant seq --procs {CORES}"],
        **dict.fromkeys(["char_lstm", "lenet5", "vgg11", "resnet18", "resnet20", "transformer"], [f"--variant seq --procs {CORES}"]),
    },
    "fedjax": {"softmax": [""], "mlp": [""], "emnist_cnn": ["--buckets 4"], "char_lstm": [""]},
    "pfl": dict.fromkeys(["softmax", "mlp", "emnist_cnn", "char_lstm"], [f"--procs {CORES}"]),
}


def serve(round_fn, cohorts, loss_fn=float, **hello):
    """Speak the protocol with a warmed-up program: `round_fn(ids)` runs one round, `loss_fn` turns what it returns into the loss."""
    say(hello)
    turn = itertools.cycle(cohorts)
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            result = round_fn(next(turn))
        seconds = (time.perf_counter() - began) / int(line)
        say({"seconds": seconds, "loss": float(loss_fn(result))})


def say(line):
    print(json.dumps(line), flush=True)


class Contender:
    """A program that has said hello and waits for a number of rounds."""

    def __init__(self, command, log):
        self.command, self.log, self.turns = command, Path(log), []
        with open(log, "w") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.hello = self.heard()

    def take(self, rounds):
        """Run the next rounds: `{"seconds", "loss"}`."""
        try:
            self.process.stdin.write(f"{rounds}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has died, as its silence will say
        return self.heard()

    def heard(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        last = "\n  ".join(self.log.read_text().splitlines()[-15:])
        raise SystemExit(f"{' '.join(self.command)}\nended with exit status {self.process.wait()}; its last words:\n  {last}")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def cpu():
    """The CPU in words."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return f"{CORES} cores {models[0] if models else platform.processor()}"


def commands(options, start):
    """The command line of this project and of every variant of every peer that can be imported."""
    script = [sys.executable, str(HERE / "round_time.py"), options.workload]
    method = ["--method", options.method]
    yield [*script, "--serve", "--start", start, *method]
    for name in options.only:
        python = getattr(options, f"{name}_python")
        found = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True)
        if found.returncode:
            reason = found.stderr.strip().splitlines()[-1]
            print(f"{name} is skipped: {reason}\n  to run it: {INSTALL[name]}, then --{name}-python PATH", file=sys.stderr)
            continue
        for variant in VARIANTS[name].get(options.workload, []):
            yield [
                python,
                str(HERE / f"peer_{name}.py"),
                options.workload,
                "--start",
                start,
                *variant.split(),
                *(method if name == "pfl" else []),
            ]


def common_rounds(first, least):
    """Rounds a turn, the same for all: the fastest program's turn lasts 0.3 s, unless the slowest one's would pass 10 s."""
    times = [turn["seconds"] for turn in first]
    return max(least, min(math.ceil(0.3 / min(times)), math.floor(10 / max(times))))


def compare(contenders, pairs, least):
    """All turns; `contender.turns` holds those of the pairs, and one line a contender comes back."""
    first = [contender.take(least) for contender in contenders]
    rounds = common_rounds(first, least)
    for contender in contenders:
        contender.take(rounds)  # whatever a program compiles for this number of rounds is behind it
    for _ in range(pairs):
        for contender in contenders:
            contender.turns.append(contender.take(rounds))
    ours, lines = [turn["seconds"] for turn in contenders[0].turns], []
    for contender, early in zip(contenders, first, strict=True):
        seconds = [turn["seconds"] for turn in contender.turns]
        ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
        hello = contender.hello
        lines.append(
            {
                "program": hello["program"],
                "variant": hello["variant"],
                "seconds": round(statistics.median(seconds), 5),
                "fastest": round(min(seconds), 5),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "rounds": rounds,
                "first_loss": round(early["loss"], 5),
                "last_loss": round(contender.turns[-1]["loss"], 5),
                "compile_seconds": hello["compile_seconds"],
                "versions": hello["versions"],
                "device": cpu(),
            }
        )
    return lines


def in_turns(commands, pairs, least):
    """Start every command's contender, compare them and end them: the contenders with their turns, and a line each."""
    contenders = []
    with tempfile.TemporaryDirectory() as logs:
        try:
            for command in commands:
                contenders.append(Contender(command, f"{logs}/{len(contenders)}.log"))
                print("ready:", json.dumps(contenders[-1].hello), file=sys.stderr)
            return contenders, compare(contenders, pairs, least)
        finally:
            for contender in contenders:
                contender.close()


def table(workload, lines):
    """Markdown for a person to paste."""
    yield f"{workload}: {lines[0]['device']}; {lines[0]['rounds']} rounds a turn."
    yield ""
    yield "| program | variant | seconds a round | times this project's (range) | loss | compile s |"
    yield "|---|---|---|---|---|---|"
    for line in lines:
        low, high = line["ratio_range"]
        versions = " ".join(line["versions"].get(name, "") for name in [line["program"]])
        yield (
            f"| {line['program']} {versions} | {line['variant']} | {line['seconds']:.3g} | {line['ratio']:.2f} ({low:.2f}-{high:.2f}) "
            f"| {line['last_loss']:.4f} | {line['compile_seconds']:.1f} |"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=VARIANTS["torch"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="the least number of rounds a turn")
    parser.add_argument("--method", default="fedavg", choices=["fedavg", "fedprox", "scaffold"])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="these peers alone")
    for name in VARIANTS:
        parser.add_argument(f"--{name}-python", default=sys.executable, metavar="PATH", help=f"interpreter that can import {name}")
    options = parser.parse_args()
    if options.method != "fedavg":
        options.only = ["pfl"]
    with tempfile.TemporaryDirectory() as folder:
        start = f"{folder}/start.npz"
        if subprocess.run([sys.executable, str(HERE / "round_time.py"), options.workload, "--save-start", start]).returncode:
            raise SystemExit("round_time.py --save-start failed, as it says above")
        _, lines = in_turns(commands(options, start), options.pairs, options.rounds)
    for line in lines:
        say({"benchmark": "peers", "workload": options.workload} | line)
    print("", *table(options.workload, lines), sep="\n")
    losses = [line["first_loss"] for line in lines]
    if max(losses) - min(losses) > 1e-3 * max(1, min(losses)):
        print("the losses differ: these programs have not done the same arithmetic", file=sys.stderr)


if __name__ == "__main__":
    main()
