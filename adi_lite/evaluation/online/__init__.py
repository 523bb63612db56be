"""A simulated online A/B test (Section 6, Table 9): an auction over what each model retrieves.

The paper's test ran on a live advertising system, which nobody outside can repeat. Here requests, clicks and payments are
drawn from the truth of the simulator. Every figure that comes out of this package is *simulated*, and so is labelled.

1. :func:`draw_requests`: who asks for ads, where and on which day.
2. :func:`run_auctions`: each arm retrieves k items for each request; the same ranking and the same generalised
   second-price auction follow for all arms; clicks come from the true probabilities.
3. :func:`lifts`, :func:`by_day`, :func:`online_tables`: revenue per mille, pay per click and click-through rate.
"""

from adi_lite.evaluation.online.auction import Auction, hold_auction
from adi_lite.evaluation.online.outcomes import Outcomes, assign_arms
from adi_lite.evaluation.online.report import by_day, lifts, online_tables
from adi_lite.evaluation.online.requests import Requests, draw_requests
from adi_lite.evaluation.online.simulate import run_auctions

__all__ = [
    "Auction",
    "Outcomes",
    "Requests",
    "assign_arms",
    "by_day",
    "draw_requests",
    "hold_auction",
    "lifts",
    "online_tables",
    "run_auctions",
]
