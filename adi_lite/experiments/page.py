"""What the pages of the book have in common: which data and size they show, and how tables and verdicts are written."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pandas as pd
from pandas.io.formats.style import Styler

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.significance import p_equals
from adi_lite.experiments.claims import HOLDS, OPEN, REVERSED, Judgement
from adi_lite.experiments.runner import STAND_IN, PlanResult, Report


def progress(profile: str) -> Report:
    """Prints what goes on to standard error, which no page keeps; nothing at the smallest size, where outputs are compared."""
    return lambda line: None if profile == "smoke" else print(line, file=sys.stderr)


def data_name(name: str) -> str:
    """The data set's name for readers, with a warning where a drawn sample stands in for the real one."""
    return f"{name.removesuffix(STAND_IN)} (stand-in)" if name.endswith(STAND_IN) else name


def facts(data: PlanResult | MultiDomainDataset, profile: str, seeds: int | None = None) -> str:
    """What a page's figures are of, as a list in Markdown; first of all, in bold, whether it is not the real data."""
    name, seeds = (data.dataset, data.seeds) if isinstance(data, PlanResult) else (data.name, seeds)
    lines = [f"{data_name(name)}, profile {profile}" + (f", {seeds} seed{'s' * (seeds > 1)}" if seeds else "")]
    if name.endswith(STAND_IN):
        lines.insert(0, f"**A drawn sample stands in for {name.removesuffix(STAND_IN)}: these are not its figures.**")
    return "\n".join(f"- {line}" for line in (*lines, *(f"{key}: {note}" for key, note in data.notes.items())))


def shown(table: pd.DataFrame, name: str, caption: str = "", formats: Mapping[str, str] | str | None = None) -> Styler:
    """A table as pages show it.

    Args:
        table: what to show.
        name: unique on the page; the table's id, which would be drawn at random otherwise.
        caption: what the figures are.
        formats: format strings by column, or one for all. A missing value is a dash.
    """
    style = table.style.set_uuid(name).format(formats, na_rep="–")
    return style.set_caption(caption) if caption else style


def p_text(p: float) -> str:
    """A p value, of which nobody reads the hundredth power of ten."""
    return "–" if pd.isna(p) else p_equals(p).removeprefix("p ").removeprefix("= ")


def verdict(judgements: Mapping[str, list[Judgement]]) -> str:
    """Each claim's fate on each data set in a line of Markdown: on average over its domains where there are several."""
    lines = []
    for name, each in judgements.items():
        lines += [f"- {name}: {j.claim.text}: **{j.outcome}** ({j.lead})" for j in _final(each)]
    return "\n".join(lines)


def counted(judgements: list[Judgement]) -> str:
    """How many claims hold, are open and do not hold, on average over their domains."""
    final = _final(judgements)
    words = {HOLDS: ("holds", "hold"), OPEN: ("is open", "are open"), REVERSED: ("does not hold", "do not hold")}
    numbers = {outcome: sum(j.outcome == outcome for j in final) for outcome in words}
    return ", ".join(f"{n} {words[outcome][n != 1]}" for outcome, n in numbers.items())


def _final(judgements: list[Judgement]) -> list[Judgement]:
    """One of each claim: that of the average, which comes last, where there are several."""
    return list({j.claim.text: j for j in judgements}.values())
