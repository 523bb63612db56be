"""Every plan by name."""

from __future__ import annotations

from adi_lite.experiments.industrial import INDUSTRIAL
from adi_lite.experiments.plans import TABLE3, WATERFALL, Plan

PLANS: dict[str, Plan] = {p.name: p for p in (TABLE3, WATERFALL, *INDUSTRIAL)}


def plans_called(*names: str) -> tuple[Plan, ...]:
    """Plans by name; ``table2`` stands for that table on every data set. All, if no name is given.

    Raises:
        ValueError: no plan of such a name.
    """
    found = {}
    for name in names or tuple(PLANS):
        matching = [p for p in PLANS.values() if p.name == name or p.name.startswith(f"{name}-")]
        if not matching:
            raise ValueError(f"unknown plan {name}; the plans are {', '.join(PLANS)}")
        found |= {p.name: p for p in matching}
    return tuple(found.values())
