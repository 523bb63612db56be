"""What pages say in the same way: the data, tables, p values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from adi_lite.data.registry import load_dataset
from adi_lite.experiments.page import data_name, facts, p_text, progress, shown


def test_a_stand_in_is_named_first_and_notes_keep_their_keys():
    data = load_dataset("xmarket-sample")
    first, second, *notes = facts(data, "quick", 1).splitlines()
    assert first == "- **A drawn sample stands in for xmarket: these are not its figures.**"
    assert second == "- xmarket (stand-in), profile quick, 1 seed"
    assert notes == [f"- {key}: {note}" for key, note in data.notes.items()]
    real = facts(data.replace(name="xmarket", notes={"sample": "a tenth of the users"}), "full", 5).splitlines()
    assert real == ["- xmarket, profile full, 5 seeds", "- sample: a tenth of the users"]
    assert data_name("globo-sample") == "globo (stand-in)" and data_name("globo") == "globo"


def test_a_table_has_a_fixed_id_dashes_and_its_caption():
    html = shown(pd.DataFrame({"a": [1.25, np.nan]}), "numbers", "Numbers", {"a": "{:.1f}"}).to_html()
    assert 'id="T_numbers"' in html and "<caption>Numbers</caption>" in html
    assert "1.2" in html and "–" in html and "nan" not in html


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "< 0.0001"), (2.4e-113, "< 0.0001"), (0.0321, "0.032"), (1.0, "1"), (float("nan"), "–")]
)
def test_p_values(p, text):
    assert p_text(p) == text


def test_progress_is_silent_where_outputs_are_compared(capsys):
    progress("smoke")("a")
    progress("full")("b")
    printed = capsys.readouterr()
    assert printed.err == "b\n" and not printed.out
