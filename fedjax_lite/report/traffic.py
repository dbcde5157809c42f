"""Models and traffic in a run's report: sizes, bytes sent so far, and what they bought."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from fedjax_lite.metrics import headline, is_evaluation, lower_is_better, scale_of
from fedjax_lite.report.chart import line_chart
from fedjax_lite.report.curves import marked
from fedjax_lite.report.table import pairs

__all__ = ["traffic_body"]

WAYS = {"uplink_bits": "by clients", "downlink_bits": "to clients"}
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def traffic_body(traffic: dict[str, Any], records: Sequence[dict[str, Any]], outside: Sequence[str] = ()) -> str:
    """Write sizes and sums of bytes, and draw bytes over rounds and the headline metric over bytes.

    Args:
        traffic: the summary's entry.
        records: the dicts in metrics.jsonl.
        outside: metrics that a guarantee does not cover.

    >>> records = [{"round": t, "uplink_bits": 8e6, "test_loss": 1.0 / t} for t in (1, 2)]
    >>> traffic_body({"client_parameters": 4, "global_parameters": 4}, records).count("<figure>")
    2
    """
    figures = [_sent(records, outside), _bought(records, outside)]
    return pairs(_numbers(traffic, outside)) + (f'<div class="figures">{"".join(figures)}</div>' if any(figures) else "")


def _numbers(traffic: dict[str, Any], outside: Sequence[str]) -> dict[str, Any]:
    """Return the rows of the table of models' sizes and bytes sent."""
    sizes = traffic["client_parameters"]
    words = {"parameters of a client's model": ", ".join(f"{size:,}" for size in (sizes if isinstance(sizes, list) else [sizes]))}
    words["parameters of the global model"] = f"{traffic['global_parameters']:,}"
    words |= {
        marked(f"bytes sent {said}", outside, bits): f"{traffic[name]:,.0f}"
        for bits, said in WAYS.items()
        if (name := bits.replace("bits", "bytes")) in traffic
    }
    if "uplink_of_model" in traffic:
        words["a client's message, of its model's size"] = f"{100 * traffic['uplink_of_model']:.3g} %"
    return words


def _sent(records: Sequence[dict[str, Any]], outside: Sequence[str]) -> str:
    """Draw the bytes that all clients together have sent, and were sent, after each round."""
    curves = {marked(said, outside, name): _so_far(records, name) for name, said in WAYS.items() if any(name in each for each in records)}
    return line_chart("bytes sent so far", curves, metric="bytes")


def _bought(records: Sequence[dict[str, Any]], outside: Sequence[str]) -> str:
    """Draw the headline metric of the evaluations over the bytes sent both ways."""
    names = dict.fromkeys(name for record in records for name, x in record.items() if is_evaluation(name) and isinstance(x, float))
    ways = [dict(_so_far(records, name)) for name in WAYS if any(name in each for each in records)]
    if not names or not ways:
        return ""
    metric = headline(names)
    total = {record["round"]: sum(way[record["round"]] for way in ways) for record in records}
    power = min(int(math.log10(max(*total.values(), 1)) / 3), len(UNITS) - 1)
    values = [(record["round"], record[metric]) for record in records if metric in record]
    points = [(total[round] / 1000**power, None if y is None else y / scale_of(metric)) for round, y in values]
    plain = metric.replace("_", " ")
    title = marked(f"{plain} by bytes sent", [metric] if {metric, *WAYS} & set(outside) else [], metric)
    across = f"{UNITS[power]} sent, both ways"
    return line_chart(title, {plain: points}, may_be_log=lower_is_better(metric), across=across, metric=metric)


def _so_far(records: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Sum a metric in bits up to each round, in bytes."""
    rounds = [record["round"] for record in records]
    return list(zip(rounds, itertools.accumulate((record.get(name) or 0.0) / 8 for record in records), strict=True))
