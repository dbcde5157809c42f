"""Speeds and links of devices: their laws, a file, and what is refused."""

import math

import jax
import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.clock.laws import PHONES


def test_lognormal_speeds_have_their_median_and_spread():
    """A step takes the median client 1 / steps seconds, and the slowest tenth exp(2 * 1.2816 sigma) times the fastest."""
    devices = fl.clock.lognormal(200_000, steps=4.0, sigma=1.0, download=1e6, link_sigma=0.5, seed=3)
    for rates, median, sigma in ((devices.steps, 4.0, 1.0), (devices.download, 1e6, 0.5)):
        assert rates.dtype == np.float64 and rates.shape == (200_000,)
        low, middle, high = np.quantile(rates, [0.1, 0.5, 0.9])
        assert middle == pytest.approx(median, rel=0.01) and high / low == pytest.approx(math.exp(2.5631 * sigma), rel=0.02)
    assert np.isinf(devices.upload).all() and abs(np.corrcoef(np.log(devices.steps), np.log(devices.download))[0, 1]) < 0.01


def test_a_seed_is_a_population():
    first, again, other = (fl.clock.lognormal(9, sigma=0.5, upload=10.0, link_sigma=1.0, seed=seed) for seed in (1, 1, 2))
    z = np.random.default_rng(1).standard_normal(9)
    np.testing.assert_allclose(first.steps, 10 * np.exp(-0.5 * z), rtol=1e-14)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)) and not np.array_equal(first.steps, other.steps)
    alike = fl.clock.lognormal(4, sigma=0.0)
    assert alike.steps.tolist() == [10.0] * 4


def test_phones_come_in_their_shares():
    devices = fl.clock.phones(100_000, shares={"low": 0.25, "high": 0.75}, seed=1)
    rows, counts = np.unique(np.stack(devices, 1), axis=0, return_counts=True)
    assert [tuple(row) for row in rows] == [PHONES["low"], PHONES["high"]]
    np.testing.assert_allclose(counts / 100_000, [0.25, 0.75], atol=0.005)


LINES = "client,download,steps,upload\n1,inf,2,1e3\n0,5,0.5,7\n2,1,1,1\n"


def write(tmp_path, text):
    file = tmp_path / "devices.csv"
    file.write_text(text)
    return file


def test_a_file(tmp_path):
    devices = fl.clock.from_csv(write(tmp_path, LINES), 3)
    assert [x.tolist() for x in devices] == [[0.5, 2, 1], [5, math.inf, 1], [7, 1000, 1]]


FILES = {
    "header": (LINES.replace("steps", "speed"), r"must have the columns client,steps,download,upload, its first line is 'client,"),
    "empty": ("", "its first line is ''"),
    "twice": (LINES + "0,1,1,1\n", r"devices.csv, line 5: client 0 stands twice: name each once"),
    "missing": (LINES[: -len("2,1,1,1\n")], "lacks 1 of 3 clients, the first is 2"),
    "client": (LINES.replace("\n2,", "\n3,"), "line 4: client must be an id from 0 to 2, got '3'"),
    "short": (LINES + "2\n", "line 5: client 2 stands twice"),
    "no number": (LINES.replace("0.5", "fast"), "line 3: steps must be a speed above 0, and finite, got 'fast'"),
    "zero": (LINES.replace("1e3", "0"), "line 2: upload must be a speed above 0, got '0'"),
    "NaN": (LINES.replace("1e3", "nan"), "line 2: upload must be a speed above 0, got 'nan'"),
    "cut": (LINES.replace("2,1,1,1", "2,1"), "line 4: a line must have 4 values, one for each of"),
    "more": (LINES.replace("2,1,1,1", "2,1,1,1,1"), "line 4: a line must have 4 values, one for each of"),
}


def test_a_file_of_a_spreadsheet_is_read(tmp_path):
    """With the mark at its beginning, and spaces behind commas."""
    text = "\ufeff" + LINES.replace(",", ", ")
    assert fl.clock.from_csv(write(tmp_path, text), 3).steps.tolist() == fl.clock.from_csv(write(tmp_path, LINES), 3).steps.tolist()


@pytest.mark.parametrize("name", FILES)
def test_refusals_of_files(name, tmp_path):
    text, message = FILES[name]
    with pytest.raises(ValueError, match=f"from_csv: .*{message}"):
        fl.clock.from_csv(write(tmp_path, text), 3)


REFUSED = {
    "zero": (lambda: fl.clock.given([1.0, 0.0]), "given: client 1 has steps=0 a second: it must be positive and finite"),
    "negative": (lambda: fl.clock.given(1.0, [5.0, -1.0]), "given: client 1 has download=-1 a second: it must be positive"),
    "NaN": (lambda: fl.clock.given(1.0, upload=[math.nan, 1.0]), "given: client 0 has upload=nan a second"),
    "no time": (lambda: fl.clock.given(math.inf, [1.0]), "given: client 0 has steps=inf a second"),
    "lengths": (lambda: fl.clock.given([1.0, 2.0], [1.0]), r"given: steps, download and upload must be .* got steps \[2\], download \[1\]"),
    "no length": (lambda: fl.clock.given(2.0), "given: steps, download and upload must be numbers, or one for each"),
    "population": (lambda: fl.clock.given([1.0, 2.0], population=3), "given: steps, download and upload"),
    "text": (lambda: fl.clock.given("fast"), "given: steps must be a number, or one for each client, got 'fast'"),
    "table": (lambda: fl.clock.given([[1.0]]), r"given: steps must be a number, or one for each client, got the shape \[1, 1\]"),
    "steps": (lambda: fl.clock.lognormal(3, steps=0), "lognormal: steps must be a speed above 0, and finite, got 0"),
    "upload": (lambda: fl.clock.lognormal(3, upload=-1), "lognormal: upload must be a speed above 0, got -1"),
    "empty": (lambda: fl.clock.given([]), r"given: steps must be one number a client, \[0\] as steps, got \[0\] float64"),
    "overflow": (lambda: fl.clock.lognormal(9, sigma=1e4), "lognormal: client . has steps=(0|inf) a second"),
    "traced": (lambda: jax.eval_shape(lambda sigma: fl.clock.lognormal(3, sigma=sigma), 1.0), "lognormal: sigma is traced, and devices"),
    "sigma": (lambda: fl.clock.lognormal(3, sigma=-1), "lognormal: sigma must be finite and not negative, got -1"),
    "nobody": (lambda: fl.clock.lognormal(0), "lognormal: population must be a whole number of at least 1, got 0"),
    "class": (lambda: fl.clock.phones(3, {"best": 1.0}), "phones: shares must be a table of high, mid, low and the part of each, got"),
    "shares": (lambda: fl.clock.phones(3, {"high": 0.5, "low": 0.4}), "phones: shares must not be negative and must add up to 1, got"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make()
