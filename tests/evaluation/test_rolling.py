"""Hour by hour: what each hour may read, and means over hours, against counting."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from adi_lite.data.globo_sample import globo_sample_hours
from adi_lite.evaluation.metrics import evaluate
from adi_lite.evaluation.recent import RecentPopularity
from adi_lite.evaluation.rolling import evaluate_by_the_hour, over_all_hours


@pytest.fixture(scope="module")
def hours():
    return list(globo_sample_hours(validation=None))


def test_an_hour_against_a_plain_count(hours):
    """Popularity of the last hour: a click is found if fewer than k items had more clicks, ties in expectation."""
    frame = evaluate_by_the_hour({"last hour": RecentPopularity(1).fit}, hours, ks=(5,)).set_index(["start", "domain"])
    data, records = hours[len(hours) // 2]
    start = int(records.timestamp.min()) // 3600 * 3600
    for d, domain in enumerate(data.domains):
        catalogue = data.catalogues[d].tolist()
        clicks = {v: float(data.items["clicks_1h"][v, d, 0]) for v in catalogue}
        recalls = []
        for user in records.user[records.domain == d].unique().tolist():
            own = records.item[(records.domain == d) & (records.user == user)].tolist()
            found = 0.0
            for v in own:
                if v in clicks:
                    more = sum(c > clicks[v] for c in clicks.values())
                    equal = sum(c == clicks[v] for c in clicks.values())
                    found += min(max(5 - more, 0), equal) / equal
            recalls.append(found / len(own))
        if recalls:
            row = frame.loc[(start, domain)]
            assert row["queries"] == len(recalls)
            assert row["recall@5"] == pytest.approx(sum(recalls) / len(recalls), abs=1e-9)


def test_fresh_counts_find_more_than_those_of_midnight(hours):
    """In the drawn log articles live for a day: the last hour's clicks say more than those before midnight."""
    midnight = hours[0][0]

    class Frozen:
        def __init__(self, data):
            self.data = data
            self.scorer = RecentPopularity(24).fit(midnight)

        def scores(self, users, domain):
            catalogue, old = self.data.catalogues[domain], midnight.catalogues[domain]
            scores = torch.full((len(users), len(catalogue)), -1.0)
            place = torch.searchsorted(catalogue, old).clamp(max=len(catalogue) - 1)
            same = catalogue[place] == old
            scores[:, place[same]] = self.scorer.scores(users, domain)[:, same]
            return scores

    frame = evaluate_by_the_hour({"fresh": RecentPopularity(24).fit, "frozen": Frozen}, hours, ks=(20,))
    pooled = over_all_hours(frame)["recall@20"].unstack("method")
    assert pooled["fresh"].mean() > pooled["frozen"].mean()


def test_every_hour_with_records_is_there_and_means_weigh_queries(hours):
    frame = evaluate_by_the_hour({"popularity": RecentPopularity(3).fit}, hours, ks=(10, 50))
    assert frame["start"].nunique() == len(hours) and bool((frame["start"] % 3600 == 0).all())
    own = frame[frame["domain"] == "referrer 2"]
    pooled = over_all_hours(frame).loc[("popularity", "referrer 2")]
    assert pooled["queries"] == own["queries"].sum()
    assert pooled["recall@50"] == pytest.approx((own["recall@50"] * own["queries"]).sum() / own["queries"].sum())
    assert bool((frame["recall@10"] <= frame["recall@50"] + 1e-12).all()) and isinstance(frame, pd.DataFrame)
    data, records = hours[3]
    whole = evaluate(RecentPopularity(3).fit(data), data, "test", "corpus", (10,), False).per_domain()
    now = frame[frame["start"] == int(records.timestamp.min()) // 3600 * 3600].set_index("domain")["recall@10"]
    assert {k: v["recall@10"] for k, v in whole.items()} == pytest.approx(now.to_dict())
