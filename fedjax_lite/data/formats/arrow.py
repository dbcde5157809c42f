"""Arrow tables on disk: what Hugging Face's `save_to_disk` writes, and Parquet."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fedjax_lite.base import Number, Whole
from fedjax_lite.data.error import DataError
from fedjax_lite.data.formats.arrow_columns import rows_of_arrow
from fedjax_lite.data.formats.columns import check_table_arguments
from fedjax_lite.data.formats.extra import extra
from fedjax_lite.data.formats.pictures import check_size
from fedjax_lite.data.formats.reading import files_of
from fedjax_lite.data.formats.tabular import population
from fedjax_lite.data.formats.text_pieces import refuse_expansion
from fedjax_lite.data.partition import Partition
from fedjax_lite.data.train_test import TrainTest

_TEST = ("test", "validation", "valid", "val")  # the splits that are a test part; the first of them that is there


def arrow(
    path: str | os.PathLike,
    *,
    label: str = "label",
    client: str | None = None,
    features: Sequence[str] | None = None,
    size: int | Sequence[int] | None = None,
    grey: bool = False,
    missing: str = "refuse",
    text: str = "one-hot",
    standardise: bool = True,
    classes: int | Sequence[str] | None = None,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """A data set that Hugging Face's `save_to_disk` wrote, or an Arrow file, read by pyarrow alone.

    Of a DatasetDict the split train is the training part, and test, or else validation, the test part.

    Args:
        path: the folder with `dataset_dict.json`, or `state.json` and its `data-*.arrow`; or one .arrow file, a stream or a file.
        label: the label's column: whole numbers, with the names of a ClassLabel if it is one, or words, or numbers.
        client: the column that says whose the example is; None: deal by `partition`.
        features: the columns of x. One of images (encoded, or arrays of numbers) or of lists is x; of others, numbers and words, x is a
            row as in `csv`. By default all columns but label and client.
        size, grey: of images, as in `images`.
        missing, text, standardise, classes, fit_on: of numbers and words, as in `csv`.
        partition, test, seed: as in `csv`.

    Returns:
        TrainTest. Examples: "x" float32, of images in [0, 1]; "y" int32, float32 if a label is no whole number.

    Raises:
        ImportError: pyarrow is not installed: the extra `arrow`.
        FileNotFoundError: no such folder or file.
        DataError: naming the file or the column: damaged, a column that is not there or of another type.

    >>> import tempfile, pyarrow as pa, fedjax_lite as fl
    >>> table = pa.table({"who": ["bob", "ann"], "image": [[0, 1], [2, 3]], "label": [1, 0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with pa.ipc.new_stream(folder + "/data-00000-of-00001.arrow", table.schema) as stream:
    ...         stream.write_table(table)
    ...     data = fl.data.arrow(folder, client="who", test=0)
    >>> data.names, data.train.examples["x"].tolist(), data.train.examples["y"].tolist()
    (Names(2 clients: ann, bob), [[2.0, 3.0], [0.0, 1.0]], [0, 1])
    """
    given = Path(path).expanduser()
    if not given.exists():
        raise FileNotFoundError(f"path={str(path)!r} is not there: give a folder that save_to_disk wrote, or an .arrow file")
    splits = {"train": [given]} if given.is_file() else {name: _saved(folder) for name, folder in _splits(given).items()}
    tables = {name: _table(files, _read_arrow) for name, files in splits.items()}
    columns = {"label": label, "client": client, "features": features, "missing": missing, "size": size, "grey": grey}
    return _population(tables, columns, text, standardise, classes=classes, fit_on=fit_on, partition=partition, test=test, seed=seed)


def parquet(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    label: str = "label",
    client: str | None = None,
    features: Sequence[str] | None = None,
    size: int | Sequence[int] | None = None,
    grey: bool = False,
    missing: str = "refuse",
    text: str = "one-hot",
    standardise: bool = True,
    classes: int | Sequence[str] | None = None,
    fit_on: Sequence[str] | None = None,
    partition: Partition | None = None,
    test: Number = 0.2,
    seed: Whole = 0,
) -> TrainTest:
    """Parquet files, read by pyarrow.

    Args:
        path: a file, several, or a folder of .parquet files with the same columns. Files called train, test or validation, or
            `train-00000-of-00001` as on the Hugging Face Hub, are the parts; validation counts where there is no test.
        label, client, features, size, grey, missing, text, standardise, classes, fit_on, partition, test, seed: as in `arrow`.

    Returns:
        TrainTest, as `arrow`.

    Raises:
        ImportError, FileNotFoundError, DataError: as `arrow`.

    >>> import tempfile, pyarrow as pa, pyarrow.parquet as pq, fedjax_lite as fl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pq.write_table(pa.table({"who": ["bob", "ann"], "age": [40, 20], "label": ["no", "yes"]}), folder + "/people.parquet")
    ...     data = fl.data.parquet(folder, client="who", standardise=False, test=0)
    >>> data.names, data.words, data.train.examples["x"].tolist(), data.train.examples["y"].tolist()
    (Names(2 clients: ann, bob), ('no', 'yes'), [[20.0], [40.0]], [1, 0])
    """
    splits: dict[str, list[Path]] = {}
    for file in files_of(path, (".parquet",)):
        found = re.fullmatch(r"(train|test|validation|valid|val)(-\d+-of-\d+)?", file.stem)
        splits.setdefault(found[1] if found else "train", []).append(file)
    tables = {name: _table(files, _read_parquet) for name, files in splits.items()}
    columns = {"label": label, "client": client, "features": features, "missing": missing, "size": size, "grey": grey}
    return _population(tables, columns, text, standardise, classes=classes, fit_on=fit_on, partition=partition, test=test, seed=seed)


def _population(tables: dict[str, tuple[Path, Any]], columns: dict[str, Any], text: str, standardise: bool, **arguments: Any) -> TrainTest:
    """Make a population of the tables of all splits."""
    check_table_arguments(columns["missing"], text)
    splits = [name for name in ("train", *_TEST) if name in tables][:2] if "train" in tables else list(tables)
    if "train" not in splits and len(splits) > 1:
        raise DataError(f"{tables[splits[0]][0].parent} has the splits {', '.join(splits)} and none is train: give the path of one")
    where = tables[splits[0]][0]
    whole = _joined([tables[name] for name in splits])
    rows, kept, arrays = rows_of_arrow(whole, str(where), **columns | {"size": check_size(columns["size"])})
    if len(splits) > 1:
        rows = rows._replace(held=(np.arange(len(whole)) >= len(tables["train"][1]))[kept])
    return population(rows, text=text, standardise=standardise and not arrays, **arguments)


def _joined(tables: list[tuple[Path, Any]]) -> Any:
    """Concatenate tables, each with its file."""
    import pyarrow as pa

    for file, table in tables[1:]:
        if table.schema.names != tables[0][1].schema.names:
            raise DataError(f"{file} has the columns {table.schema.names}, {tables[0][0]} {tables[0][1].schema.names}: make them equal")
    try:
        return pa.concat_tables([table for _, table in tables])
    except pa.ArrowException as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{tables[0][0]} and files beside it have columns of other types ({why}): make them equal") from None


def _splits(folder: Path) -> dict[str, Path]:
    """Return the folder of each split."""
    facts = folder / "dataset_dict.json"
    if not facts.is_file():
        return {"train": folder}
    try:
        names = json.loads(facts.read_bytes())["splits"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{facts} is damaged ({type(error).__name__}): save the data set again") from None
    if not isinstance(names, list) or not all(isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name) for name in names):
        raise DataError(f"{facts} must list the names of folders as splits: save the data set again")
    return {name: folder / name for name in names}


def _saved(folder: Path) -> list[Path]:
    """Return the files of one split."""
    files = sorted(folder.glob("data-*.arrow")) or sorted(folder.glob("dataset.arrow"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no data-*.arrow: give a folder that save_to_disk wrote")
    return files


def _table(files: list[Path], read: Any) -> tuple[Path, Any]:
    """Read files of one schema as a table; return the first of them too, for errors."""
    pa = extra("pyarrow", "pyarrow", "arrow")
    tables = []
    for file in files:
        try:
            table = read(file)
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            why = str(error).split("\n")[0]
            raise DataError(f"{file} cannot be read ({why}): it is cut off, damaged or of another form, copy it again") from None
        refuse_expansion(file, file.stat().st_size, table.nbytes)
        tables.append((file, table))
    return files[0], _joined(tables)


def _read_arrow(file: Path) -> Any:
    """Read an Arrow file, of the stream format or the file format."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        start = source.read(6)
        source.seek(0)
        return (pa.ipc.open_file if start == b"ARROW1" else pa.ipc.open_stream)(source).read_all()


def _read_parquet(file: Path) -> Any:
    """Read a Parquet file."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(file).read()
