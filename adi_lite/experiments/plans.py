"""What the paper's tables and figures ask for, declared: one plan each, in three sizes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

ProfileName = Literal["smoke", "quick", "full"]
PROFILES: tuple[ProfileName, ...] = ("smoke", "quick", "full")


@dataclass(frozen=True)
class Profile:
    """A size of a plan.

    Attributes:
        dataset: name of the data set.
        seeds: seeds of each neural method, fixed in advance: 0, 1, ...
        epochs: share of each configuration's epochs that is trained (at least one).
        changes: settings changed for every line alike, e.g. narrower.
        options: options of the data set's loader.
        ks: cut-offs in the place of the plan's, where catalogues are small.
    """

    dataset: str
    seeds: int
    epochs: float = 1.0
    changes: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    ks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of a table: a method with settings, or a non-neural reference.

    Attributes:
        label: short unique name.
        title: as the tables print it.
        method: name of the model, or of the reference.
        changes: settings changed against the named configuration of the method; of a reference, its own settings.
        config: the named configuration it starts from.
        paper: the name that the paper's table gives this line; empty where the paper has no such line.
    """

    label: str
    title: str
    method: str
    changes: dict = field(default_factory=dict)
    config: str = "tuned"
    paper: str = ""
    reference: bool = False


@dataclass(frozen=True)
class Claim:
    """What the paper says of two lines (or of one and several): that ``better`` is ahead of each of ``worse``.

    Attributes:
        text: the claim in words, with the section or table that makes it.
        domains: numbers of the domains that it is made for; None: every one.
    """

    text: str
    better: str
    worse: tuple[str, ...]
    domains: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """One table or figure: its lines, its sizes, and what is measured."""

    name: str
    title: str
    rows: tuple[Row, ...]
    profiles: dict[ProfileName, Profile]
    protocols: tuple[str, ...]
    ks: tuple[int, ...]
    main: str
    """Label of the line that the others are compared with."""
    paper_table: int | None = None
    exclude_seen: bool = True
    """Whether items of a user's past are left out of the whole catalogue."""
    claims: tuple[Claim, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that the paper's table shows, or the first of those that it shows several of."""
        return "recall@500" if 500 in self.ks else f"recall@{self.ks[0]}"

    def profile(self, name: str) -> Profile:
        if name not in self.profiles:
            raise ValueError(f"unknown profile {name!r}; choose {', '.join(self.profiles)}")
        return self.profiles[name]

    def at(self, name: str) -> Plan:
        """The plan with the cut-offs of the profile."""
        return replace(self, ks=self.profile(name).ks or self.ks)

    def row(self, label: str) -> Row:
        return next(r for r in self.rows if r.label == label)


REFERENCES = (
    Row("popularity", "Popularity", "popularity", reference=True),
    Row("item_knn", "ItemKNN", "item_knn", reference=True),
    Row("ease", "EASE", "ease", reference=True),
    Row("ials", "iALS", "ials", reference=True),
)

_XMARKET: dict[ProfileName, Profile] = {
    "smoke": Profile("xmarket-sample", 2, 0.3, {"dim": 16, "out_dim": 16, "hidden": (16,), "batch_size": 512}),
    "quick": Profile("xmarket", 1, 0.34, {"dim": 64, "out_dim": 64}),
    "full": Profile("xmarket", 5),
}

TABLE3 = Plan(
    name="table3",
    title="Table 3: overall performance on WSDM Cross-Market",
    rows=(
        Row("dnn_single", "DNN-Single", "dnn_single", paper="DNN-Single"),
        Row("dnn", "DNN", "dnn", paper="DNN"),
        Row("shared_bottom", "Shared-Bottom", "shared_bottom", paper="Shared-Bottom"),
        Row("cross_stitch", "Cross-Stitch", "cross_stitch", paper="Cross-Stitch"),
        Row("mmoe", "MMoE", "mmoe", paper="MMoE"),
        Row("ple", "PLE", "ple", paper="PLE"),
        Row("star", "STAR", "star"),
        Row("adi", "ADI", "adi", paper="ADI"),
        *REFERENCES,
    ),
    profiles=_XMARKET,
    protocols=("candidates", "corpus"),
    ks=(10, 50),
    main="adi",
    paper_table=3,
    claims=(
        Claim(
            "ADI has the best average on the public data (5.2)",
            "adi",
            ("dnn_single", "dnn", "shared_bottom", "cross_stitch", "mmoe", "ple"),
        ),
        Claim("On the public data a model for each domain is ahead of one for all (Table 3)", "dnn_single", ("dnn",)),
    ),
)


def _waterfall() -> tuple[Row, ...]:
    """From the public settings to ours, one change at a time; each line keeps the changes of the lines before."""
    steps: tuple[tuple[str, str, dict], ...] = (
        ("published", "Public settings", {}),
        ("one_softmax", "Softmax once, not twice", {"double_softmax": False}),
        ("no_last_relu", "No ReLU on the last layer", {"final_relu": False}),
        ("shuffled", "Records shuffled", {"shuffle": True}),
        (
            "fresh_negatives",
            "1,024 fresh shared negatives, log Q",
            {"fixed_negatives": False, "num_negatives": 1024},
        ),
        ("item_bias", "An item bias", {"item_bias": True}),
        ("cosine", "Cosine and temperature", {"similarity": "cosine", "temperature": 0.2}),
        ("longer", "10 epochs instead of 5, larger steps", {"epochs": 10, "embedding_learning_rate": 1e-2}),
        ("wider", "Width 128 instead of 8", {"dim": 128, "out_dim": 128, "hidden": (64,)}),
        ("history", "Users as their past items", {"user": "history", "history_dropout": 0.5, "domain_field": True}),
        (
            "residual",
            "Network as a correction",
            {"residual": True, "residual_gain": 0.0, "dropout": 0.5, "equal_size": True},
        ),
        ("tied", "Past items share the items' table", {"tie_history": True, "batch_size": 4096}),
    )
    rows, changes = [], {}
    for label, title, change in steps:
        changes = {**changes, **change}
        rows.append(Row(f"adi_{label}", title, "adi", dict(changes), "as_published", paper="ADI" if not rows else ""))
    return tuple(rows)


WATERFALL = Plan(
    name="waterfall",
    title="What the public numbers hide: from the public settings to ours, one change at a time",
    rows=(*_waterfall(), *REFERENCES),
    profiles={
        "smoke": Profile("xmarket-sample", 1, 0.4),
        "quick": Profile("xmarket", 1, 0.34),
        "full": Profile("xmarket", 5),
    },
    protocols=("candidates",),
    ks=(10,),
    main="adi_tied",
    paper_table=3,
)
