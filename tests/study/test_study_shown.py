"""How a study shows itself: as text, and in a notebook."""

import html

import jax.numpy as jnp

import fedjax_lite as fl
from fedjax_lite.study.printed import ranking


def experiment(key, rate, name):
    return {"test_accuracy": jnp.float32(rate * len(name)), "loss": jnp.arange(3.0) / rate}


def test_a_study_is_shown_as_its_ranking_and_as_its_page(tmp_path):
    found = fl.study(experiment, {"rate": [0.1, 0.2], "name": ["a", "bc"]}, seeds=2)
    assert str(found) == ranking(found, {})
    assert [line.split()[:4] for line in str(found).splitlines()[2:]] == [
        ["1", "0.2", "bc", "0.4000"],
        ["2", "0.1", "bc", "0.2000"],
        ["2", "0.2", "a", "0.2000"],
        ["4", "0.1", "a", "0.1000"],
    ]
    framed = html.unescape(found._repr_html_())
    assert framed.startswith("<iframe") and (found.save(tmp_path) / "report.html").read_text() in framed
