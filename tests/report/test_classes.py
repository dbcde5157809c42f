"""The classes of a report: names, shares and the largest confusions."""

import re

from fedjax_lite.report.classes import classes_body


def entry(n, confusion):
    names = [f"c<{i}" for i in range(n)]
    return {"classes": names, "confusion": confusion} | {name: [0.5] * n for name in ("examples", "recall", "precision", "auc")}


def test_a_share_of_each_class_and_a_note_in_words():
    text = classes_body(entry(3, [[3, 1, 0], [0, 0, 0], [1, 0, 999]]))
    cells = re.findall(r'pointer-events="none">([^<]*)</text>', text)
    assert cells == ["75 %", "25 %", "", "", "", "", "&lt;1 %", "", "100 %"]
    assert "<title>1 of 4 of c&lt;0 taken for c&lt;1</title>" in text


def test_of_many_classes_the_largest_confusions():
    confusion = [[0] * 30 for _ in range(30)]
    confusion[4][5], confusion[4][4], confusion[9][1] = 2, 6, 3
    text = classes_body(entry(30, confusion))
    assert "<svg" not in text and "2 of 2:" in text
    cells = re.findall("<td>([^<]*)</td>", text.split("2 of 2:")[1])
    assert cells == ["c&lt;9", "c&lt;1", "3", "100 %", "c&lt;4", "c&lt;5", "2", "25 %"]


def test_without_a_matrix():
    found = entry(2, None)
    del found["confusion"]
    assert "Most frequent" not in classes_body(found) and "<svg" not in classes_body(found)
