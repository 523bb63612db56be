"""Plans of what the paper measures on its private log: Tables 2, 6, 7, 8 and Figure 3, on stand-ins for it.

The simulator has the published shape of the log and knows its truth; Globo is a real log of several domains, in the order
large, small, medium as the paper's three are. Both are measured as the paper does: Recall@N over a domain's whole corpus,
on the day after the training day, with nothing left out.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from adi_lite.experiments.plans import REFERENCES, Claim, Plan, Profile, ProfileName, Row

KS, FEW = (100, 500, 1000), (20, 50)
"""Cut-offs of the paper, and of small catalogues, which the paper's would cover."""
SHARED = (1, 2, 3, 4, 5)
"""Numbers K of shared networks in Figure 3; MMoE has 3 + K experts."""

_SELF_TRAINING: dict = {"self_training": {"portion": 0.01, "growth": 0.01}}
"""p and delta p of Algorithm 1; larger ones did harm on validation records."""
_SMALL = {"dim": 8, "out_dim": 8, "hidden": (8,), "batch_size": 512, "num_negatives": 128}

_FEW_RECORDS = {"epochs": 2, "schedule": "constant", "batch_size": 512}
"""For the simulator's small sizes: its configuration is that of a million records."""

_GLOBO, _KUAIRAND = {"domains": ("2", "5", "1")}, {"domains": ("1", "2", "4")}
"""Large, small, medium, as the domains of the paper's log."""

PROFILES_OF: dict[str, dict[ProfileName, Profile]] = {
    "simulator": {
        "smoke": Profile("simulator", 2, 1.0, _FEW_RECORDS | _SMALL, {"preset": "smoke", "scale": 0.5}, ks=FEW),
        "quick": Profile("simulator", 1, 1.0, _FEW_RECORDS, {"preset": "smoke"}, ks=FEW),
        "full": Profile("simulator", 5, options={"preset": "full"}),
    },
    "globo": {
        "smoke": Profile("globo-sample", 2, 0.5, _SMALL, {**_GLOBO, "refresh_hours": 6}, ks=FEW),
        "quick": Profile("globo", 1, 0.5, {}, {**_GLOBO, "sample": 0.05, "refresh_hours": 6}, ks=FEW),
        "full": Profile("globo", 5, options={**_GLOBO, "refresh_hours": 1}),
    },
    "kuairand": {
        "smoke": Profile("kuairand-sample", 2, 0.4, _SMALL, _KUAIRAND, ks=FEW),
        "quick": Profile("kuairand", 1, 0.5, {}, _KUAIRAND, ks=FEW),
        "full": Profile("kuairand", 5, options=_KUAIRAND),
    },
}


def _adi(label: str, title: str, paper: str = "", **changes: object) -> Row:
    return Row(label, title, "adi", {"adaptation": "se", **_SELF_TRAINING, **changes}, paper=paper)


ADI_SE = _adi("adi_se", "ADI-SE", "ADI-SE")

TABLE2_ROWS = (
    Row("dnn_single", "DNN-Single", "dnn_single", paper="DNN-Single"),
    Row("dnn", "DNN", "dnn", paper="DNN"),
    Row("shared_bottom", "Shared-Bottom", "shared_bottom", paper="Shared-Bottom"),
    Row("cross_stitch", "Cross-Stitch", "cross_stitch", paper="Cross-Stitch"),
    Row("mmoe", "MMoE", "mmoe", paper="MMoE"),
    Row("ple", "PLE", "ple", paper="PLE"),
    Row("star", "STAR", "star"),
    _adi("adi_lt", "ADI-LT", "ADI-LT", adaptation="linear"),
    _adi("adi_va", "ADI-VA", "ADI-VA", adaptation="attention"),
    ADI_SE,
    _adi("adi_se_max", "ADI-SE (MAX)", "ADI-SE (MAX)", num_shared=SHARED[-1], equal_size=False),
)

_BASELINES = ("dnn_single", "dnn", "shared_bottom", "cross_stitch", "mmoe", "ple")

_plan = partial(Plan, profiles={}, protocols=("corpus",), ks=KS, main="adi_se", exclude_seen=False)
"""What all have in common; :func:`on` gives the profiles."""

TABLE2 = _plan(
    name="table2",
    title="Table 2: overall performance on the industrial log",
    rows=TABLE2_ROWS,
    paper_table=2,
    claims=(
        Claim("ADI-SE is ahead of every baseline (5.2)", "adi_se", _BASELINES),
        Claim("More shared networks help: ADI-SE (MAX) is ahead of ADI-SE (5.2)", "adi_se_max", ("adi_se",)),
        Claim("ADI-SE is ahead of ADI-VA (5.2)", "adi_se", ("adi_va",)),
        Claim("ADI-VA is ahead of ADI-LT (5.2)", "adi_va", ("adi_lt",)),
        Claim(
            "In the smaller domains one model for all is ahead of a model each (5.2)", "dnn", ("dnn_single",), (1, 2)
        ),
        Claim("In the largest domain a model of its own is ahead (5.2)", "dnn_single", ("dnn",), (0,)),
    ),
)

TABLE6 = _plan(
    name="table6",
    title="Table 6: variants of the fusion layer",
    rows=(
        _adi("adi_sum", "SUM", "SUM", fusion="sum"),
        _adi("adi_network_mul", "Network-Mul", "Network-Mul", fusion="network_mul"),
        replace(ADI_SE, title="CONCAT", paper="CONCAT"),
    ),
    paper_table=6,
    claims=(
        Claim("CONCAT is ahead of SUM and of Network-Mul (5.3.1)", "adi_se", ("adi_sum", "adi_network_mul")),
        Claim("Network-Mul is ahead of SUM (5.3.1)", "adi_network_mul", ("adi_sum",)),
    ),
)

TABLE7 = _plan(
    name="table7",
    title="Table 7: ablation study",
    rows=(
        ADI_SE,
        _adi("without_st", "w/o ST", "w/o ST", self_training=None),
        _adi("without_st_dial", "w/o ST&DIAL", "w/o ST&DIAL", self_training=None, adaptation="none"),
        _adi(
            "without_st_dial_dsbn",
            "w/o ST&DIAL&DSBN",
            "w/o ST&DIAL&DSBN",
            self_training=None,
            adaptation="none",
            norm="bn",
        ),
    ),
    paper_table=7,
    claims=(
        Claim("Self-training helps (Table 7)", "adi_se", ("without_st",)),
        Claim("The adaptation layer helps (Table 7)", "without_st", ("without_st_dial",)),
        Claim("Domain-specific batch norm helps (Table 7)", "without_st_dial", ("without_st_dial_dsbn",)),
    ),
)

TABLE8 = _plan(
    name="table8",
    title="Table 8: placements of the SE-block",
    rows=(
        _adi("se_global", "1-SE", "1-SE", se_placement="global"),
        replace(ADI_SE, title="3-SE", paper="3-SE"),
        _adi("se_network", "4-SE", "4-SE", se_placement="network"),
    ),
    paper_table=8,
    claims=(
        Claim("3-SE is ahead of 1-SE (5.3.4)", "adi_se", ("se_global",)),
        Claim("3-SE is ahead of 4-SE (5.3.4)", "adi_se", ("se_network",)),
        Claim("4-SE is ahead of 1-SE (5.3.4)", "se_network", ("se_global",)),
    ),
)


def _figure3_rows() -> tuple[Row, ...]:
    """Every network of one size at each K, as the paper draws it, so that a model grows with K."""
    rows = []
    for shared in SHARED:
        same = {"num_shared": shared, "equal_size": False}
        rows.append(Row(f"mmoe_{shared}", f"MMoE, {3 + shared} experts", "mmoe", same))
        rows.append(Row(f"ple_{shared}", f"PLE, 3+{shared}", "ple", same))
        rows.append(_adi(f"adi_{shared}", f"ADI, 3+{shared}", **same))
    return tuple(rows)


FIGURE3 = _plan(
    name="figure3",
    title="Figure 3: the number of shared networks",
    rows=_figure3_rows(),
    main="adi_1",
    claims=(
        Claim("ADI gains from more shared networks (5.3.3)", "adi_5", ("adi_1",)),
        Claim("PLE gains from more shared networks (5.3.3)", "ple_5", ("ple_1",)),
        Claim("MMoE gains at first (5.3.3)", "mmoe_3", ("mmoe_1",)),
        Claim("MMoE loses later (5.3.3)", "mmoe_3", ("mmoe_5",)),
        Claim("ADI is ahead of MMoE and PLE at 3+5 (Figure 3)", "adi_5", ("mmoe_5", "ple_5")),
    ),
)

_POPULARITY, _ITEM_KNN = REFERENCES[:2]
_RECENT = tuple(
    Row(f"recent_{h}", f"Popularity, last {h} h", "recent_popularity", {"hours": h}, reference=True) for h in (3, 24)
)
REFERENCES_OF: dict[str, tuple[Row, ...]] = {
    "simulator": (_POPULARITY, _ITEM_KNN),
    "globo": (_POPULARITY, *_RECENT, _ITEM_KNN),
    "kuairand": (_POPULARITY, _ITEM_KNN),
}
"""Non-neural lines of Table 2."""

_NAMES = {"simulator": "the simulator", "globo": "the Globo log", "kuairand": "KuaiRand-Pure"}


def on(plan: Plan, dataset: str) -> Plan:
    """The plan on a data set: ``table2`` becomes ``table2-simulator``, say."""
    return replace(
        plan,
        name=f"{plan.name}-{dataset}",
        title=f"{plan.title}, {_NAMES[dataset]}",
        rows=plan.rows + (REFERENCES_OF[dataset] if plan is TABLE2 else ()),
        profiles=PROFILES_OF[dataset],
    )


INDUSTRIAL = (
    *(on(plan, d) for plan in (TABLE2, TABLE6, TABLE7, TABLE8, FIGURE3) for d in ("simulator", "globo")),
    on(TABLE2, "kuairand"),
)
