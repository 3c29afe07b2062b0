"""bench/sim.py --plot: recorded experiments drawn on one page, and the picture of the defaults in docs/."""
import importlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORDED = sorted((ROOT / "bench/results").glob("sim-*.json"))[-1]
SVG = "{http://www.w3.org/2000/svg}"


def plot(build, *names, recorded=RECORDED):
    command = [sys.executable, ROOT / "bench/sim.py", "--build", build, "--plot", recorded, *names]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plots")
    done = plot(folder)
    assert done.returncode == 0, done.stderr
    return (folder / "bench-sim.html").read_text()


@pytest.fixture(scope="module")
def sim():
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        return importlib.import_module("sim")
    finally:
        sys.path.remove(str(ROOT / "bench"))


def test_the_page_is_well_formed_and_names_every_recorded_experiment(page):
    root, recorded = ElementTree.fromstring(page), json.loads(RECORDED.read_text())
    sections = {heading.get("id"): heading.text for heading in root.iter("h2")}
    assert sections == {name: result["title"] for name, result in recorded.items()}
    assert {link.get("href") for link in root.iter("a")} == {f"#{name}" for name in recorded}


def test_the_page_needs_nothing_from_outside_and_runs_no_script(page):
    assert not re.search(r"https?:|url\(|@import|\bsrc=|<script|<link", page)


def test_every_figure_of_the_page_says_in_words_what_it_shows(page):
    root = ElementTree.fromstring(page)
    figures = list(root.iter("svg"))
    assert figures and all(f.get("role") == "img" and f.find("title").text and f.find("desc").text for f in figures)


def test_bars_are_as_long_as_their_values_and_the_first_column_is_drawn_larger(sim):
    columns = [("x", [2.0, 1.0], 1), ("y", [0.0, 0.0], 0)]
    section = sim.sim_page.section("name", "title", "paper", ["a", "b"], columns, [])
    about, other = ElementTree.fromstring(f"<p>{section}</p>").iter("figure")
    assert about.get("class") == "about" and other.get("class") == ""
    first, second = (float(rect.get("width")) for rect in about.iter("rect"))
    assert first == pytest.approx(2 * second, abs=0.1) and "1.0 (0.50x)" in [t.text for t in about.iter("text")]
    assert [rect.get("width") for rect in other.iter("rect")] == ["0.0", "0.0"]


def test_one_experiment_can_be_drawn_alone_and_one_that_is_not_there_is_named(tmp_path):
    assert plot(tmp_path, "weka").returncode == 0
    assert [h.get("id") for h in ElementTree.parse(tmp_path / "bench-sim.html").iter("h2")] == ["weka"]
    done = plot(tmp_path, "perpetuum")
    assert done.returncode != 0 and "perpetuum" in done.stderr and done.stderr.count("\n") == 1


def test_the_picture_in_docs_is_of_the_latest_figures_that_have_all_its_traces(sim):
    pictures = [sim.defaults(json.loads(path.read_text())) for path in sorted((ROOT / "bench/results").glob("sim-*.json"))]
    drawn = (ROOT / "docs/defaults.svg").read_text()
    assert drawn == [p for p in pictures if p][-1] and len(drawn) < 15000
    assert len(ElementTree.fromstring(drawn).findall(f"{SVG}rect")) == 1 + len(sim.DEFAULT_STEPS) * (1 + len(sim.JUDGED_ON))
