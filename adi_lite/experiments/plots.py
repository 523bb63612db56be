"""Figures of the book: readable in grey and by the colour-blind, with units and intervals."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, MaxNLocator

from adi_lite.evaluation.intervals import seed_interval
from adi_lite.evaluation.significance import AVERAGE

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
"""Four of the Okabe-Ito palette, of different lightness."""
LIGHT = "#56B4E9"
"""Of bars: lines and numbers on it can be read."""
_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
"""Behind numbers that a line may cross."""
MARKERS = ("o", "s", "^", "D")


def line_style(i: int) -> dict[str, str]:
    """Colour, marker and dashes of the i-th line of a figure, told apart in grey as well."""
    return {
        "color": (*COLOURS, "#000000")[i % 5],
        "marker": (*MARKERS, "x")[i % 5],
        "linestyle": ("-", "--", "-.", ":")[i % 4],
    }


def show(figure: Figure, alt: str) -> None:
    """Put a figure on the page, with words for readers who cannot see it, and close it. The last line of a figure's cell.

    Args:
        alt: what is drawn over what, and what a look at it would tell; tables beside it need not be repeated. Kept with
            the picture, where nbconvert looks for it; ``book.normalise`` puts it where the book's builder does.
    """
    from IPython.display import display  # only notebooks have it

    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def _reach(part: pd.DataFrame) -> np.ndarray:
    """Lengths of the intervals below and above the means of shares, (2, rows), cut where a share ends: at 0 and 1."""
    reach = np.stack([part["mean"] - part["low"].clip(lower=0), part["high"].clip(upper=1) - part["mean"]])
    return reach.clip(min=0)  # a mean of ones may be rounded to more than 1


def dots(table: pd.DataFrame, metric: str) -> Figure:
    """A :func:`~adi_lite.experiments.tables.summary` as dots with intervals, a panel each domain; crosses: the paper."""
    domains = list(dict.fromkeys(table["domain"]))
    titles = list(dict.fromkeys(table["title"]))
    figure, axes = plt.subplots(
        1, len(domains), figsize=(2.2 * len(domains) + 2, 0.28 * len(titles) + 1.2), sharey=True, layout="constrained"
    )
    place = np.arange(len(titles))[::-1]
    for ax, domain in zip(np.atleast_1d(axes), domains, strict=True):
        part = table[table["domain"] == domain].set_index("title").loc[titles]
        ax.errorbar(
            part["mean"],
            place,
            xerr=_reach(part),
            fmt="o",
            markersize=5,
            color=COLOURS[0],
            capsize=3,
            label="here, 95 % interval",
        )
        if table["paper"].notna().any():
            ax.plot(part["paper"], place, "x", color=COLOURS[1], markersize=7, mew=2, label="paper")
        ax.set_title(domain)
        ax.set_xlabel(metric)
        ax.xaxis.set_major_locator(MaxNLocator(3, steps=(1, 2, 5, 10)))
        ax.grid(axis="x", alpha=0.3)
    np.atleast_1d(axes)[0].set_yticks(place, titles)
    np.atleast_1d(axes)[0].set_ylim(-0.6, len(titles) - 0.4)  # or the dots of few lines lie on the frame
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def by_number(table: pd.DataFrame, lines: dict[str, dict[int, str]], metric: str, xlabel: str) -> Figure:
    """Lines of a :func:`~adi_lite.experiments.tables.summary` over a number, with intervals, a panel each domain.

    Args:
        lines: for each line of the figure, the label of the table's row at each number.
        xlabel: what is counted, for all panels; it says so where lines count different things. In the paper's Figure 3
            that is ``shared networks K (MMoE: K + 3 experts)``, since MMoE has no networks of a domain's own.
    """
    domains = list(dict.fromkeys(table["domain"]))
    figure, axes = plt.subplots(1, len(domains), figsize=(2.4 * len(domains) + 1, 3.0), layout="constrained")
    for ax, domain in zip(np.atleast_1d(axes), domains, strict=True):
        part = table[table["domain"] == domain].set_index("label")
        for i, (name, at) in enumerate(lines.items()):
            own = part.loc[list(at.values())]
            x = np.array(list(at)) + 0.12 * (i - (len(lines) - 1) / 2)  # so that intervals do not cover each other
            ax.errorbar(x, own["mean"], yerr=_reach(own), capsize=2, markersize=5, label=name, **line_style(i))
        ax.set_title(domain)
        ax.set_xticks(list(next(iter(lines.values()))))
        ax.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel(f"{metric}, 95 % intervals")
    figure.supxlabel(xlabel, fontsize="medium")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(lines), frameon=False)
    return figure


def heatmap(table: pd.DataFrame, ax: Axes, colours: dict[str, str], label: str) -> None:
    """Features x domains as shades of grey with the numbers in the cells; names of features in their domain's colour.

    Args:
        table: features in rows, domains in columns.
        colours: colour of a feature's name, where it has one.
    """
    values = table.to_numpy()
    image = ax.imshow(values, cmap="Greys", aspect="auto")
    _write_numbers(image, values, "z.2f", fontsize=8)
    ax.set_xticks(range(len(table.columns)), table.columns)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    for tick in ax.get_yticklabels():
        if tick.get_text() in colours:
            tick.set_color(colours[tick.get_text()])
            tick.set_fontweight("bold")
    ax.figure.colorbar(image, ax=ax, label=label, shrink=0.8)


def _write_numbers(image: AxesImage, numbers: np.ndarray, form: str, **style: object) -> None:
    """Numbers in the cells of an image, (rows, columns), each in black or white, whichever stands out more (WCAG 2)."""
    coded = image.to_rgba(image.get_array())[..., :3]
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)  # of sRGB
    light = linear @ np.array([0.2126, 0.7152, 0.0722])
    for i, j in np.ndindex(numbers.shape):
        colour = "black" if light[i, j] > 0.179 else "white"  # there the two contrasts are equal
        image.axes.text(j, i, format(numbers[i, j], form), ha="center", va="center", color=colour, **style)


def waterfall(table: pd.DataFrame, steps: list[str], references: list[str], metric: str) -> Figure:
    """From the first step to the last: bars from each step's average to the next, its figures at the right, in a column
    that no line crosses; references as lines.

    Args:
        table: a summary; its average over domains is drawn.
        steps, references: labels of lines.
    """
    average = table[table["domain"] == AVERAGE].set_index("label")
    part = average.loc[steps]
    figure, ax = plt.subplots(figsize=(7.5, 0.36 * len(steps) + 1.8), layout="constrained")
    place = np.arange(len(steps))[::-1]
    means = part["mean"].to_numpy()
    gains = np.diff(means, prepend=0.0)
    for i, (y, gain) in enumerate(zip(place, gains, strict=True)):
        colour = "#999999" if i == 0 else LIGHT if gain >= 0 else COLOURS[1]
        hatch = "" if gain >= 0 else "///"
        ax.barh(y, gain, left=means[i] - gain, color=colour, edgecolor="black", linewidth=0.5, hatch=hatch)
    ax.errorbar(means, place, xerr=_reach(part), fmt="none", color="black", capsize=2)
    for reference, style in zip(references, ("-", "--", "-.", ":"), strict=False):
        value = average.loc[reference, "mean"]
        ax.axvline(
            value, color="black", linestyle=style, linewidth=1, label=f"{average.loc[reference, 'title']} {value:.3f}"
        )
    ax.set_yticks(place, part["title"])
    ax.set_ylim(-0.7, len(steps) - 0.3)
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    right = ax.secondary_yaxis("right")
    changes = [f"{mean:.3f} ({gain:+.3f})" for mean, gain in zip(means[1:], gains[1:], strict=True)]
    right.set_yticks(place, [f"{means[0]:.3f}", *changes], fontsize=8)
    right.tick_params(length=0)
    ax.set_xlim(0, max(average["high"].max() * 1.05, 0.1))
    ax.set_xlabel(f"{metric}, average over domains, with 95 % intervals")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def overlaps(table: pd.DataFrame, column: str, ax: Axes) -> None:
    """A matrix of shared users or items from ``describe.table5``, with the numbers in its cells."""
    names = list(dict.fromkeys(table["domain"]))
    matrix = np.zeros((len(names), len(names)))
    for row in table.itertuples():
        i, j = names.index(row.domain), names.index(row.other_domain)
        matrix[i, j] = matrix[j, i] = getattr(row, column)
    shade = np.log1p(matrix)
    image = ax.imshow(shade, cmap="Blues", vmin=0, vmax=max(shade.max(), 1))  # from 0: the smallest may be large
    _write_numbers(image, matrix, ",.0f")
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.set_title(f"shared {column}")


def by_the_hour(hourly: pd.DataFrame, titles: list[str], metric: str) -> Figure:
    """A share over the hours of a day, a panel each domain, with bands: 95 % intervals of the mean over seeds.

    The bands say nothing of the chance in who asks in an hour: all lines of a panel answer the same queries.

    Args:
        hourly: columns ``title``, ``domain``, ``hour`` and the metric. Rows of one title, domain and hour are its seeds:
            they are averaged, and three or more make a band.
        titles: the lines, in the legend's order; at most four.
    """
    domains = list(dict.fromkeys(hourly["domain"]))
    figure, axes = plt.subplots(1, len(domains), figsize=(3.2 * len(domains) + 1, 3.2), layout="constrained")
    for ax, domain in zip(np.atleast_1d(axes), domains, strict=True):
        for i, title in enumerate(titles):
            own = hourly[(hourly["domain"] == domain) & (hourly["title"] == title)].groupby("hour")[metric]
            mean, style = own.mean(), line_style(i)
            ax.plot(mean.index, mean.to_numpy(), markersize=4, label=title, **style)
            if own.size().min() > 2:
                ranges = [seed_interval(seeds.to_numpy()) for _, seeds in own]
                low, high = np.clip([(r.low, r.high) for r in ranges], 0, 1).T
                ax.fill_between(mean.index, low, high, color=style["color"], alpha=0.15, linewidth=0)
                for edge in (low, high):  # in the line's dashes: in grey, bands are told apart by them
                    ax.plot(mean.index, edge, **style | {"marker": ""}, linewidth=0.7, alpha=0.6)
        ax.set_title(domain)
        ax.set_xlabel("hour of the day")
        ax.set_xticks(range(0, 25, 6))
        ax.grid(alpha=0.3)
    banded = any(ax.collections for ax in np.atleast_1d(axes))
    np.atleast_1d(axes)[0].set_ylabel(metric.capitalize() + (", 95 % bands over seeds" if banded else ""))
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(titles), frameon=False)
    return figure


def growth(parts: dict[str, dict], titles: dict[str, str]) -> Figure:
    """Processor time of a step (of an epoch, where records grow) over what grows, a panel each, both axes logarithmic.

    At the end of each line stands its slope, rounded as :func:`~adi_lite.experiments.measured.growth_table` is.

    Args:
        parts: of each panel the ``points`` and ``slope_of_cpu_time`` of a benchmark.
        titles: name of what grows, by panel.
    """
    columns = min(3, len(parts))
    rows = -(-len(parts) // columns)
    size = (2.9 * columns + 0.6, 2.7 * rows + 0.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    styles: dict[str, dict] = {}
    for ax, (name, part) in zip(axes.flat, parts.items(), strict=False):
        x = [int(v) for v in part["points"]]
        for label, slope in part["slope_of_cpu_time"].items():
            styles.setdefault(label, line_style(len(styles)))
            y = [p[label]["cpu_ms_per_step"] for p in part["points"].values()]
            ax.plot(x, y, **styles[label], label=label)
            text = f"{np.round(slope, 2):.2f}"  # as pandas does: Python's own makes another number of some halves
            ax.annotate(text, (x[-1], y[-1]), (8, 0), textcoords="offset points", va="center", fontsize=8, bbox=_BOX)
        unit = "epoch" if name == "records" else "step"
        ax.set(xscale="log", yscale="log", xlabel=titles[name], ylabel=f"processor ms, one {unit}")
        ax.margins(x=0.1, y=0.1)
        low, high = ax.get_ylim()
        if high < 4 * low:  # or noise would look like growth
            ax.set_ylim(low / 2, high * 2)
        ax.set_xticks(x, [f"{v // 1000}k" if v >= 1000 else str(v) for v in x])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        ax.minorticks_off()
        left, right = ax.get_xlim()
        ax.set_xlim(left, right * (right / left) ** 0.2)  # room for the slopes
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(parts) :]:
        ax.remove()
    found = {k: v for ax in figure.axes for v, k in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        found.values(),
        found.keys(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        title="at the end of each line: its slope",
    )
    return figure


def bars(values: pd.Series, xlabel: str, reference: float | None = None, reference_label: str = "") -> Figure:
    """Horizontal bars with their numbers, and a dashed line at ``reference``, named above it."""
    figure, ax = plt.subplots(figsize=(7, 0.34 * len(values) + 1.0), layout="constrained")
    place = np.arange(len(values))[::-1]
    drawn = ax.barh(place, values, color=LIGHT, edgecolor="black")
    numbers = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in values]
    ax.bar_label(drawn, numbers, padding=3, fontsize=8, bbox=_BOX)
    if reference is not None:
        ax.axvline(reference, color="black", linestyle="--", linewidth=1)
        above = ax.get_xaxis_transform()  # x in data, y in heights of the panel
        ax.text(reference, 1.02, reference_label, transform=above, ha="center", va="bottom", fontsize=8)
    ax.set_yticks(place, values.index)
    ax.set_xlabel(xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10)))
    ax.xaxis.set_major_formatter("{x:,.10g}")
    ax.margins(x=0.18)  # room for the longest bar's number
    return figure
