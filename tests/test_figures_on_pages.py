"""Figures that are written by hand on pages and in README are those of the published runs."""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

ROOT = Path(__file__).resolve().parents[1]
JOINT = ("dnn", "shared_bottom", "cross_stitch", "mmoe", "ple", "star", "adi")


@pytest.fixture(scope="module")
def table3():
    """{(method, protocol): average Recall@10 over seeds} of the runs of Table 3, which rank in both ways."""
    found = defaultdict(list)
    for path in (ROOT / "data" / "results" / "runs").glob("*.json"):
        about = json.loads(path.read_text())
        if about["key"]["dataset"] == "xmarket-s1-s2-s3" and about["protocols"] == ["candidates", "corpus"]:
            for protocol, metrics in about["metrics"].items():
                found[re.sub(r"-\d+$", "", about["key"]["label"]), protocol].append(metrics["average"]["recall@10"])
    assert {len(v) for (name, _), v in found.items() if name in (*JOINT, "dnn_single")} == {5}, "five seeds"
    return {key: fmean(values) for key, values in found.items()}


def text(name):
    return " ".join((ROOT / name).read_text().split())


def test_readme_table(table3):
    readme = (ROOT / "README.md").read_text()
    rows = {
        "Popularity": "popularity",
        "ItemKNN": "item_knn",
        "EASE": "ease",
        "iALS": "ials",
        "DNN-Single": "dnn_single",
    }
    rows |= {"DNN": "dnn", "Shared-Bottom": "shared_bottom", "Cross-Stitch": "cross_stitch"}
    rows |= {"MMoE": "mmoe", "PLE": "ple", "STAR": "star", "ADI": "adi"}
    for title, name in rows.items():
        line = next(row for row in readme.splitlines() if row.startswith(f"| {title} |"))
        *_, candidates, corpus = (cell.strip(" *") for cell in line.strip("|").split("|"))
        assert (candidates, corpus) == tuple(f"{table3[name, p]:.3f}" for p in ("candidates", "corpus")), title


def test_when_it_pays(table3):
    page = text("book/when_it_pays.md")
    item_knn, ease, ials = (f"{table3[name, 'corpus']:.3f}" for name in ("item_knn", "ease", "ials"))
    assert f"{item_knn}, {ease} and {ials} in average Recall@10" in page
    networks = [table3[name, "corpus"] for name in (*JOINT, "dnn_single")]
    assert f"networks reach {min(networks):.3f} to {max(networks):.3f}" in page
    leads = [table3[name, "candidates"] - table3["dnn_single", "candidates"] for name in JOINT]
    assert f"by {min(leads):.3f} to {max(leads):.3f} within the candidates" in page
    joint = [table3[name, "candidates"] for name in JOINT]
    assert max(joint) - min(joint) < 0.002 and "lie within 0.002 of each other" in page
    assert f"counting sales {table3['popularity', 'candidates']:.3f}" in page
    assert f"bring the same model to {table3['adi', 'candidates']:.3f}" in page


def test_front_page(table3):
    page = text("book/index.md")
    assert f"counting sales gives {table3['popularity', 'candidates']:.3f}" in page
    every = [table3[name, "candidates"] for name in (*JOINT, "dnn_single")]
    assert f"of {min(every):.2f} to {max(every):.2f} within 100 candidates" in page
    best = max(table3[name, "corpus"] for name in (*JOINT, "dnn_single"))
    assert all(table3[name, "corpus"] > best for name in ("ease", "item_knn", "ials"))


def test_readme_by_the_hour():
    """Recall@100 hour by hour, of the page that measured it."""
    page = json.loads((ROOT / "book" / "results" / "13_by_the_hour.ipynb").read_text())
    tables = [
        "".join(o["data"]["text/html"])
        for c in page["cells"]
        for o in c.get("outputs", ())
        if "text/html" in o.get("data", {})
    ]
    table = next(t for t in tables if "by the hour" in t)
    cells = [re.sub(r"<[^>]+>", "", row).split("\n") for row in re.findall(r"<tr>.*?</tr>", table, re.S)]
    average = {words[0].strip(): words[-1].strip() for row in cells if (words := [w for w in row if w.strip()])}
    adi, dnn, counts = (float(average[n].split()[0]) for n in ("ADI-SE", "DNN", "popularity, last 3 h"))
    assert (
        f"{adi:.2f} with ADI-SE and {dnn:.2f} with DNN; counting the clicks of the last three hours gives {counts:.2f}"
        in text("README.md")
    )
