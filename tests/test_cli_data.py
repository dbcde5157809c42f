"""`fedjax-lite data`, in this process: what it prints and writes, and that a run can follow in the same folder."""

import json

import pytest
from shells import TEXT, shell_in

import fedjax_lite as fl
from fedjax_lite.configuration.config import load
from fedjax_lite.configuration.data import load_data
from fedjax_lite.runner.files import check_room


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return shell_in(tmp_path, monkeypatch, capsys)


def test_data_from_a_path_to_a_page_and_stores(shell, tmp_path):
    users = {name: {"x": [[0.5, i] for i in range(n)], "y": ["cat"] * n} for name, n in (("ann", 2), ("bob", 4))}
    shard = {"users": list(users), "num_samples": [2, 4], "user_data": users}
    users["bob"]["y"] = ["cat", "dog", "dog", "dog"]
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / "a.json").write_text(json.dumps(shard))
    start, end = TEXT.index("[data]"), TEXT.index("[model]")
    (tmp_path / "found.toml").write_text(f'{TEXT[:start]}[data]\nname = "load"\npath = "leaf"\ntest = 0\n{TEXT[end:]}')

    status, out, err = shell("data found.toml --save stores/leaf --set data.invert=true")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "leaf is read by leaf: a.json is a shard of LEAF" and lines[-1] == "written to runs/tiny/data.html"
    assert "training examples: 2 clients" in lines[1] and "(cat, dog)" in out
    read = fl.data.store(tmp_path / "stores" / "leaf").train
    assert read.fingerprint() == load_data(load("found.toml", ["data.invert=true"]), 3).train.fingerprint()
    (tmp_path / "again.toml").write_text(TEXT[:start] + out[out.index("[data]") : out.index("written to runs")] + TEXT[end:])
    assert load_data(load("again.toml"), 0).train.fingerprint() == read.fingerprint()

    page = (tmp_path / "runs" / "tiny" / "data.html").read_text()
    assert "leaf is read by leaf: a.json" in page and "<svg" in page and ": 2 examples" in page and "cat</text>" in page
    assert check_room("runs/tiny")  # a run can follow
    (tmp_path / "runs" / "tiny" / "other").write_text("")
    with pytest.raises(ValueError, match="is not empty and holds no run or study"):
        check_room("runs/tiny")
    assert shell("data found.toml --save stores/leaf")[0] == 2
    assert shell("data found.toml --out page/of.html")[1].endswith("written to page/of.html\n") and (tmp_path / "page" / "of.html").exists()


def test_refusals(shell):
    status, out, err = shell("data tiny.toml --set data.clients=3")
    assert status == 2 and err.startswith("error: --set data.clients=3: data.clients: ")
    status, _, err = shell("data none.toml")
    assert status == 2 and "cannot read none.toml" in err
