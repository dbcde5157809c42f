"""The bar of a run."""

import io

import pytest
from rich.console import Console

from fedjax_lite.runner import progress
from fedjax_lite.runner.progress import Progress, draws


def test_the_bar_shows_rounds_a_second_time_left_and_the_evaluation():
    def shown(terminal):
        stream = io.StringIO()
        with Progress(10, 2, True, Console(file=stream, force_terminal=terminal, width=150)) as bar:
            for done in (4, 6, 8):
                bar.update({"round": done, "loss": 1.5, "test_accuracy": 0.25, "test_clients": {}})
            bar.note("stopping")
        return stream.getvalue()

    text = shown(True)
    assert "8/10" in text and "rounds/s" in text and "left" in text and "stopping" in text
    assert shown(False).strip() == ""


def test_a_notebook_gets_a_bar_if_it_can_draw_one(monkeypatch):
    notebook, file = Console(file=io.StringIO(), force_jupyter=True), Console(file=io.StringIO(), force_jupyter=False)
    for installed in (True, False):
        monkeypatch.setattr(progress, "find_spec", lambda name, installed=installed: installed or None)
        assert draws(notebook) is installed and not draws(file)


ROUNDS = ({"test_accuracy": 0.25, "loss": 1.5}, "test_accuracy 0.2500"), ({"test_bits": 1.767e7}, "test_bits 2.21 MB"), ({"loss": None}, "")


@pytest.mark.parametrize(("record", "said"), ROUNDS)
def test_what_is_said_of_a_round(record, said):
    bar = Progress(10, 0, True, Console(file=io.StringIO()))
    bar.update({"round": 4} | record)
    assert bar._bar.tasks[0].description == said
