"""What two machines, or two versions, take for the same benchmarks.

    python benchmarks/round_time.py softmax >> A.jsonl      # on one machine, a few times: the spread tells the noise
    python benchmarks/round_time.py softmax >> B.jsonl      # on the other
    python benchmarks/compare.py A.jsonl B.jsonl --threshold 1.1

Rows of one benchmark and case are matched: its texts and whole numbers, but for those about the machine. The ratio is B's time over A's, of
medians where a file has a case several times; then the range goes from B's shortest over A's longest to B's longest over A's shortest.
Of rates (a name that ends in "_a_second") the ratio is turned round. Compilation is not compared.
Lines that do not begin with "{" are passed over.

Exit status: 0; 1 where a case's ratio is above the threshold; 2 for a file that cannot be read or has no result, and for two without a
common case.
"""

import argparse
import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

# A timing lasts as many rounds as the machine's speed asks for, and "width" is the number of lanes that "lanes" led to.
MACHINE = {"device", "devices", "jax", "python", "rounds", "width"}
TIME = re.compile(r"(.*_)?(seconds|s|seconds_a_run)|ms_a_round")
RATE = re.compile(r".*_a_second")
HEAD = ["benchmark", "case", "what", "A", "B", "B / A", "range"]

Case = tuple[str, str, str]  # benchmark, the settings as text, the name of what was measured


def main(arguments: list[str] | None = None) -> int:
    """Print the comparison; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A.jsonl", help="what is compared with")
    parser.add_argument("b", type=Path, metavar="B.jsonl", help="what is compared")
    parser.add_argument("--threshold", type=threshold, default=1.1, help="the highest ratio that counts as no slower (1.1)")
    options = parser.parse_args(arguments)
    try:
        (a, about_a), (b, about_b) = map(measured, (options.a, options.b))
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    if not a.keys() & b.keys():
        print(f"compare: {options.a} and {options.b} have no case in common: run the same benchmarks for both", file=sys.stderr)
        return 2
    rows = [[*case, *beside(case[2], a[case], b[case])] for case in a if case in b]
    print(f"A  {options.a}  {about_a}", f"B  {options.b}  {about_b}", "", *columns([HEAD, *map(shown, rows)]), sep="\n")
    for path, only in ((options.a, a.keys() - b.keys()), (options.b, b.keys() - a.keys())):
        for case in sorted(only):
            print(f"only {path}: {' '.join(case)}")
    slower = [row for row in rows if row[5] > options.threshold]
    print("", *(f"slower than {options.threshold:g} times: {' '.join(row[:3])} ({row[5]:.2f})" for row in slower), sep="\n")
    print(f"{len(slower)} of {len(rows)} slower than {options.threshold:g} times")
    return int(bool(slower))


def threshold(text: str) -> float:
    """Return a positive ratio.

    >>> threshold("1.25")
    1.25
    """
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be positive and finite, got {text}")
    return value


def measured(path: Path) -> tuple[dict[Case, list[float]], str]:
    """Read the times and rates of each case of a file, and the machines that it names."""
    found: dict[Case, list[float]] = {}
    machines: dict[str, None] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.startswith("{"):
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: no JSON ({error}): write each result on a line of its own") from None
        times = {name: value for name, value in row.items() if TIME.fullmatch(name) and "compile" not in name}
        for name, value in (times or {name: value for name, value in row.items() if RATE.fullmatch(name)}).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{path}, line {number}: {name} must be a positive number, got {value!r}")
            found.setdefault((str(row.get("benchmark", "?")), settings(row), name), []).append(value)
            machines[", ".join(str(row[name]) for name in ("device", "jax") if name in row)] = None
    if not found:
        raise ValueError(f"{path}: no line has a time or a rate: write to it what a script of benchmarks/ prints")
    return found, "; ".join(machines)


def settings(row: dict[str, Any]) -> str:
    """Write a row's texts, truth values, whole numbers and lists of these, but for those about the machine.

    >>> settings({"benchmark": "round_time", "workload": "mlp", "clients": 100, "loss": 0.5, "size": [200, 200], "jax": "0.10.2"})
    'workload=mlp clients=100 size=[200, 200]'
    """

    def whole(value: Any) -> bool:
        return all(map(whole, value)) if isinstance(value, list) else value is None or isinstance(value, str | int)

    told = (name for name, value in row.items() if whole(value) and not TIME.fullmatch(name) and not RATE.fullmatch(name))
    return " ".join(f"{name}={row[name]}" for name in told if name not in MACHINE | {"benchmark"})


def beside(name: str, a: list[float], b: list[float]) -> tuple[float, float, float, float, float]:
    """Return both medians, the ratio of B's time over A's, and its lowest and highest value.

    >>> beside("seconds", [1.0, 2.0, 4.0], [3.0])
    (2.0, 3.0, 1.5, 0.75, 3.0)
    >>> beside("clients_a_second", [100.0], [50.0])
    (100.0, 50.0, 2.0, 2.0, 2.0)
    """
    medians = statistics.median(a), statistics.median(b)
    if RATE.fullmatch(name):
        a, b = [1 / x for x in a], [1 / x for x in b]
    return *medians, statistics.median(b) / statistics.median(a), min(b) / max(a), max(b) / min(a)


def shown(row: list) -> list[str]:
    """Write a row's numbers."""
    benchmark, case, name, a, b, ratio, low, high = row
    return [benchmark, case, name, f"{a:.4g}", f"{b:.4g}", f"{ratio:.2f}", f"{low:.2f}-{high:.2f}" if low < high else "one each"]


def columns(rows: list[list[str]]) -> list[str]:
    """Set the cells of rows below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
