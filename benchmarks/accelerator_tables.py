"""The Markdown tables of `accelerator.py`, for README.md, from its lines."""

from collections.abc import Iterable

ROUND = (
    "workload", "clients a round", "precision", "lanes", "s a round", "clients/s", "TFLOP/s", "matmul peak", "share", "lane-steps useful",
    "loss", "compile s", "program GB", "so far GB",
)  # fmt: skip
RULE = "rule", "ms", "GB/s of messages", "norm", "compile s", "program GB"
STUDY = (
    "workload",
    "runs",
    "ms a run",
    "ms of a single run",
    "ratio",
    "as long as single runs",
    "compile s",
    "of a single run",
    "program GB",
)


def tables(lines: list[dict]) -> str:
    """All of them; a part without results has none, and what failed or was left out stands at the end."""
    done = {part: [line for line in lines if part_of(line) == part and is_result(line)] for part in map(part_of, lines)}
    rounds = [line for part in ("emnist_cnn", "workloads") for line in done.get(part, [])]
    tried = [line["workload"] for line in done.get("lanes", [])]
    beside = [line for line in rounds if line["precision"] == "float32" and (line["workload"], line["clients"]) in same_rounds(done)]
    lanes = sorted(done.get("lanes", []) + beside, key=lambda line: (tried.index(line["workload"]), line["width"]))
    blocks = [
        *map(machine, done.get("machine", [])),
        correct(done.get("correct", [])),
        section("Rounds", ROUND, map(of_round, rounds)),
        section("Lanes", ROUND, map(of_round, lanes)),
        section("Study", STUDY, map(of_study, done.get("study", []))),
        section("Aggregators", RULE, map(of_rule, done.get("aggregators", []))),
        section("Failed", ("job", "why"), ((line["job"], line["failed"]) for line in lines if "failed" in line)),
        section("Left out", ("job", "why"), ((line["job"], line["skipped"]) for line in lines if "skipped" in line)),
    ]
    return "\n".join(block for block in blocks if block)


def part_of(line: dict) -> str:
    return line["job"].split("/")[0]


def is_result(line: dict) -> bool:
    return "failed" not in line and "skipped" not in line


def same_rounds(done: dict[str, list[dict]]) -> set[tuple]:
    """Which rounds the numbers of lanes were tried on."""
    return {(line["workload"], line["clients"]) for line in done.get("lanes", [])}


def section(title: str, header: Iterable[str], rows: Iterable[Iterable]) -> str:
    """A table under its title; nothing where it has no row."""
    body = ["| " + " | ".join(map(text, row)) + " |" for row in rows]
    head = ["| " + " | ".join(header) + " |", "|---" * len(tuple(header)) + "|"]
    return "\n".join([f"### {title}\n", *head, *body, ""]) if body else ""


def text(cell) -> str:
    """A number to three digits."""
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
    return "" if cell is None else str(cell).replace("|", "\\|")


def machine(line: dict) -> str:
    peaks = ", ".join(f"{name} {gflops / 1000:.3g}" for name, gflops in line["matmul_peak"].items())
    memory = f", {line['memory_limit_gb']} GB for jax" if line["memory_limit_gb"] else ""
    versions = ", ".join(f"{name} {line[key]}" for name, key in (("jax", "jax"), ("jaxlib", "jaxlib"), ("Python", "python")))
    return (
        f"{line['device']}, one of {line['devices']}{memory}; {line['platform_version']}; {versions}. Matmul peak, TFLOP/s: {peaks}. By "
        f"default jax multiplies float32 here as {line['float32_products']} (relative error {line['float32_product_error']:.1e}).\n"
    )


def correct(lines: list[dict]) -> str:
    """One row for all that agrees, and one for each that does not."""
    if not lines:
        return ""
    agree, others = [line for line in lines if line["agrees"]], [line for line in lines if not line["agrees"]]
    worst = max(agree, key=lambda line: line["difference"], default=None)
    rows = [(f"{len(agree)} agree, the furthest {worst['job']}", worst["difference"])] if worst else []
    rows += [(f"{line['job']} DIFFERS", line["difference"]) for line in others]
    title = f"Beside the CPU's numbers (float32, tolerance {lines[0]['tolerance']:.0e} of each array's largest entry)"
    return section(title, ("what", "largest difference"), rows)


def of_round(line: dict):
    names = "workload", "clients", "precision", "width", "seconds", "clients_a_second"
    rest = "share", "useful", "loss", "compile_seconds", "memory_gb", "peak_memory_gb"
    return [*(line[name] for name in names), line["gflops"] / 1000, line["matmul_peak"] / 1000, *(line[name] for name in rest)]


def of_study(line: dict):
    ms = 1000 * line["study_seconds_a_run"], 1000 * line["single_seconds"]
    rest = "ratio", "study_in_single_runs", "study_compile_seconds", "single_compile_seconds", "study_memory_gb"
    return [line["workload"], line["runs"], *ms, *(line[name] for name in rest)]


def of_rule(line: dict):
    rest = "gb_a_second", "norm", "compile_seconds", "memory_gb"
    return [line["rule"], 1000 * line["seconds"], *(line[name] for name in rest)]
