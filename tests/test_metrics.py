"""Whether a metric is better when lower, wherever that decides something: when a run stops, who ranks first, who is worst."""

import csv
import re

import numpy as np
import pytest

import fedjax_lite as fl
from fedjax_lite.base import Mean
from fedjax_lite.metrics import OF_ROUND, in_order, inside_guarantee, lower_is_better, scale_of, shown
from fedjax_lite.report import report
from fedjax_lite.runner.arguments import check_options
from fedjax_lite.study.grid import Axis
from fedjax_lite.study.printed import ranking

LOWER = "loss test_loss mse test_mae perplexity nll update_norm brier_score ECE rmse word-error-rate uplink_bits cross_entropy"
HIGHER = "accuracy abnormal_recall normalised_score lossless_rate terror norman maestro message precise test_attack_success"
KIN = "test_perplexity perplexities nll bits_per_character bpb negative_log_likelihood valPerplexity testPPL NLLLoss loss2 personal_loss"
LOWER += f" {KIN} false_positive_rate generalisation_gap cost"
HIGHER += " log_likelihood true_negative_rate negative_predictive_value recall5 top1 costume falsehood unheard_of personal_accuracy"
NAMES = [*((name, True) for name in LOWER.split()), *((name, False) for name in HIGHER.split())]


@pytest.mark.parametrize("metric, lower", NAMES)
def test_a_name_is_read_by_its_words(metric, lower):
    assert lower_is_better(metric) is lower
    assert lower_is_better(metric, "min") and not lower_is_better(metric, "max")

    # A run whose values go one way stops only if that is the wrong way.
    falling = [{metric: value} for value in (0.3, 0.2, 0.1)]
    for best, wrong in ((None, not lower), ("max", True), ("min", False)):
        assert fl.Convergence(metric, 0.0, 2, best).reached(falling) is wrong
        assert fl.Convergence(metric, 0.0, 2, best).reached(falling[::-1]) is not wrong

    # The first of three cells is the best, and the last of three clients the worst, if lower is better.
    axes = (Axis(("a",), (("x",), ("y",), ("z",))),)
    study = fl.Study(axes, (0,), {metric: np.array([[0.1], [0.2], [0.3]])}, {}, 1)
    assert [row["rank"] for row in study.table(metric)] == ([1, 2, 3] if lower else [3, 2, 1])
    sums = {metric: Mean(np.array([0.1, 0.2, 0.3]), np.ones(3))}
    assert fl.summarize(sums)["test_clients"][metric]["worst_decile"] == (0.3 if lower else 0.1)
    for best, worst, ranks in (("min", 0.3, [1, 2, 3]), ("max", 0.1, [3, 2, 1])):
        assert fl.summarize(sums, best={metric: best})["test_clients"][metric]["worst_decile"] == worst
        assert [row["rank"] for row in study.table(metric, best=best)] == ranks


WAYS = [("test_perplexity", None, True), ("unheard_of", None, False), ("unheard_of", "min", True), ("test_perplexity", "max", False)]


@pytest.mark.parametrize("metric, best, lower", WAYS)
def test_a_study_ranks_shades_and_draws_by_it(metric, best, lower, tmp_path):
    curve = np.array([[[1e4, 1.0]], [[1e4, 2.0]], [[1e4, 3.0]]])  # [cells, seeds, rounds]
    study = fl.Study((Axis(("a",), (("x",), ("y",), ("z",))),), (0,), {metric: curve}, {metric: (1, 2)}, 1)
    folder = study.save(tmp_path, {metric: 2.0}, best={metric: best} if best else None)
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == list("123" if lower else "321")
    assert [row["rounds_to_target"] for row in rows] == (["2.0", "2.0", ""] if lower else ["1.0"] * 3)
    page = (folder / "report.html").read_text()
    assert [fill == "#08306b" for fill in re.findall('<rect.*?fill="(.*?)">', page)] == [lower, False, not lower]
    assert ("(logarithmic)" in page) is lower
    if best is None:
        told = [line.split()[:2] for line in ranking(study, {metric: 2.0}).splitlines()[2:]]
        assert told == ([["1", "x"], ["2", "y"], ["3", "z"]] if lower else [["1", "z"], ["2", "y"], ["3", "x"]])
        rounds = [{"round": 1, metric: 1e4}, {"round": 2, metric: 1.0}]
        run = report("run", {"status": "finished", "rounds": 2, "seconds": 1.0, "final": rounds[-1]}, rounds)
        assert ("(logarithmic)" in run) is lower


def test_bits_of_something_are_no_size(tmp_path):
    """Bits of a message are told as bytes; bits per character are another perplexity."""
    assert (shown("uplink_bits", 8e6), shown("sent_bytes", 1e6)) == ("1 MB", "1 MB") and scale_of("uplink_bits") == 8
    assert (shown("bits_per_character", 1.25), shown("test_bits_per_byte", 1.25)) == ("1.25", "1.25") and scale_of("bits_per_byte") == 1
    study = fl.Study((Axis(("a",), (("x",), ("y",))),), (0,), {"sent_bytes": np.array([[2.21e6], [1e6]])}, {}, 1)
    page = (study.save(tmp_path) / "report.html").read_text()
    assert ">2.21 MB</text>" in page and "e+0" not in page


def test_a_new_metric_is_outside_the_guarantee_and_before_the_costs():
    inside = ["round", "update_norm", "clip_norm", "ensemble_accuracy", "student_accuracy"]
    others = ["personal_loss", "unheard_of", "bits_per_character", "loss", "clipped", "teacher_accuracy", "train_loss", "my_update_norm"]
    tested = ["test_loss", "test_unheard_of", "test_clients"]
    for central in (False, True):
        covered = [name for name in (*inside, *others, *tested) if inside_guarantee(name, central)]
        assert covered == [*inside, *(tested if central else [])]
    assert in_order(["epsilon_rdp", "round_seconds", "sent_bytes", *sorted(OF_ROUND), *others]) == [
        "train_loss",
        *(name for name in others if name != "train_loss"),
        *("epsilon_rdp", "round_seconds", "sent_bytes", *sorted(OF_ROUND)),
    ]


def test_the_files_of_a_study_say_what_is_best(tmp_path):
    study = fl.Study((Axis(("a",), (("x",), ("y",))),), (0,), {"terror": np.array([[0.1], [0.2]])}, {}, 1)
    for best, first, words in ((None, "y", "higher is better"), ({"terror": "min"}, "x", "lower is better")):
        folder = study.save(tmp_path / str(best), best=best)
        header, *rows = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
        assert [row[header.index("a")] for row in rows if row[header.index("rank")] == "1"] == [first]
        assert words in (folder / "report.html").read_text()


def test_what_is_refused(tmp_path):
    study = fl.Study((), (0,), {"x": np.zeros(1)}, {}, 1)
    for refused in (
        lambda: lower_is_better("x", "low"),
        lambda: study.table("x", best="low"),
        lambda: study.save(tmp_path / "study", best={"x": "low"}),
        lambda: fl.summarize({"x": Mean(np.ones(2), np.ones(2))}, best={"x": "low"}),
    ):
        with pytest.raises(ValueError, match='x: best must be "max", "min" or None, got \'low\''):
            refused()
    with pytest.raises(ValueError, match='converge: best must be "min" or "max", got \'low\''):
        check_options(1, converge=fl.Convergence("x", best="low"))
    with pytest.raises(ValueError, match="no metric 'y'; there are x"):
        study.save(tmp_path / "study", best={"y": "min"})
    assert not (tmp_path / "study").exists()
