"""`--json` of every command, in this process: one object and nothing else, with the exit status; and the completion of shells."""

import argparse
import json
import os
import shutil
import subprocess

import pytest
from shells import TEXT, shell_in

from fedjax_lite import cli
from fedjax_lite.cli.parser import parser_of


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return shell_in(tmp_path, monkeypatch, capsys)


def test_every_command_prints_one_object(shell, tmp_path):
    (tmp_path / "grid.toml").write_text(TEXT + "[grid]\nseeds = 2\n")

    def values(line, status=0):
        ended, out, _ = shell(f"{line} --json")
        found = json.loads(out)  # which refuses a second one
        assert ended == status == found["exit_status"]
        return found

    found = values("run tiny.toml --devices 1")
    assert found["status"] == "finished" and found["rounds"] == 4 and found["folder"] == "runs/tiny"
    assert 0 <= found["final"]["train_accuracy"] <= 1 and "summary.json" in found["files"]
    assert json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())["final"].items() >= found["final"].items()
    found = values("plan tiny.toml --devices 1")
    assert found["rounds"] == 4 and found["parameters"] > 0 and found["round_seconds"] > 0 and found["needs"]
    found = values("data tiny.toml")
    assert found["parts"]["training examples"]["examples"] > 0 and found["page"] == "runs/tiny/data.html" and found["store"] is None
    assert values("list aggregator")["aggregator"]["trimmed_mean"]["keys"].startswith("keys: num_byzantine")
    assert {"model", "attack", "uplink"} <= values("list").keys()
    found = values("study grid.toml --devices 1 --out grid")
    assert found["seeds"] == [3, 4] and [row["rank"] for row in found["tables"]["train_accuracy"]] == [1]
    assert "fedjax-lite" in values("completion bash")["script"]
    found = values("run absent.toml", status=2)
    assert found["error"] == "cannot read absent.toml: No such file or directory"
    found = values("run tiny.toml --out bad --devices 1 --set client.optimizer.learning_rate=1e38", status=1)
    assert "is no longer finite" in found["error"]


@pytest.mark.parametrize("line", ["run", "frob", "", "run tiny.toml --budget soon", "plot runs/a --kind pie --out a.pdf"])
def test_arguments_that_no_command_takes_are_an_object_too(shell, capsys, line):
    for wanted in ("--json", ""):
        with pytest.raises(SystemExit, match="2"):
            shell(f"{line} {wanted}")
        out, error = capsys.readouterr()
        assert "error: " in error and error.startswith("usage: ")
        if wanted:
            found = json.loads(out)
            assert found["exit_status"] == 2 and found["error"] in error
        else:
            assert out == ""


@pytest.mark.parametrize(
    ("output", "line", "status"),
    [
        ("pipe", "list aggregator", 0),
        ("pipe", "check none --json", 2),
        ("/dev/full", "list aggregator", 1),
        ("/dev/full", "check none --json", 2),
    ],
)
def test_an_output_that_takes_nothing_is_told_once(tmp_path, monkeypatch, capsys, output, line, status):
    """Of `| head`, and of a full disk; where it was told at exit only, the status was 120."""
    if output == "pipe":
        reader, end = os.pipe()
        os.close(reader)
    else:
        end = os.open(output, os.O_WRONLY)
    monkeypatch.chdir(tmp_path)
    with open(end, "w") as stdout:  # which flushes what is left of the text at its end
        monkeypatch.setattr("sys.stdout", stdout)
        assert cli.main(line.split()) == status
    assert ("error: [Errno 28] No space left on device" in capsys.readouterr().err) == (status == 1)


def test_every_command_has_examples_and_json():
    (commands,) = (action for action in parser_of()._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        assert f"\n  fedjax-lite {name}" in parser.epilog or f"$(fedjax-lite {name}" in parser.epilog, name
        assert "--json" in parser.format_help() and parser.get_default("run")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_shell_reads_its_completion(shell, tmp_path, name):
    status, out, _ = shell(f"completion {name}")
    assert status == 0 and all(word in out for word in ("study", "resume", "plan"))
    if not shutil.which(name):
        pytest.skip(f"there is no {name} here to read it")
    (tmp_path / "script").write_text(out)
    assert subprocess.run([name, "-n", "script"], cwd=tmp_path, capture_output=True, text=True).stderr == ""


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_bash_completes_a_command(shell, tmp_path):
    (tmp_path / "script").write_text(shell("completion bash")[1])
    words = "COMP_WORDS=(fedjax-lite stu); COMP_CWORD=1"
    ask = f'source ./script; {words}; _shtab_fedjax_lite fedjax-lite stu fedjax-lite; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True).stdout.split() == ["study"]
