"""Figures that can be read: what is drawn is what a table says, numbers stand out, nothing runs together or is cut off."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from adi_lite.experiments.plots import heatmap, overlaps


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
