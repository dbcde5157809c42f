"""Pictures of a population: what they show is read back from them, and counted again with NumPy."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.data.describe import data_page, data_text, save_parts
from fedjax_lite.data.picture import counts_of, evenly, in_text
from fedjax_lite.data.train_test import Source

SVG = "{http://www.w3.org/2000/svg}"


def population(clients=7, classes=4, seed=0, empty=True, **more):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0 if empty else 1, 30, clients)
    labels = [rng.integers(0, classes, n) for n in sizes]
    return fl.FederatedData.from_clients([{"y": y} for y in labels], allow_empty=True, **more), labels


def rectangles(svg):
    """told -> (x, y, width, fill), in a picture that is well formed."""
    root = ElementTree.fromstring(svg)
    _, _, across, down = map(float, root.get("viewBox").split())
    found = {}
    for each in root.iter(f"{SVG}rect"):
        x, y, wide, high = (float(each.get(name)) for name in ("x", "y", "width", "height"))
        assert 0 <= x and x + wide <= across and 0 <= y and y + high <= down and wide > 0
        assert each.find(f"{SVG}title").text not in found
        found[each.find(f"{SVG}title").text] = x, y, wide, each.get("fill")
    return found


def darkness(fill):
    return -int(fill[1:3], 16)


def test_a_cell_for_every_count_darker_for_more_and_a_bar_as_long_as_the_size():
    data, labels = population(names=[f"<{k}>" for k in range(7)])
    data = replace(data, words=("cat", "dog & co", "eel", "fox"))
    found = rectangles(fl.data.picture(data))
    pairs = [(k, label) for k, y in enumerate(labels) for label in np.unique(y).tolist()]
    counts = {(f"<{k}>", data.words[label]): int((labels[k] == label).sum()) for k, label in pairs}
    cells = {tuple(told.split(": ")): each for told, each in found.items() if " of " in told}
    bars = {told.split(": ")[0]: each for told, each in found.items() if told.endswith(" examples")}
    assert {who: told for who, told in cells}.keys() == {who for who, _ in counts}
    read = {(who, told.split(" of ")[1]): int(told.split(" of ")[0]) for who, told in cells}
    assert read == counts
    in_order = sorted(cells, key=lambda key: int(key[1].split(" of ")[0]))
    assert [darkness(cells[key][3]) for key in in_order] == sorted(darkness(each[3]) for each in cells.values())
    sizes = {f"<{k}>": len(y) for k, y in enumerate(labels) if len(y)}
    assert bars.keys() == sizes.keys()
    for who, (_, _, wide, _) in bars.items():
        assert wide == pytest.approx(max(1, 160 * sizes[who] / max(sizes.values())), abs=0.06)
    columns, rows = {}, {}
    for (who, told), (x, y, _, _) in cells.items():
        assert columns.setdefault(told.split(" of ")[1], x) == x and rows.setdefault(who, y) == y == bars[who][1]
    assert sorted(columns, key=columns.get) == list(data.words) and sorted(rows, key=rows.get) == list(sizes)


def test_of_many_some_are_drawn_and_labels_leave():
    data, labels = population(300, 130)
    svg = fl.data.picture(data)
    drawn = {told.split(": ")[0] for told in rectangles(svg)}
    assert drawn <= {str(k) for k in np.linspace(0, 299, 200).round().astype(int)} and len(drawn) > 180
    frequent = np.bincount(np.concatenate([labels[k] for k in evenly(300, 200)]), minlength=130)
    seen = {int(told.split(" of ")[1]) for told in rectangles(svg) if " of " in told}
    assert len(seen) == 100 and min(frequent[list(seen)]) >= max(np.delete(frequent, list(seen)))
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg) == [f"up to {max(map(len, labels))} examples"] or "up to" in svg
    assert len(svg) < 3_000_000


def test_without_labels_there_are_bars_alone_and_classes_can_be_given(tmp_path):
    numbers = fl.FederatedData.from_clients([{"x": np.ones(n), "y": np.full(n, 0.5)} for n in (1, 3)])
    assert {told: each[2] for told, each in rectangles(fl.data.picture(numbers)).items()} == {
        "0: 1 examples": pytest.approx(160 / 3, abs=0.06), "1: 3 examples": 160.0,
    }  # fmt: skip
    data, _ = population(3, 4, empty=False)
    assert not any(" of 3" in told for told in rectangles(fl.data.picture(data, classes=3)))
    assert fl.data.picture(fl.data.save(tmp_path / "s", data)) == fl.data.picture(data)
    assert counts_of(data, np.arange(3), classes=9).shape == (3, 9)


def test_the_text_has_the_tenths_and_all_clients_in_its_bars(tmp_path):
    data, labels = population(30, 4, seed=1, empty=False)
    text = in_text(data)
    assert text.startswith(data.summary()) and "classes: 20 of 30 clients" in text
    bars = re.findall(r"^ +([\d,]+) to ([\d,]+) +#+ ([\d,]+)$", text, re.MULTILINE)
    sizes = np.array([len(y) for y in labels])
    assert sum(int(count) for _, _, count in bars) == 30
    for low, high, count in bars:
        assert ((sizes >= int(low)) & (sizes <= int(high))).sum() == int(count)
    lines = text[text.index("classes:") :].splitlines()[1:]
    for row, line in zip(evenly(30, 20), lines, strict=True):
        shares = [10 * (labels[row] == label).sum() / len(labels[row]) for label in range(4)]
        expected = "".join(" " if share == 0 else "." if share < 1 else str(min(int(share), 9)) for share in shares)
        assert line.split()[:2] == [str(row), str(len(labels[row]))] and line[27:].ljust(4) == expected
    assert in_text(fl.data.save(tmp_path / "s", data)) == text
    same = in_text(fl.FederatedData.from_clients([{"x": np.ones(2)}] * 3))
    assert "2 to 2          ######################################## 3" in same and "classes" not in same


def test_a_summary_has_names_and_words():
    data = fl.data.table([{"x": [[1.0]], "y": ["cat"]}, {"x": [[2.0], [3.0]], "y": ["dog", "cat"]}]).train
    assert "labels: 2 classes (cat, dog) of 1 to 2 examples" in data.summary() and "names" not in data.summary()
    named = fl.FederatedData.from_clients([{"x": np.ones(1)}] * 4, names=list("abcd"))
    assert "  names: a, b, c, ...\n" in named.summary()


def source(**parts):
    data, _ = population(4, 3, empty=False, names=["a", "b", "<c>", "d"])
    test, _ = population(4, 3, seed=1, empty=False)
    return Source(data, test)._replace(**parts)


def test_all_parts_are_described():
    whole = source(public=population(1, 3, empty=False)[0], new=fl.data.TrainTest(population(2, 3, empty=False)[0], None))
    text, page = data_text(whole), data_page("a <b>", ["x is read by <y>"], whole)
    for title in ("training examples", "held-out examples of each client", "public examples", "clients that never take part"):
        assert f"{title}: " in text and f"<h2>{title.capitalize()}</h2>" in page
    assert text.count("classes: ") == 1 and page.count("<svg xmlns") == 4
    ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])
    assert "<h1>a &lt;b&gt;</h1><p>x is read by &lt;y&gt;</p>" in page and "src=" not in page
    central = data_text(source(test=population(1, 3, empty=False)[0]))
    assert "held-out examples, of no client: 1 clients" in central and "held-out" not in data_text(source(test=None))


def test_stores_of_the_parts_and_the_lines_that_read_them(tmp_path):
    whole = source()
    lines = save_parts(tmp_path / 'a "b"', whole).splitlines()
    assert lines[:2] == ["[data]", 'name = "store"'] and len(lines) == 4
    read = fl.data.store(tmp_path / 'a "b"', test=tmp_path / 'a "b"-test')
    assert (read.train.fingerprint(), read.test.fingerprint()) == (whole.train.fingerprint(), whole.test.fingerprint())
    assert read.train.names == ("a", "b", "<c>", "d")
    with pytest.raises(ValueError, match="-test exists"):
        save_parts(tmp_path / 'a "b"', whole)
    assert len(save_parts(tmp_path / "alone", source(test=None)).splitlines()) == 3
    with pytest.raises(ValueError, match="is a store already"):
        save_parts(tmp_path / "again", Source(read.train, None))
