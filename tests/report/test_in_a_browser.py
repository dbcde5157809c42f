"""Pages in headless Chromium: no error in the console, every section there, and what the script does when it is used."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from fedjax_lite.report import report, study_report
from fedjax_lite.report.document import document
from fedjax_lite.report.table import html_table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium, chromium-browser or google-chrome on the PATH"),
]

# Acts on the page as a reader does, and leaves in the page what came of it.
READER = """<script>addEventListener("load", () => setTimeout(() => {
  const said = {}, styleOf = element => getComputedStyle(element), root = document.documentElement;
  ACTS
  document.body.appendChild(document.createElement("pre")).append("SAID" + JSON.stringify(said) + "DIAS");
}, 50))</script>"""


def opened(tmp_path, html, acts="", *options):
    """The page's HTML after its script has run, and what the reader said of it."""
    path = tmp_path / "page.html"
    path.write_text(html.replace("</body>", READER.replace("ACTS", acts) + "</body>"))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=3000",
    ]
    command += ["--enable-logging=stderr", "--v=0", "--window-size=1040,2000", *options, "--dump-dom", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    (told,) = re.findall("SAID(.*?)DIAS</pre>", ran.stdout)
    return ran.stdout, json.loads(told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def run():
    """A run with all kinds of sections."""
    spread = {"mean": 0.5, "std": 0.1, "worst_decile": 0.0, "deciles": [k / 10 for k in range(1, 10)]}
    rows = [
        {"round": t, "loss": 2.0 / t, "uplink_bits": 8e6, "downlink_bits": 8e6, "virtual_hours": t / 7, "update_norm": 10.0**-t}
        for t in range(1, 13)
    ]
    for record in rows[2::3]:
        record |= {"test_accuracy": record["round"] / 20, "test_clients": {"accuracy": spread}}
    rates = {name: [0.5, 0.25] for name in ("recall", "precision", "auc")}
    classes = {"classes": ["cat", "<dog>"], "examples": [3, 5], "confusion": [[2, 1], [4, 1]]} | rates
    summary = {
        "status": "finished", "rounds": 12, "seconds": 61.0, "final": rows[-1], "classification": classes, "staleness": [3, 2, 1],
        "traffic": {"client_parameters": 3, "global_parameters": 3, "uplink_bytes": 1e6}, "words": ["cat", "<dog>"],
        "new_clients": {"test_new_accuracy": 0.25}, "baselines": {"centralised": {"test_accuracy": 0.9}},
        "privacy": {"rounds": [6, 12], "epsilon_rdp": [1.0, 2.0], "epsilon_pld": [0.9, 1.8], "delta": 1e-5, "outside": ["loss"]},
        "time": {"seconds": {"compile": 2.0, "rounds": 1.0}, "rounds": 12, "lanes": {}}, "data": {"clients": 6},
    }  # fmt: skip
    table = {
        "id": range(6),
        "examples": [3, 4, 5, 6, 7, 8],
        "rounds": [0, 1, 2, 2, 2, 3],
        "label_0": [1] * 6,
        "label_1": [2, 3, 4, 5, 6, 7],
    }
    return report("a <run> & so on", summary, rows, "x = '<y>'", table | {"test_accuracy": [0.1, 0.5, 0.6, 0.7, 0.8, 1.0]})


@pytest.fixture(scope="module")
def study():
    axes = {"rate": ("0.1", "0.3", "1"), "rule": ("mean", "<median>")}
    curve = np.random.default_rng(0).random((3, 2, 2, 4))
    values = curve[..., -1].mean(-1)
    order = (-values).ravel().argsort().argsort()
    table = [
        {"rate": axes["rate"][i], "rule": axes["rule"][j], "mean": values[i, j], "low": values[i, j] - 0.1, "high": values[i, j] + 0.1}
        | {"seeds": 2, "diverged": 0, "rank": int(order[2 * i + j]) + 1}
        for i in range(3)
        for j in range(2)
    ]
    table[3] |= {"mean": None, "low": None, "high": None}
    return study_report(
        "a study", axes, {"accuracy": curve}, {"accuracy": (5, 10, 15, 20)}, {"accuracy": table}, "x = 1", None, {"date": "now"}
    )


def test_every_section_of_a_run_is_there_and_the_console_is_empty(run, tmp_path):
    acts = """said.headings = [...document.querySelectorAll("h2")].map(each => each.textContent);
      said.links = [...document.querySelectorAll("nav a")].map(each => document.querySelector(`${each.hash} h2`)?.textContent);
      said.empty = [...document.querySelectorAll("section, details[id]")]
        .filter(each => each.textContent.length < each.querySelector("h2").textContent.length + 4).length;
      const figures = [...document.querySelectorAll("figure > svg, figure .wide > svg")];
      said.narrow = figures.filter(each => each.getBoundingClientRect().width < 40).length;
      said.wide = root.scrollWidth - root.clientWidth;"""
    _, said = opened(tmp_path, run, acts)
    assert said["headings"] == said["links"] == [
        "Evaluation after round 12", "Curves", "What rounds report", "Classes after round 12", "Clients that never took part", "Clients",
        "Partition", "Participation", "Baselines after as many rounds", "Models and traffic", "Staleness", "Privacy", "Time",
        "Training in round 12", "Configuration", "Made with",
    ]  # fmt: skip
    assert said["empty"] == 0 and said["narrow"] == 0 and said["wide"] == 0


@pytest.mark.parametrize("system", ["light", "dark"])
def test_colors_follow_the_system_and_the_button(run, tmp_path, system):
    acts = """const button = document.querySelector("button.theme"), shaded = document.querySelector("svg rect[fill]");
      const curve = document.querySelector("svg > path[fill=none]"), letters = document.querySelector("svg text");
      said.seen = [0, 1, 2].map(() => {
        const look = [root.dataset.theme, styleOf(document.body).backgroundColor, styleOf(curve).stroke, styleOf(letters).fill];
        button.click();
        return look;
      });
      said.again = root.dataset.theme;"""
    options = ["--blink-settings=preferredColorScheme=0"] if system == "dark" else ["--blink-settings=preferredColorScheme=1"]
    _, said = opened(tmp_path, run, acts, *options)
    light, dark = (
        ["rgb(255, 255, 255)", "rgb(40, 80, 179)", "rgb(68, 68, 68)"],
        ["rgb(21, 24, 29)", "rgb(103, 192, 255)", "rgb(201, 206, 214)"],
    )
    assert said["seen"] == [["system", *(dark if system == "dark" else light)], ["light", *light], ["dark", *dark]]
    assert said["again"] == "system"


def test_a_pointer_and_the_keys_tell_values(run, tmp_path):
    acts = """const figure = [...document.querySelectorAll("figure")].find(each => each.textContent.startsWith("accuracy"));
      const svg = figure.querySelector("svg[data-hover]"), box = svg.getBoundingClientRect();
      const lines = () => [...figure.querySelectorAll(".readout div")].map(each => each.textContent);
      const key = name => svg.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
      svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + (52 + 384 * 0.34) / 460 * box.width, clientY: box.top }));
      said.pointed = lines();
      said.ring = [...svg.querySelectorAll("g circle")].map(each => [each.getAttribute("cx"), each.getAttribute("stroke")]);
      key("ArrowRight");
      said.right = lines()[0];
      key("Escape");
      said.gone = lines();
      key("ArrowLeft");
      said.last = lines();"""
    _, said = opened(tmp_path, run, acts)
    assert said["pointed"] == ["round 6", "held-out examples: 0.3", "10 % to 90 % of clients: 0.1 to 0.9"]
    ((cx, color),) = said["ring"]
    assert float(cx) == pytest.approx(52 + 384 * 3 / 9) and color == "#2850b3"
    assert said["right"] == "round 9" and said["gone"] == [] and said["last"][:2] == ["round 12", "held-out examples: 0.6"]


def test_bytes_are_told_in_their_unit_and_a_missing_point_by_its_neighbour(run, tmp_path):
    acts = """const at = (title, share) => {
        const figure = [...document.querySelectorAll("figure")].find(each => each.textContent.startsWith(title));
        const svg = figure.querySelector("svg[data-hover]"), box = svg.getBoundingClientRect();
        svg.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + (52 + 384 * share) / 460 * box.width, clientY: box.top }));
        return [...figure.querySelectorAll(".readout div")].map(each => each.textContent);
      };
      said.bytes = at("bytes sent so far", 1);
      said.privacy = at("epsilon", 0);"""
    _, said = opened(tmp_path, run, acts)
    assert said["bytes"] == ["round 12", "by clients: 12 MB", "to clients: 12 MB"]
    assert said["privacy"] == ["round 6", "by RDP: 1", "by PLD: 0.9"]


def test_whatever_a_column_holds_it_sorts(tmp_path):
    bytes, numbers = ["900 kB", "2.21 MB", "12 B", "-", "1 GB"], ["0.94 (0.9 to 1)", "0.887 \N{PLUS-MINUS SIGN}0.1", "1e-05", "", "-3"]
    cells = bytes, numbers, ["b", "a10", "a9", "c", "-"]
    html = document("t", html_table(list(zip(*cells, strict=True)), ["bytes", "interval", "name"], sortable=True))
    acts = """const table = document.querySelector("table"), heads = [...table.querySelectorAll("th button")];
      const column = k => [...table.querySelectorAll("tr")].slice(1).map(row => row.cells[k].textContent);
      said.sorted = heads.map((head, k) => (head.click(), column(k)));"""
    _, said = opened(tmp_path, html, acts)
    assert said["sorted"] == [
        ["12 B", "900 kB", "2.21 MB", "1 GB", "-"],
        ["-3", "1e-05", "0.887 \N{PLUS-MINUS SIGN}0.1", "0.94 (0.9 to 1)", ""],
        ["a9", "a10", "b", "c", "-"],
    ]


def test_links_save_numbers_and_the_index_unfolds(run, tmp_path):
    acts = """const link = document.querySelector("figure a.csv"), before = link.href;
      link.addEventListener("click", event => { said.saved = link.href; event.preventDefault(); });
      link.click();
      said.before = before;
      const folded = document.getElementById("configuration");
      said.open = [folded.open];
      location.hash = "#configuration";
      dispatchEvent(new HashChangeEvent("hashchange"));
      said.open.push(folded.open);"""
    _, said = opened(tmp_path, run, acts)
    assert said["before"].startswith("data:text/csv") and said["saved"].startswith("blob:") and said["open"] == [False, True]


def test_a_studys_cells_sort_by_any_column(study, tmp_path):
    acts = """said.headings = [...document.querySelectorAll("h2")].map(each => each.textContent);
      const table = document.querySelector("table.sortable"), heads = [...table.querySelectorAll("th")];
      const column = k => [...table.querySelectorAll("tr")].slice(1).map(row => row.cells[k].textContent);
      const click = name => {
        const k = heads.findIndex(each => each.textContent === name);
        heads[k].firstChild.click();
        return column(k);
      };
      said.rates = click("rate");
      said.up = click("95 % interval");
      said.sorts = heads.map(each => each.getAttribute("aria-sort"));
      said.down = click("95 % interval");
      said.rules = click("rule");"""
    _, said = opened(tmp_path, study, acts)
    assert said["headings"] == ["accuracy", "Configuration", "Made with"]
    assert said["rates"] == ["0.1", "0.1", "0.3", "0.3", "1", "1"]
    assert said["up"][-1] == "-" == said["down"][-1] and said["up"][:-1] == said["down"][:-1][::-1]
    lows = [float(text.split(" to ")[0]) for text in said["up"][:-1]]
    assert lows == sorted(lows) and said["sorts"] == ["none", "none", "none", "none", "ascending", "none"]
    assert said["rules"] == ["<median>"] * 3 + ["mean"] * 3
