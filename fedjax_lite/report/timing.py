"""Where a run's time went, in its report."""

from typing import Any

from fedjax_lite.report.table import duration, pairs

__all__ = ["rounds_a_second", "time_body"]

SAID = {
    "compile": "tracing and compiling",
    "start": "checks, and data to the device",
    "rounds": "rounds, with their evaluations",
    "records": "lines, checkpoints, callbacks",
    "end": "evaluations after the last round",
}


def time_body(time: dict[str, Any], rounds: int) -> str:
    """Write the summary's entry "time" of a run of so many rounds, of which the entry is of the last if the run was resumed.

    >>> "<td>4</td>" in time_body({"seconds": {"compile": 2.0, "rounds": 5.0}, "rounds": 20}, 20)
    True
    """
    rows: dict[str, Any] = {SAID.get(part, part): duration(seconds) for part, seconds in time["seconds"].items()}
    if speed := rounds_a_second(time):
        rows["rounds a second, evaluations among them"] = speed
    text = ""
    if lanes := time.get("lanes"):
        rows["useful share of the lanes"] = f"{100 * lanes['share']:.1f} %"
        where = f"{lanes['lanes']} lane{'' if lanes['lanes'] == 1 else 's'}" + (
            f" on each of {lanes['devices']} devices" if lanes["devices"] > 1 else ""
        )
        text = (
            f"<small>Useful share: of the steps that {where} made until the last client of a round was done, those that clients needed "
            f"({lanes['needed']:,} of {lanes['made']:,} in {lanes['rounds']:,} rounds).</small>"
        )
    since = f"<p>Since the run was resumed, the last {time['rounds']:,} rounds of {rounds:,}.</p>" if time["rounds"] < rounds else ""
    return since + pairs(rows) + text


def rounds_a_second(time: dict[str, Any]) -> str:
    """Write how many rounds there were in a second; "" where that is not known.

    >>> rounds_a_second({"rounds": 20, "seconds": {"rounds": 16.0}}), rounds_a_second({"rounds": 10_000, "seconds": {"rounds": 2.0}})
    ('1.25', '5,000')
    """
    if not time["rounds"] or not time["seconds"].get("rounds"):
        return ""
    speed = time["rounds"] / time["seconds"]["rounds"]
    return f"{speed:.3g}" if speed < 100 else f"{speed:,.0f}"
