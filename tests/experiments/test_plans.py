"""Plans: every line of every size can be built, all lines get the same treatment, and the paper's names are the paper's."""

import pytest

from adi_lite.data.paper import paper_table
from adi_lite.data.registry import DATASETS
from adi_lite.experiments.catalog import PLANS, plans_called
from adi_lite.experiments.industrial import INDUSTRIAL
from adi_lite.experiments.plans import PROFILES, TABLE3, WATERFALL
from adi_lite.experiments.references import OF_LOGS, REFERENCES
from adi_lite.experiments.runner import row_config
from adi_lite.models.registry import NETWORKS

every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=lambda p: p.name)


@every_plan
def test_lines_are_told_apart_and_the_main_one_is_there(plan):
    for names in ([r.label for r in plan.rows], [r.title for r in plan.rows]):
        assert len(set(names)) == len(names)
    assert plan.row(plan.main).reference is False
    assert PLANS[plan.name] is plan and plan.ks and plan.protocols


@every_plan
def test_three_sizes_of_known_data(plan):
    assert set(plan.profiles) == set(PROFILES)
    assert all(size.dataset in DATASETS and size.seeds >= 1 for size in plan.profiles.values())
    assert plan.profile("full").seeds >= 5 and plan.profile("full").epochs == 1
    assert not plan.profile("full").changes
    assert plan.profile("smoke").dataset.endswith(("-sample", "simulator")), "needs no network"
    with pytest.raises(ValueError, match="unknown profile 'huge'; choose smoke, quick, full"):
        plan.profile("huge")


@every_plan
@pytest.mark.parametrize("profile", PROFILES)
def test_every_line_has_a_configuration_in_every_size(plan, profile):
    size = plan.profile(profile)
    dataset = size.dataset.removesuffix("-sample")
    for row in plan.rows:
        if row.reference:
            assert row.method in REFERENCES | OF_LOGS
            continue
        whole = row_config(row, plan.profile("full"), dataset, 0)
        config = row_config(row, size, dataset, 3)
        assert config.model.method == row.method and config.train.seed == 3
        epochs = size.changes.get("epochs", whole.train.epochs)
        assert 1 <= config.train.epochs == max(1, round(epochs * size.epochs))
        assert config.train.patience is None, "a plan trains without a validation split"
        for name, value in size.changes.items():
            if name not in row.changes:
                assert getattr(config.model, name, getattr(config.train, name, None)) == value


@every_plan
def test_the_papers_names(plan):
    if plan.paper_table is None:  # Figure 3, which prints no numbers
        assert not any(row.paper for row in plan.rows) and plan in INDUSTRIAL
        return
    printed = set(paper_table(plan.paper_table)["method"])
    for row in plan.rows:
        assert not row.paper or row.paper in printed
    if plan in INDUSTRIAL:
        assert {row.paper for row in plan.rows if row.paper} == printed
    assert any(row.paper for row in plan.rows)


@every_plan
def test_claims_are_of_lines_that_are_there(plan):
    for claim in plan.claims:
        assert {claim.better, *claim.worse} <= {row.label for row in plan.rows}
        assert claim.better not in claim.worse and claim.worse
    assert len({c.text for c in plan.claims}) == len(plan.claims)


def test_the_papers_own_figures_bear_out_the_claims_made_of_them():
    """What the plans call the paper's claims is what its tables say (Figure 3 prints nothing)."""
    for plan in INDUSTRIAL:
        if plan.paper_table is None:
            continue
        printed = paper_table(plan.paper_table)
        printed = printed[printed["metric"] == plan.metric].set_index(["method", "domain"])["value"]
        for claim in plan.claims:
            for d in claim.domains or range(3):
                names = [plan.row(label).paper for label in (claim.better, *claim.worse)]
                own, *others = (printed[name, f"D{d + 1}"] for name in names)
                assert own > max(others) or claim.text in NOT_IN_EVERY_DOMAIN, (claim.text, d)


NOT_IN_EVERY_DOMAIN = {"Network-Mul is ahead of SUM (5.3.1)"}


def test_one_name_stands_for_a_table_on_every_data_set():
    assert [p.name for p in plans_called("table7")] == ["table7-simulator", "table7-globo"]
    assert [p.name for p in plans_called("table3", "table7-globo")] == ["table3", "table7-globo"]
    assert plans_called() == tuple(PLANS.values())
    with pytest.raises(ValueError, match="unknown plan table9; the plans are table3"):
        plans_called("table9")


def test_the_same_run_serves_every_table_that_asks_for_it():
    se = [
        row_config(row, plan.profile("full"), "simulator", 0)
        for plan in INDUSTRIAL
        for row in plan.rows
        if row.label == "adi_se" and plan.name.endswith("simulator")
    ]
    assert len(se) == 4 and len(set(map(repr, se))) == 1
    figure = row_config(
        PLANS["figure3-simulator"].row("adi_5"), PLANS["figure3-simulator"].profile("full"), "simulator", 0
    )
    table = row_config(
        PLANS["table2-simulator"].row("adi_se_max"), PLANS["table2-simulator"].profile("full"), "simulator", 0
    )
    assert figure == table


def test_table_3_has_every_method_and_every_reference():
    assert [r.method for r in TABLE3.rows if not r.reference] == list(NETWORKS)
    assert {r.method for r in TABLE3.rows if r.reference} == set(REFERENCES)
    # The table prints ADI with several adaptation layers or none; every method that it prints has a line here.
    assert {r.paper for r in TABLE3.rows if r.paper} == set(paper_table(3)["method"])


def test_the_waterfall_makes_one_change_at_a_time():
    steps = [r for r in WATERFALL.rows if not r.reference]
    assert steps[0].changes == {} and steps[-1].label == WATERFALL.main
    size = WATERFALL.profile("full")
    configs = [row_config(r, size, "xmarket", 0) for r in steps]
    for before, after, config, old in zip(steps, steps[1:], configs[1:], configs, strict=False):
        assert set(before.changes) < set(after.changes) or any(
            before.changes[k] != v for k, v in after.changes.items() if k in before.changes
        )
        assert set(before.changes) <= set(after.changes)
        assert config != old
