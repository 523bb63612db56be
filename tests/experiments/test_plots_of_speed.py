"""Figures of speed: what is drawn is what was measured."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from adi_lite.experiments.plots import bars, growth


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def part(**lines):
    """Steps at 1,000 and 4,000 of something."""
    points = {
        str(x): {name: {"cpu_ms_per_step": ms[i]} for name, ms in lines.items()} for i, x in enumerate((1000, 4000))
    }
    return {"points": points, "slope_of_cpu_time": dict.fromkeys(lines, 0.5)}


def test_a_panel_for_each_that_grows():
    parts = {"items": part(adi=(10.0, 20.0)), "shared": part(adi=(5.0, 6.0), plain=(50.0, 200.0))}
    figure = growth(parts, {"items": "items", "shared": "shared networks K"})
    first, second = figure.axes
    assert [ax.get_xlabel() for ax in figure.axes] == ["items", "shared networks K"]
    assert list(first.lines[0].get_ydata()) == [10.0, 20.0] and len(second.lines) == 2
    assert [t.get_text() for t in first.get_xticklabels()] == ["1k", "4k"]
    low, high = first.get_ylim()
    assert high / low > 4  # noise would fill a panel that is scaled to it
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["adi", "plain"]


def test_places_without_a_part_stay_empty():
    parts = {name: part(adi=(1.0, 2.0)) for name in "abcde"}
    assert len(growth(parts, dict.fromkeys(parts, "x")).axes) == 5


def test_bars_start_at_zero_and_say_their_numbers():
    figure = bars(pd.Series({"a": 1234.0, "b": 2.5}), "records/s", 1234.0, "a")
    ax = figure.axes[0]
    assert ax.get_xlim()[0] == 0 and [p.get_width() for p in ax.patches] == [1234.0, 2.5]
    assert {t.get_text().strip() for t in ax.texts} == {"1,234", "2.50"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
