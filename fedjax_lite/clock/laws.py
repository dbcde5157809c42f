"""The devices of a population: drawn from a law, read from a file, or given."""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.clock.devices import Devices, check_devices
from fedjax_lite.refuse import a_count, plain, positive

COLUMNS = ("client", "steps", "download", "upload")


class Phone(NamedTuple):
    """A class of phones: local steps a second, bytes a second."""

    steps: float
    download: float
    upload: float


# Illustrative, not measured: a factor of 12 between the ends, as between the 90th and the 10th percentile of a lognormal law of sigma 1,
# and links of about 80/16, 24/8 and 4/1 megabits a second.
PHONES = {"high": Phone(40.0, 1e7, 2e6), "mid": Phone(12.0, 3e6, 1e6), "low": Phone(3.3, 5e5, 1.25e5)}


def lognormal(
    population: Whole,
    steps: Number = 10.0,
    sigma: Number = 1.0,
    download: Number = math.inf,
    upload: Number = math.inf,
    link_sigma: Number = 0.0,
    seed: Whole = 0,
) -> Devices:
    """Speeds and links whose logarithms are normal: a step takes client k exp(sigma z_k) / steps seconds.

    Args:
        population: how many clients there are.
        steps: local steps a second of the median client.
        sigma: how much clients differ; 0: not at all, 1: the slowest tenth takes 13 times as long as the fastest.
        download, upload: bytes a second of the median link; inf: no time is spent there.
        link_sigma: how much links differ. A client's link is good or bad in both directions alike.
        seed: of the draw.

    Raises:
        ValueError: for speeds that are not positive, deviations that are negative, or a population without clients.

    >>> devices = lognormal(3, steps=2.0, sigma=0.0)
    >>> devices.steps.tolist(), devices.upload.tolist()
    ([2.0, 2.0, 2.0], [inf, inf, inf])
    """
    population, seed = a_count("lognormal", "population", population), a_count("lognormal", "seed", seed, least=0)
    spreads = [_spread(name, plain(value)) for name, value in (("sigma", sigma), ("link_sigma", link_sigma))]
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):  # speeds of zero are refused by name
        speed, link = (np.exp(-spread * rng.standard_normal(population)) for spread in spreads)
    medians = [_rate("lognormal", name, x) for name, x in (("steps", steps), ("download", download), ("upload", upload))]
    return _checked("lognormal", (median * factor for median, factor in zip(medians, (speed, link, link), strict=True)))


def phones(population: Whole, shares: Mapping[str, Number] | None = None, seed: Whole = 0) -> Devices:
    """A few classes of phones: "high", "mid" and "low" end, by illustrative numbers in the table `PHONES` of this file.

    Args:
        population: how many clients there are.
        shares: class -> the part of the population that has it; by default a fifth, a half and the rest.
        seed: of the draw.

    Raises:
        ValueError: for an unknown class, or shares that are negative or do not add up to 1.

    >>> sorted(set(phones(50).steps.tolist()))
    [3.3, 12.0, 40.0]
    """
    population, seed = a_count("phones", "population", population), a_count("phones", "seed", seed, least=0)
    shares = {"high": 0.2, "mid": 0.5, "low": 0.3} if shares is None else shares
    if not isinstance(shares, Mapping) or not shares or not set(shares) <= set(PHONES):
        raise ValueError(f"phones: shares must be a table of {', '.join(PHONES)} and the part of each, got {shares!r}")
    parts = [plain(share) for share in shares.values()]
    if not all(isinstance(part, int | float) and 0 <= part <= 1 for part in parts) or abs(sum(parts) - 1) > 1e-6:
        raise ValueError(f"phones: shares must not be negative and must add up to 1, got {dict(shares)}")
    drawn = np.random.default_rng(seed).choice(len(parts), population, p=np.asarray(parts, float) / sum(parts))
    return Devices(*np.asarray([PHONES[name] for name in shares], float)[drawn].T)


def from_csv(path: str | Path, population: Whole) -> Devices:
    """A file with the columns client, steps, download and upload: steps and bytes a second of every client, once each.

    Args:
        path: of the file; its first line names the columns, in any order. An upload or download of "inf" takes no time.
        population: how many clients there are; ids count from 0.

    Raises:
        ValueError: naming the line, for other columns, what is no number, an unknown client, one that is missing or twice in it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("client,steps,download,upload\\n1,5,1e6,1e5\\n0,20,inf,inf\\n")
    ...     file.flush()
    ...     from_csv(file.name, population=2).steps.tolist()
    [20.0, 5.0]
    """
    population = a_count("from_csv", "population", population)
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file, skipinitialspace=True)
        header = [name.strip() for name in rows.fieldnames or []]
        rows.fieldnames = header
        if sorted(header) != sorted(COLUMNS):
            raise ValueError(f"from_csv: {path} must have the columns {','.join(COLUMNS)}, its first line is {','.join(header)!r}")
        table = np.full((3, population), np.nan)
        for row in rows:
            where = f"from_csv: {path}, line {rows.line_num}"
            client = _client(where, row["client"], population)
            if not np.isnan(table[0, client]):
                raise ValueError(f"{where}: client {client} stands twice: name each once")
            if None in row or None in row.values():
                raise ValueError(f"{where}: a line must have {len(COLUMNS)} values, one for each of {','.join(header)}")
            table[:, client] = [_rate(where, name, row[name]) for name in COLUMNS[1:]]
    if (missing := np.flatnonzero(np.isnan(table[0]))).size:
        raise ValueError(f"from_csv: {path} lacks {missing.size} of {population} clients, the first is {missing[0]}: name each once")
    return Devices(*table)


def given(steps: Any, download: Any = math.inf, upload: Any = math.inf, population: Whole | None = None) -> Devices:
    """Speeds that are known: a number for all clients, or one for each.

    Args:
        steps: local steps a second, a number or `[population]`.
        download, upload: bytes a second, a number or `[population]`; inf: no time is spent there.
        population: how many clients there are; by default as many as the longest argument has.

    Raises:
        ValueError: for speeds that are zero, negative or NaN, a speed of infinitely many steps, or arrays of other lengths.

    >>> given([1.0, 4.0], upload=100.0).upload.tolist()
    [100.0, 100.0]
    """
    arrays = {name: _array(name, x) for name, x in (("steps", steps), ("download", download), ("upload", upload))}
    lengths = {len(x) for x in arrays.values() if x.ndim} | (
        {a_count("given", "population", population)} if population is not None else set()
    )
    if len(lengths) != 1:
        shown = ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items())
        raise ValueError(f"given: steps, download and upload must be numbers, or one for each of the population's clients, got {shown}")
    return _checked("given", (np.broadcast_to(x, tuple(lengths)).copy() for x in arrays.values()))


def _checked(name: str, arrays: Iterable[Any]) -> Devices:
    """Make the devices of three arrays; refuse speeds that are zero, negative or NaN, and infinitely many steps a second."""
    devices = Devices(*arrays)
    check_devices(name, devices)
    return devices


def _array(name: str, value: Any) -> np.ndarray:
    """Return a number, or numbers of clients, in float64."""
    try:
        x = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"given: {name} must be a number, or one for each client, got {value!r}") from None
    if x.ndim > 1:
        raise ValueError(f"given: {name} must be a number, or one for each client, got the shape {list(x.shape)}")
    return x


def _rate(where: str, name: str, value: Any) -> float:
    """Return a speed as a float; refuse what is no positive number, and infinitely many steps."""
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = math.nan
    if not rate > 0 or (name == "steps" and math.isinf(rate)):
        raise ValueError(f"{where}: {name} must be a speed above 0{_finite(name)}, got {value!r}")
    return rate


def _spread(name: str, value: Any) -> float:
    """Return a deviation; refuse a tracer too, since the host draws."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"lognormal: {name} is traced, and devices are drawn on the host: draw them before, and scale their speeds inside")
    positive("lognormal", name, value, or_zero=True)
    return value


def _finite(name: str) -> str:
    """Say of steps that they must be finite."""
    return ", and finite" if name == "steps" else ""


def _client(where: str, text: str, population: int) -> int:
    """Return a client's id."""
    if not text.strip().isdecimal() or int(text) >= population:
        raise ValueError(f"{where}: client must be an id from 0 to {population - 1}, got {text!r}")
    return int(text)
