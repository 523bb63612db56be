"""The plan of the paper's log: arithmetic that can be done by hand."""

import pytest

from adi_lite.experiments.scale import Assumptions, Workload, assumptions_table, memory, plan, step_cost, table4

WORK = Workload(users=2**20, items=2**19, records=3_600_000, domains=2)  # 2 Mi rows


def benchmarks(adam, rowwise):
    """Steps over 20,000 and 100,000 items, which are 50,000 and 250,000 rows."""
    items = zip((20_000, 100_000), adam, rowwise, strict=True)
    points = {str(x): {"adi": {"cpu_ms_per_step": a}, "adi_rowwise": {"cpu_ms_per_step": r}} for x, a, r in items}
    return {"items": {"points": points}}


def test_table_4_is_the_papers():
    work = table4()
    assert (work.users, work.items, work.domains) == (92_664_693, 2_240_723, 3)
    assert work.records == 1_364_983_432 + 167_494_696 + 609_611_432
    with pytest.raises(ValueError, match="Table 4 has Alibaba Production, WSDM Cross-Market, not 'other'"):
        table4("other")


def test_memory_is_rows_times_width_and_state():
    table = memory(WORK, Assumptions(width=64))
    tables = (2 * 2**20 * 64 + 2**20) * 4 / 2**30
    assert table.loc["Adam"].tolist() == pytest.approx([tables, 2 * tables, tables, 4 * tables])
    assert table.loc["row-wise Adagrad", "optimizer state"] == pytest.approx(3 * 2**20 * 4 / 2**30)
    assert table.loc["row-wise Adagrad", "gradients"] == 0


def test_a_step_is_a_constant_and_a_share_of_the_rows():
    measured = benchmarks((12.0, 20.0), (10.0, 9.0))
    constant, each = step_cost(measured, "Adam")
    assert (constant, each) == (pytest.approx(10.0), pytest.approx(40.0))  # ms, ms a million rows
    assert step_cost(measured, "row-wise Adagrad") == (pytest.approx(9.5), 0.0)  # never falling


def test_hours_and_price_of_a_plan():
    measured = benchmarks((10.0, 10.0), (10.0, 10.0))
    given = Assumptions(memory_gib=0.5, usable=1.0, efficiency=0.5, price=3.0)
    table = plan(measured, WORK, given, batch=1000, machines=(1, 2, 8))  # 100,000 records/s on one
    rowwise = table.loc["row-wise Adagrad"]
    assert rowwise.index.tolist() == [2, 8]  # 0.52 GiB need two
    assert rowwise["records/s"].tolist() == pytest.approx([100_000, 400_000])
    assert rowwise["hours"].tolist() == pytest.approx([0.01, 0.0025])
    assert rowwise["price"].tolist() == pytest.approx([0.06, 0.06])
    assert table.loc["Adam"].index.tolist() == [5, 8]


def test_every_assumption_is_told():
    assert assumptions_table(Assumptions())["value"].tolist() == [64, 1.0, 4, 24.0, 0.7, 0.7, 1.0]
