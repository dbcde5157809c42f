"""The table [run]: its options are those of `fl.run`, and writers are named as other parts are."""

import json

import pytest
from shells import TEXT, shell_in
from tiny import edited

from fedjax_lite.configuration.build import build


@pytest.fixture
def config(tmp_path):
    """The text with lines more in [run]."""
    return lambda lines: edited(tmp_path, TEXT, ("[run]", f"[run]\n{lines}"))


def test_the_best_model_and_writers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboardX")
    shell = shell_in(tmp_path, monkeypatch, capsys)
    (tmp_path / "mine.py").write_text(
        "class Lines:\n"
        "    def __init__(self, file): self.file = file\n"
        "    def write(self, records, folder):\n"
        "        with open(folder / self.file, 'a') as file: file.writelines(f'{r[\"round\"]}\\n' for r in records)\n"
        "def lines(file: str): return Lines(file)\n"
    )
    lines = 'keep_best = "train_accuracy"\nwriters = ["tensorboard", { name = "mine.py:lines", file = "x" }]\n'
    (tmp_path / "tiny.toml").write_text(TEXT.replace("[run]\n", f"[run]\n{lines}"))
    status, out, err = shell("run tiny.toml --devices 1")
    assert (status, err) == (0, "") and "best.safetensors" in out
    folder = tmp_path / "runs" / "tiny"
    best = json.loads((folder / "summary.json").read_text())["best"]
    assert f"  best train_accuracy {best['value']:.6g}, after round {best['round']}\n" in out
    assert (folder / "x").read_text() == "1\n2\n3\n4\n" and len(list((folder / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(
    "lines, message",
    [
        ('keep_best = "train_acuracy"', "run.keep_best: keep_best: no metric 'train_acuracy'; there are train_accuracy, train_loss"),
        ("keep_best = 1", "run.keep_best: keep_best must be the name of a metric"),
        ("writers = 3", "run.writers: must be a table with a name"),
        ('writers = ["tensorbord"]', "unknown writer 'tensorbord'; did you mean 'tensorboard'?"),
    ],
)
def test_refusals(config, lines, message):
    with pytest.raises(ValueError) as refused:
        build(config(lines))
    assert message in str(refused.value)
