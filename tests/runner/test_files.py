"""Where a run or a study may be written, and that nothing that is there is lost."""

import os

import jax.numpy as jnp
import numpy as np
import pytest
from segments import run, summary

from fedjax_lite.leaves import paths_of
from fedjax_lite.runner import files
from fedjax_lite.runner.records import read_records


def test_a_run_above_where_one_stands_is_not_moved(tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "below").mkdir(parents=True)
    for out, directory in ((".", here), ("..", here / "below"), (here, here / "below")):
        monkeypatch.chdir(directory)
        if not (here / "summary.json").exists():
            (here / "below").rmdir()
            run(rounds=3, out=out)
            (here / "below").mkdir()
        with pytest.raises(
            ValueError, match="is the directory you are in, or above it, and holds a run, which would have to be moved aside"
        ):
            run(rounds=6, out=out)
    monkeypatch.chdir(here)
    assert len(run(rounds=6, out=".", resume=True).history) == summary(here)["rounds"] == 6
    assert os.listdir(tmp_path) == ["here"]


def test_a_link_leads_to_where_it_led(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large" / "run")
    for rounds in (3, 6):
        run(rounds=rounds, out=tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["large", "out"] and sorted(os.listdir(tmp_path / "large")) == ["run", "run.1"]
    assert (summary(tmp_path / "out")["rounds"], summary(tmp_path / "large" / "run.1")["rounds"]) == (6, 3)


def test_a_directory_left_meanwhile_is_still_written_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    loss = lambda *args: (os.chdir(tmp_path / "elsewhere"), jnp.zeros(len(args[1]["y"])))[1]  # noqa: E731
    run(rounds=3, out="run", loss_fn=loss)
    assert summary(tmp_path / "run")["status"] == "finished" and not os.listdir(tmp_path / "elsewhere")


def test_a_study_is_moved_aside_for_a_run(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.json").write_text("{}")
    run(rounds=3, out=tmp_path / "run")
    assert os.listdir(tmp_path / "run.1") == ["study.json"] and "run held a study: moved to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "out='' has characters that no folder's name should have, or none"),
        ("a\0b", r"out='a\\x00b' has characters"),
        ("a\nb", r"out='a\\nb' has characters"),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b", r"out='a\\u202eb' has characters"),
        ("caf\udce9", r"out='caf\\udce9' is not UTF-8: name another folder, or set a locale"),
        ("/", "out=/ is the root of the file system: name a folder in it"),
        ("loop/run", r"out=loop/run (cannot be found|cannot be made)"),
        ("/proc/run", "out=/proc/run cannot be made or written: No such file or directory; name another folder"),
    ],
)
def test_what_is_no_place_is_refused(out, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=message):
        run(rounds=3, out=out)
    assert os.listdir(tmp_path) == ["loop"]
    with pytest.raises(ValueError, match="out must be the path of a folder, got 5"):
        files.check_room(5)


def test_two_leaves_of_one_name_are_refused_before_anything_is_written(tmp_path):
    params = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}}
    assert paths_of({"a": {"b/c": 0}, "d": [1, 2]}) == ["a/b/c", "d/0", "d/1"]
    with pytest.raises(ValueError, match="params: two leaves are called 'a/b': rename a key that has a slash"):
        run(rounds=3, params=params, out=tmp_path / "run")
    assert not os.listdir(tmp_path)


def test_a_file_is_written_under_a_name_that_nobody_foresees(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "summary.json.partial").symlink_to(tmp_path / "mine")
    files.write(tmp_path / "summary.json", "new")
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "summary.json").read_text() == "new"
    with pytest.raises(RuntimeError), files.replacing(tmp_path / "summary.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "summary.json").read_text() == "new" and len(os.listdir(tmp_path)) == 3


WHOLE = b'{"round": 1, "loss": 0.5}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"5\n",
        b'"x"\n',
        b"[]\n",
        b"[" * 10**5 + b"\n",
        b'{"round": 2, "loss": "x"}\n',
        b'{"round": 2, "loss": [1]}\n',
        b'{"round": 2, "loss": NaN}\n',
        b'{"round": 2, "test_clients": [1]}\n',
        b'{"round": 2, "test_clients": {"loss": 1}}\n',
        b'{"round": 2, "loss": "\xff"}\n',
        b'{"round": 3}\n',
        b'{"round": 2}',
    ],
)
def test_records_end_where_a_line_is_damaged(line, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(WHOLE + line + b'{"round": 2, "loss": null}\n')
    assert read_records(tmp_path) == [{"round": 1, "loss": 0.5}]
