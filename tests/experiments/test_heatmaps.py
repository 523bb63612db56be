"""Tables of weights against what they are said to be."""

import numpy as np
import pandas as pd
import pytest

from adi_lite.experiments.heatmaps import average_over_seeds, own_and_other, rank_agreement

TRUE = pd.DataFrame({"A": [0.5, 0.3, 0.2, 0.0], "B": [0.1, 0.2, 0.3, 0.4]}, index=list("wxyz"))


def test_the_same_order_is_1_and_the_reverse_is_minus_1():
    same = 10 * TRUE + 3
    found = rank_agreement([same, same], TRUE)
    assert found["mean"].tolist() == pytest.approx([1, 1]) and found["features"].tolist() == [4, 4]
    found = rank_agreement([same, -same], TRUE)
    assert found["mean"].tolist() == pytest.approx([0, 0])
    assert found["low"].tolist() == pytest.approx([-1, -1]) and found["high"].tolist() == pytest.approx([1, 1])


def test_rows_are_matched_by_name():
    shuffled = TRUE.iloc[[2, 0, 3, 1]]
    extra = pd.concat([shuffled, pd.DataFrame({"A": [9.0], "B": [9.0]}, index=["more"])])
    assert rank_agreement([extra], TRUE)["mean"].tolist() == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="no weight for the feature 'z'"):
        rank_agreement([TRUE.drop(index="z")], TRUE)


def test_constant_weights_have_no_order():
    assert np.isnan(rank_agreement([TRUE * 0 + 1], TRUE)["mean"]).all()


def test_average_and_own_statistics():
    one = pd.DataFrame(
        {"A": [1.0, 2.0, 3.0, 4.0], "B": [5.0, 6.0, 7.0, 8.0]}, index=["ctr_A", "ctr_B", "bid_A", "bid_B"]
    )
    mean = average_over_seeds([one, 3 * one])
    pd.testing.assert_frame_equal(mean, 2 * one)
    found = own_and_other([one, 3 * one], ["A", "B"], ["ctr", "bid"])
    assert found.loc["A"].tolist() == [2 * (1 + 3) / 2, 2 * (2 + 4) / 2]
    assert found.loc["B"].tolist() == [2 * (6 + 8) / 2, 2 * (5 + 7) / 2]
