"""How long do readers of files take, beside those that people know? Prints a table; made-up files in a temporary folder.

    python benchmarks/loading.py [--rows 1000000] [--pairs 5]

A CSV of 16 columns beside pandas' parser alone, LEAF's JSON beside orjson, a zip of JPEG beside Pillow's decoding alone; what is
not installed is left out. Seconds are of this process's CPU, the least of the pairs.
"""

import argparse
import importlib.util
import io
import json
import math
import sys
import tempfile
import time
import unittest.mock
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orjson
from measure import report

import fedjax_lite as fl


def seconds(calls: dict[str, Callable], pairs: int) -> dict[str, float]:
    """Return the least CPU seconds of each call, made in turn."""
    found = dict.fromkeys(calls, math.inf)
    for _ in range(pairs):
        for what, call in calls.items():
            start = time.process_time()
            call()
            found[what] = min(found[what], time.process_time() - start)
    return found


def there(package: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(package) is not None


def tables(folder: Path, rows: int) -> dict[str, Callable]:
    """A CSV of a client, 14 numbers and a label."""
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.integers(0, 100, (rows, 1)), rng.normal(size=(rows, 14)), rng.integers(0, 6, (rows, 1))], axis=1)
    np.savetxt(folder / "t.csv", table, ["%d", *["%.5f"] * 14, "%d"], ",", header=",".join("abcdefghijklmnop"), comments="")

    def read() -> fl.data.TrainTest:
        return fl.data.csv(folder / "t.csv", client="a", label="p")

    calls: dict[str, Callable] = {"csv": read, "csv without pyarrow": unittest.mock.patch.dict(sys.modules, pyarrow=None)(read)}
    if there("pandas"):
        import pandas

        calls["csv, pandas.read_csv alone"] = lambda: pandas.read_csv(folder / "t.csv")
    return calls


def shards(folder: Path) -> dict[str, Callable]:
    """LEAF's JSON, 60 MB: 60 writers of 165 images."""
    rng = np.random.default_rng(0)
    users = {f"f{i}": {"x": rng.random((165, 784)).round(4).tolist(), "y": rng.integers(0, 62, 165).tolist()} for i in range(60)}
    (folder / "leaf").mkdir()
    file = folder / "leaf" / "all.json"
    file.write_text(json.dumps({"users": [*users], "num_samples": [165] * 60, "user_data": users}))
    return {"leaf": lambda: fl.data.leaf(folder / "leaf", test=0), "leaf, orjson alone": lambda: orjson.loads(file.read_bytes())}


def pictures(folder: Path) -> dict[str, Callable]:
    """2,000 JPEG of 32 x 32 pixels in a zip."""
    if not there("PIL"):
        return {}
    from PIL import Image

    rng, stream = np.random.default_rng(0), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(stream, "JPEG")
    with zipfile.ZipFile(folder / "i.zip", "w") as archive:
        for i in range(2000):
            archive.writestr(f"{i % 10}/{i}.jpg", stream.getvalue())

    def alone() -> np.ndarray:
        with zipfile.ZipFile(folder / "i.zip") as archive:
            return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in archive.namelist()])

    return {"images": lambda: fl.data.images(folder / "i.zip", partition=fl.partition.iid(clients=10)), "images, Pillow alone": alone}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    jax.devices()
    with tempfile.TemporaryDirectory() as name:
        for made in (tables(Path(name), options.rows), shards(Path(name)), pictures(Path(name))):
            found = seconds(made, options.pairs)
            for what, each in found.items():
                report(part=what, rows=options.rows, seconds=round(each, 3))
                print(f"| {what} | {each:.2f} s | {next(iter(found.values())) / each:.2f} |")


if __name__ == "__main__":
    main()
