"""Figures that can be read: what is drawn is what a table says, numbers stand out, nothing runs together or is cut off."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from adi_lite.evaluation.intervals import seed_interval
from adi_lite.experiments.measured import GROWTH, growth_table, measured
from adi_lite.experiments.plots import bars, by_number, by_the_hour, dots, growth, heatmap, overlaps, waterfall


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def light(colour):
    """Relative luminance of WCAG 2, of 0 (black) to 1 (white)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrasts(ax):
    """Of the number in each cell of an image, its contrast with the cell: 1 none, 21 black on white."""
    (image,) = ax.images
    found = []
    for text in ax.texts:
        j, i = (int(v) for v in text.get_position())
        both = sorted((light(text.get_color()), light(image.to_rgba(image.get_array())[i, j, :3])))
        found.append((both[1] + 0.05) / (both[0] + 0.05))
    return found


def texts(figure):
    """Everything written on a figure, drawn, as (text, box in pixels)."""
    figure.canvas.draw()
    beyond = [t.label1 for axis in axes_of(figure) for t in axis.get_major_ticks() if t not in ticks_of(axis)]
    every = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in beyond]
    return [(t.get_text(), t.get_window_extent()) for t in every]


def axes_of(figure):
    """The x and y axes of every panel."""
    return [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]


def ticks_of(axis):
    """The ticks of an axis that are drawn: matplotlib keeps some beyond its ends."""
    low, high = sorted(axis.get_view_interval())
    return [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()]


def outside(figure):
    """What does not lie on the figure."""
    frame = figure.bbox
    return [t for t, b in texts(figure) if b.x0 < frame.x0 or b.x1 > frame.x1 or b.y0 < frame.y0 or b.y1 > frame.y1]


def run_together(figure):
    """Neighbours along an axis that touch, or lie less than 3 pixels apart."""
    figure.canvas.draw()
    found = []
    for axis in axes_of(figure):
        labels = [t.label1 for t in ticks_of(axis) if t.label1.get_text()]
        boxes = [(label.get_text(), label.get_window_extent()) for label in labels]
        side = 0 if axis.axis_name == "x" else 1
        boxes.sort(key=lambda b: b[1].min[side])
        found += [(a, b) for (a, one), (b, other) in pairwise(boxes) if other.min[side] < one.max[side] + 3]
    return found


def summary(means, reach=0.01, paper=np.nan):
    """A summary of (domains, lines), intervals of ``reach`` to both sides."""
    rows = [
        (f"line_{i}", f"Line {i}", f"D{d}", mean, mean - reach, mean + reach, paper)
        for d, of_domain in enumerate(means)
        for i, mean in enumerate(of_domain)
    ]
    return pd.DataFrame(rows, columns=["label", "title", "domain", "mean", "low", "high", "paper"])


def shared(counts):
    """A table 5 of three domains."""
    pairs = ("aa", "ab", "ac", "bb", "bc", "cc")
    return pd.DataFrame({"domain": [p[0] for p in pairs], "other_domain": [p[1] for p in pairs], "items": counts})


@pytest.mark.parametrize(
    "counts",
    [
        (9762, 1198, 732, 2198, 816, 1245),  # none near 0
        (6466, 0, 0, 7109, 0, 3328),
        (900, 890, 910, 920, 930, 905),
        (0, 0, 0, 0, 0, 0),
        (300_000, 1, 7, 55, 400, 3000),
    ],
)
def test_shared_numbers_stand_out_from_their_cells(counts):
    _, ax = plt.subplots()
    overlaps(shared(counts), "items", ax)
    assert len(ax.texts) == 9 and min(contrasts(ax)) >= 4.5
    written = {t.get_position(): t.get_text() for t in ax.texts}
    assert written[0, 0] == f"{counts[0]:,}" and written[2, 1] == written[1, 2] == f"{counts[4]:,}"


def test_weights_stand_out_from_their_cells():
    _, ax = plt.subplots()
    table = pd.DataFrame(np.linspace(-0.001, 1, 30).reshape(10, 3), columns=list("abc"), index=list("qrstuvwxyz"))
    heatmap(table, ax, {"q": "#0072B2"}, "weight")
    assert min(contrasts(ax)) >= 4.5
    assert ax.texts[0].get_text() == "0.00", "no minus before a zero"
    assert ax.get_yticklabels()[0].get_color() == "#0072B2"


@pytest.mark.parametrize("width", [0.0006, 0.004, 0.05, 0.6])
@pytest.mark.parametrize("start", [0.0, 0.11, 0.3575])
def test_dots_of_any_range_have_ticks_apart(start, width):
    means = start + width * np.linspace(0, 0.9, 12).reshape(4, 3)
    figure = dots(summary(means, width / 10), "Recall@500")
    assert not run_together(figure) and not outside(figure)
    assert all(len(ticks_of(ax.xaxis)) >= 2 for ax in figure.axes)


def test_dots_of_few_lines_lie_off_the_frame():
    figure = dots(summary([[0.5, 0.6, 0.55]], paper=0.4), "Recall@500")
    (ax,) = figure.axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Line 0", "Line 1", "Line 2"], "from the top"
    assert list(ax.get_yticks()) == [2, 1, 0] and ax.get_ylim() == (-0.6, 2.6)
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {"paper", "here, 95 % interval"}


def ends(figure):
    """Ends of all intervals of a figure."""
    (ax,) = figure.axes
    return np.array([line.get_segments() for bars in ax.containers for line in bars[2]]).reshape(-1, 2, 2)


def test_intervals_of_shares_end_at_0_and_1():
    table = summary([[0.02, 0.5, 0.99]], 0.05)
    sideways = ends(dots(table, "Recall@10"))[..., 0]
    assert sideways.ravel().tolist() == pytest.approx([0, 0.07, 0.45, 0.55, 0.94, 1])
    lines = {"one": {1: "line_0", 2: "line_1"}, "other": {1: "line_1", 2: "line_2"}}
    figure = by_number(table, lines, "Recall@10", "shared networks K (MMoE: K + 3 experts)")
    assert ends(figure)[..., 1].ravel().tolist() == pytest.approx([0, 0.07, 0.45, 0.55, 0.45, 0.55, 0.94, 1])


def test_lines_over_a_number():
    lines = {"one": {1: "line_0", 2: "line_1"}, "other": {1: "line_1", 2: "line_2"}}
    figure = by_number(summary([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), lines, "Recall@10", "networks K")
    assert [t for t, _ in texts(figure)].count("networks K") == 1, "one for all panels"
    assert not run_together(figure) and not outside(figure)
    first = [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert first[0].get_marker() != first[1].get_marker() and first[0].get_linestyle() != first[1].get_linestyle()
    boxes = dict(texts(figure))
    assert not boxes["networks K"].overlaps(figure.legends[0].get_window_extent())


def test_a_waterfall_says_each_step_beside_it():
    table = summary([[0.5, 0.65, 0.6, 0.9]]).assign(domain="average")
    steps, references = ["line_0", "line_1", "line_2"], ["line_3"]
    figure = waterfall(table, steps, references, "Recall@10")
    assert not run_together(figure) and not outside(figure)
    (ax,) = figure.axes
    bars = [(p.get_x(), p.get_width()) for p in ax.patches]
    assert np.allclose(bars, [(0, 0.5), (0.5, 0.15), (0.65, -0.05)])
    assert [bool(p.get_hatch()) for p in ax.patches] == [False, False, True], "hatched where it takes away"
    (right,) = ax.child_axes
    assert [t.get_text() for t in right.get_yticklabels()] == ["0.500", "0.650 (+0.150)", "0.600 (-0.050)"]
    assert list(right.get_yticks()) == list(ax.get_yticks()) and right.get_ylim() == ax.get_ylim()
    edge = ax.get_window_extent().x1
    assert all(t.get_window_extent().x0 > edge for t in right.get_yticklabels()), "where no line crosses them"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["Line 3 0.900"]


def hourly(seeds):
    """Two hours of two domains: a line with ``seeds`` seeds around 0.5 and, in the last hour, near 1; one with a single."""
    rows = [
        (title, domain, hour, (0.5, 0.98)[hour] + 0.01 * (seed - (count - 1) / 2))
        for domain in ("D1", "D2")
        for title, count in (("count", 1), ("model", seeds))
        for hour in (0, 1)
        for seed in range(count)
    ]
    return pd.DataFrame(rows, columns=["title", "domain", "hour", "recall@100"])


def test_hours_have_bands_over_seeds():
    figure = by_the_hour(hourly(3), ["count", "model"], "recall@100")
    assert not run_together(figure) and not outside(figure)
    for ax in figure.axes:
        (band,) = ax.collections  # of the model alone
        heights = band.get_paths()[0].vertices[:, 1]
        interval = seed_interval(np.array([0.49, 0.5, 0.51]))
        assert heights.min() == pytest.approx(interval.low) and heights.max() == 1, "cut at 1"
        assert ax.lines[1].get_ydata().tolist() == pytest.approx([0.5, 0.98])
    assert "bands over seeds" in figure.axes[0].get_ylabel()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["count", "model"]


def test_two_seeds_make_no_band():
    figure = by_the_hour(hourly(2), ["count", "model"], "recall@100")
    assert not any(ax.collections for ax in figure.axes) and figure.axes[0].get_ylabel() == "Recall@100"


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


def test_slopes_are_those_of_the_table():
    """Both of the published benchmarks, where one lies half-way between two numbers of two digits."""
    benchmarks = measured("benchmarks")
    table = growth_table(benchmarks).round(2)
    names = [name for name in GROWTH if name in benchmarks]
    figure = growth({name: benchmarks[name] for name in names}, GROWTH)
    assert not run_together(figure) and not outside(figure)
    for ax, name in zip(figure.axes, names, strict=True):
        own = table[GROWTH[name]].dropna()
        assert [t.get_text() for t in ax.texts] == [
            f"{slope:.2f}" for slope in own[[*benchmarks[name]["slope_of_cpu_time"]]]
        ]
        assert ax.get_ylabel() == f"processor ms, one {'epoch' if name == 'records' else 'step'}"
        frame = ax.get_window_extent()
        dots = [ax.transData.transform(line.get_xydata()[-1]) for line in ax.lines]
        for text, (x, _) in zip(ax.texts, dots, strict=True):
            box = text.get_window_extent()
            assert x + 5 < box.x0 and box.x1 < frame.x1, "beside its marker, within the panel"


def test_bars_start_at_zero_and_say_their_numbers():
    figure = bars(pd.Series({"a": 1234.0, "b": 2.5}), "records/s", 1234.0, "the line of a")
    ax = figure.axes[0]
    assert ax.get_xlim()[0] == 0 and [p.get_width() for p in ax.patches] == [1234.0, 2.5]
    assert {t.get_text() for t in ax.texts} == {"1,234", "2.50", "the line of a"}
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize("largest", [0.8, 40.0, 137_568.0, 9_876_543.0])
def test_numbers_of_bars_lie_within_the_frame(largest):
    values = pd.Series({"a name of some length (a package)": largest, "other": largest / 7, "third": largest / 40})
    figure = bars(values, "records a second", largest / 6, "other")
    assert not run_together(figure) and not outside(figure)
    (ax,) = figure.axes
    frame = ax.get_window_extent()
    *numbers, name = ax.texts
    assert all(t.get_window_extent().x1 < frame.x1 and t.get_bbox_patch() for t in numbers)
    assert name.get_window_extent().y0 > frame.y1, "above the panel"
