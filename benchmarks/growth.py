"""How the cost of training grows: with records, items, shared networks K, domains D and width."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from adi_lite.data.schema import MultiDomainDataset
from benchmarks.learners import library_learner
from benchmarks.measure import interleaved, slope
from benchmarks.steps import Step, library_step, plain_step, settings
from benchmarks.train_speed import Size, synthetic

ROWWISE = {"sparse_embeddings": True, "optimizer": "rowwise_adagrad"}
"""Tables of which a step moves only the rows of its batch."""


def growth_with_records(size: Size, width: int = 64) -> dict[str, object]:
    """Time of a whole epoch of the library's training loop over more and more records."""
    batch = size.batch_sizes[0]
    config = settings(width=width, batch_size=batch, num_negatives=size.num_negatives)

    def sides(records: int) -> dict[str, Step]:
        return {"adi": library_learner(synthetic(3, records=records), config).epoch}

    return _growth(size.records, sides, size.growth_rounds, 1)


def growth_with_items(size: Size, width: int = 64) -> dict[str, object]:
    """A step over more and more items (and half as many users): of dense Adam, which moves every row of every table, and
    of row-wise Adagrad, which moves those of the batch."""
    options = {"width": width, "batch_size": size.batch_sizes[0], "num_negatives": size.num_negatives}

    def sides(items: int) -> dict[str, Step]:
        data = synthetic(3, users=max(100, items // 2), items=items)
        return {
            "adi": library_step(data, settings(**options)),
            "adi_rowwise": library_step(data, settings(**options, **ROWWISE)),
        }

    return _growth(size.items, sides, size.growth_rounds, max(1, size.steps - 1))


def growth_with_shared(data: MultiDomainDataset, size: Size, width: int = 64) -> dict[str, object]:
    """ADI and the baseline with more and more shared networks, all networks of one size."""
    options = {"width": width, "batch_size": size.batch_sizes[0], "num_negatives": size.num_negatives}

    def sides(shared: int) -> dict[str, Step]:
        config = settings(num_shared=shared, equal_size=False, **options)
        return {"adi": library_step(data, config), "plain_shared": plain_step(data, config)}

    return _growth(size.shared, sides, size.growth_rounds, max(1, size.steps - 1))


def growth_with_domains(size: Size, width: int = 64, batch_size: int = 1024) -> dict[str, object]:
    """ADI and the baseline at several D, at one total of negatives over all domains: 4 x ``num_negatives``.

    With a fixed number *for each domain*, item rows grow with D whatever the model does; ``adi_fixed_per_domain`` is
    that, at ``num_negatives`` each. ``plain_row`` and ``adi_row`` compare a record with 20 negatives of its own, as
    public code does: the loop sends each of them through the networks of all domains.
    """
    options = {"width": width, "batch_size": min(batch_size, size.batch_sizes[0])}

    def sides(domains: int) -> dict[str, Step]:
        data = synthetic(domains)
        total = settings(num_negatives=max(1, 4 * size.num_negatives // domains), **options)
        row = settings(num_negatives=20, fixed_negatives=True, **options)
        return {
            "adi": library_step(data, total),
            "plain_shared": plain_step(data, total),
            "plain_row": plain_step(data, total, "row"),
            "adi_row": library_step(data, row),
            "adi_fixed_per_domain": library_step(data, settings(num_negatives=size.num_negatives, **options)),
        }

    return _growth(size.domains, sides, size.growth_rounds, max(1, size.steps - 1))


def growth_with_width(data: MultiDomainDataset, size: Size) -> dict[str, object]:
    """ADI and the baseline at several widths (fields, hidden layer and vectors alike)."""

    def sides(width: int) -> dict[str, Step]:
        config = settings(width=width, batch_size=size.batch_sizes[0], num_negatives=size.num_negatives)
        return {"adi": library_step(data, config), "plain_shared": plain_step(data, config)}

    return _growth(size.widths, sides, size.growth_rounds, max(1, size.steps - 1))


def _growth(
    at: Sequence[int], sides: Callable[[int], Mapping[str, Step]], rounds: int, steps_a_round: int
) -> dict[str, object]:
    """Time of each side at each size, and the slope of its processor time."""
    if len(at) < 2:
        raise ValueError(f"growth needs two sizes, got {tuple(at)}")
    points = {}
    for x in at:
        timings = interleaved(sides(x), rounds=rounds, steps_a_round=steps_a_round, warm_up=1)
        points[str(x)] = {name: t.summary(timings["adi"]) for name, t in timings.items()}
    names = list(next(iter(points.values())))
    cost = {n: [p[n]["cpu_ms_per_step"] for p in points.values()] for n in names}
    return {"points": points, "slope_of_cpu_time": {n: round(slope(list(at), c), 3) for n, c in cost.items()}}
