"""Evaluate a scorer on a split: within candidate lists, or over the whole catalogue of each domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset, Ragged
from adi_lite.evaluation.queries import Queries, columns_of
from adi_lite.evaluation.ranking import Ranking, count_ranks, mrr, ndcg_at_k, recall_at_k
from adi_lite.evaluation.results import Evaluation
from adi_lite.evaluation.scorer import Scorer, prepared

__all__ = ["Evaluation", "Ranking", "Scorer", "evaluate", "mrr", "ndcg_at_k", "recall_at_k"]

_BYTES_A_SCORE = 8  # float32, and room for comparisons
_USERS = 4096
"""Users that a scorer prepares at a time."""


@torch.no_grad()
def evaluate(
    scorer: Scorer,
    dataset: MultiDomainDataset,
    split: str = "test",
    protocol: Literal["candidates", "corpus"] = "candidates",
    ks: Sequence[int] = (10,),
    exclude_seen: bool = True,
    *,
    max_bytes: int = 32 << 20,
) -> Evaluation:
    """Recall@k, NDCG@k and MRR of every query of a split; a query is a pair (user, domain).

    "candidates" ranks within ``dataset.candidates[split]``, lists as they are. An item of a list that is not in its
    domain's catalogue has no score: it ranks below every item of the catalogue, in one tie with others of its kind.
    "corpus" ranks the domain's whole catalogue. There, ``exclude_seen`` leaves out the items that the user took in that
    domain in an earlier split (training; for the test, validation too), except the query's own positives, so that
    something taken again can be found. Positives outside the catalogue are misses.

    All positives of a query compete for the same k places, as on a list that is shown. A record that occurs twice
    counts once.

    Args:
        scorer: scores of a domain's catalogue; see :class:`~adi_lite.evaluation.scorer.Scorer`.
        dataset: split, catalogues and candidate lists.
        split: "valid" or "test" ("train" ranks what a model was fitted on, with nothing left out).
        ks: cutoffs of recall and NDCG.
        max_bytes: bound on the memory of scores held at a time (one query at a time where its scores alone take more).

    Raises:
        ValueError: an unknown protocol, an empty split, missing candidate lists, a positive that is not in its list, or
            a scorer that returns NaN or another shape; the message names the user and the domain.
    """
    if protocol not in ("candidates", "corpus"):
        raise ValueError(f"unknown protocol {protocol!r}; known are 'candidates' and 'corpus'")
    queries = Queries.of(dataset, split)
    lists = queries.candidates() if protocol == "candidates" else None
    seen = queries.seen() if protocol == "corpus" and exclude_seen else None
    places = Ragged(torch.arange(len(queries.positives.values)), queries.positives.offsets)
    greater, ties = torch.zeros_like(places.values), torch.zeros_like(places.values)
    for domain, part, scores in _scores(scorer, queries, max_bytes):
        at = places.take(part)
        row, item, catalogue = at.row_of_value(), queries.positives.values[at.values], dataset.catalogues[domain]
        if lists is not None:
            _check_listed(queries, part, lists[part], row, item)
            greater[at.values], ties[at.values] = _rank_in_lists(scores, catalogue, row, item, lists[part])
        else:
            left_out = None if seen is None else seen.take(part)
            greater[at.values], ties[at.values] = _rank_in_catalogue(scores, catalogue, row, item, left_out)
    ranking = Ranking(places.row_of_value().numpy(), greater.numpy(), ties.numpy(), len(queries))
    return Evaluation(
        dataset=dataset.name,
        domains=dataset.domains,
        split=split,
        protocol=protocol,
        exclude_seen=seen is not None,
        domain=queries.domain.numpy(),
        user=queries.user.numpy(),
        num_positives=ranking.num_positives(),
        metrics={
            **{f"recall@{k}": recall_at_k(ranking, k) for k in ks},
            **{f"ndcg@{k}": ndcg_at_k(ranking, k) for k in ks},
            "mrr": mrr(ranking),
        },
        skipped=queries.skipped(),
        unreachable=queries.unreachable(),
        outside=0 if lists is None else queries.outside(lists),
    )


def _rank_in_lists(
    scores: Tensor, catalogue: Tensor, row: Tensor, item: Tensor, lists: Tensor
) -> tuple[Tensor, Tensor]:
    """Ranks of positives ``item`` (p,) of queries ``row`` (p,) within their ``lists`` (n, c) by ``scores`` (n, N)."""
    column, inside = columns_of(lists, catalogue)
    listed = scores.gather(1, column.to(scores.device)).clamp_min(torch.finfo(scores.dtype).min)
    listed.masked_fill_(~inside.to(scores.device), -torch.inf)
    place = (lists[row] == item[:, None]).int().argmax(1)
    row, place = row.to(scores.device), place.to(scores.device)
    greater, ties = count_ranks(listed, row, listed[row, place])
    return greater.cpu(), ties.cpu()


def _rank_in_catalogue(
    scores: Tensor, catalogue: Tensor, row: Tensor, item: Tensor, left_out: Ragged | None
) -> tuple[Tensor, Tensor]:
    """Ranks within the whole catalogue, without the items of ``left_out`` (n rows); (0, 0) for a positive outside it."""
    greater, ties = torch.zeros_like(row), torch.zeros_like(row)
    column, inside = columns_of(item, catalogue)
    hidden = None
    if left_out is not None:
        hidden_row, (hidden_column, there) = left_out.row_of_value(), columns_of(left_out.values, catalogue)
        hidden_row = hidden_row[there].to(scores.device)
        hidden = hidden_row, scores[hidden_row, hidden_column[there].to(scores.device)]
    ranked = row[inside].to(scores.device)
    counts = count_ranks(scores, ranked, scores[ranked, column[inside].to(scores.device)], hidden)
    greater[inside], ties[inside] = counts[0].cpu(), counts[1].cpu()
    return greater, ties


def _scores(scorer: Scorer, queries: Queries, max_bytes: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Domain, query numbers (n,) and scores (n, N), a piece at a time."""
    for domain, group in queries.groups(_USERS):
        of_slice = prepared(scorer, queries.user[group], domain)
        size = max(1, max_bytes // (len(queries.dataset.catalogues[domain]) * _BYTES_A_SCORE))
        for start in range(0, len(group), size):
            own = slice(start, start + size)
            yield domain, group[own], _checked(of_slice(own), queries, group[own], domain)


def _checked(scores: Tensor, queries: Queries, part: Tensor, domain: int) -> Tensor:
    """``scores`` of the queries ``part``, if they are what a scorer has to give."""
    name, want = queries.dataset.domains[domain], (len(part), len(queries.dataset.catalogues[domain]))
    if tuple(scores.shape) != want or not scores.is_floating_point():
        raise ValueError(
            f"domain {name!r}: the scorer returned {tuple(scores.shape)} {scores.dtype}, expected floats of shape "
            f"{want} (queries, items of the catalogue)"
        )
    if bool(scores.sum().isnan()) and bool((bad := scores.isnan().any(1)).any()):  # the sum is ten times cheaper
        raise ValueError(f"the scorer returned NaN for {queries.name(int(part[bad.nonzero()[0, 0].cpu()]))}")
    return scores


def _check_listed(queries: Queries, part: Tensor, lists: Tensor, row: Tensor, item: Tensor) -> None:
    missing = ~(lists[row] == item[:, None]).any(1)
    if bool(missing.any()):
        p = int(missing.nonzero()[0, 0])
        raise ValueError(
            f"the candidate list of {queries.name(int(part[row[p]]))} lacks the positive item "
            f"{queries.dataset.item_ids[int(item[p])]}"
        )
