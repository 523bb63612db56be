"""Each reference against a slow, plain computation or an independent implementation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from evaluation_worlds import Fixed, random_world, records, world
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from adi_lite.data.schema import Interactions
from adi_lite.evaluation.metrics import Scorer, evaluate
from adi_lite.evaluation.records import domain_matrix, pooled_matrix
from adi_lite.evaluation.reference import EASE, IALS, ItemKNN, PerDomain, Popularity

METHODS = [
    Popularity(),
    ItemKNN(),
    ItemKNN(3, 1.0),
    EASE(2.0),
    IALS(width=4),
    ItemKNN(pooled=True),
    EASE(2.0, pooled=True),
]


def dense(seed: int, users: int = 30, items: int = 12, density: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).random((users, items)) < density).astype(np.float32)


def plain_matrix(data, domain=None):
    """Records in a dense matrix, filled one by one."""
    columns = data.catalogues[domain].tolist() if domain is not None else list(range(data.num_items))
    matrix = np.zeros((data.num_users, len(columns)))
    for u, i, d in zip(*(c.tolist() for c in (data.train.user, data.train.item, data.train.domain)), strict=True):
        if domain in (None, d) and i in columns:
            matrix[u, columns.index(i)] = 1
    return matrix


def test_matrices_hold_the_records_once():
    data = random_world(0)
    data = data.replace(catalogues=(torch.arange(0, 15), data.catalogues[1]))  # some records fall outside
    data = data.replace(train=Interactions.concat([data.train, data.train]))
    for d in range(2):
        np.testing.assert_array_equal(domain_matrix(data, d).toarray(), plain_matrix(data, d))
    np.testing.assert_array_equal(pooled_matrix(data).toarray(), plain_matrix(data))


def test_popularity_counts_users_of_the_domain():
    data = random_world(1)
    scorer = Popularity().fit(data)
    for d in range(2):
        want = plain_matrix(data, d).sum(0)
        np.testing.assert_array_equal(scorer.scores(torch.tensor([0, 5]), d), np.stack([want, want]))


@pytest.mark.parametrize("seed", range(3))
def test_itemknn_similarity_is_scikit_learns_cosine(seed):
    matrix = dense(seed)
    want = cosine_similarity(matrix.T)
    np.fill_diagonal(want, 0)
    got = ItemKNN().weights(sp.csr_array(matrix)).toarray()
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_itemknn_keeps_the_nearest_of_each_scored_item_and_shrinks():
    matrix, shrinkage, k = dense(3).astype(np.float64), 2.5, 4
    norm = np.sqrt(matrix.sum(0))
    want = np.zeros((12, 12))
    for j in range(12):
        near = {i: matrix[:, i] @ matrix[:, j] / (norm[i] * norm[j] + shrinkage) for i in range(12) if i != j}
        for i in sorted(near, key=near.get, reverse=True)[:k]:
            want[i, j] = near[i]
    got = ItemKNN(k, shrinkage).weights(sp.csr_array(matrix)).toarray()
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert ((got > 0).sum(0) == k).all()


@pytest.mark.parametrize("regularization", [0.5, 20.0])
def test_ease_is_a_ridge_regression_of_each_column_on_the_others(regularization):
    matrix = dense(4).astype(np.float64)
    matrix[:, 5] = 0  # an item that nobody took
    got = EASE(regularization).weights(sp.csr_array(matrix.astype(np.float32)))
    for j in range(12):
        others = [i for i in range(12) if i != j]
        ridge = Ridge(alpha=regularization, fit_intercept=False, solver="cholesky").fit(matrix[:, others], matrix[:, j])
        np.testing.assert_allclose(got[others, j], ridge.coef_, atol=1e-5)
        assert got[j, j] == 0


def test_ease_of_more_items_than_a_block():
    matrix = dense(5, users=200, items=1300, density=0.05)
    got = EASE(3.0).weights(sp.csr_array(matrix))
    inverse = np.linalg.inv(matrix.T.astype(np.float64) @ matrix + 3 * np.eye(1300))
    want = -inverse / np.diag(inverse)
    np.fill_diagonal(want, 0)
    np.testing.assert_allclose(got, want, atol=1e-5)


def plain_objective(model: IALS, matrix: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    fit = users @ items.T
    a, v = model.unobserved_weight, model.frequency_exponent
    by_user = (matrix.sum(1) + a * matrix.shape[1]) ** v @ (users**2).sum(1)
    by_item = (matrix.sum(0) + a * matrix.shape[0]) ** v @ (items**2).sum(1)
    return float((matrix * (fit - 1) ** 2).sum() + a * (fit**2).sum() + model.regularization * (by_user + by_item))


@pytest.mark.parametrize(("width", "exponent"), [(3, 1.0), (3, 0.5), (40, 1.0)])
def test_ials_solve_is_the_plain_ridge_of_each_row(width, exponent):
    """Rows are both longer (width 3) and shorter (width 40) than the vectors: both ways of solving."""
    matrix = dense(6)
    matrix[2] = 0
    model = IALS(width=width, unobserved_weight=0.2, regularization=0.05, frequency_exponent=exponent)
    items = np.random.default_rng(0).normal(size=(12, width))
    got = model.solve(sp.csr_array(matrix), torch.from_numpy(items).float())
    for u in range(30):
        normal = 0.2 * items.T @ items + 0.05 * (matrix[u].sum() + 0.2 * 12) ** exponent * np.eye(width)
        right = np.zeros(width)
        for i in np.flatnonzero(matrix[u]):
            normal += np.outer(items[i], items[i])
            right += items[i]
        np.testing.assert_allclose(got[u], np.linalg.solve(normal, right), atol=1e-4)


def test_ials_ends_at_a_stationary_point_of_its_objective():
    matrix = dense(7).astype(np.float64)
    few, many = IALS(width=4, iterations=1), IALS(width=4, iterations=300)
    values = []
    for model in (few, many):
        users, items = (x.double() for x in model.factorize(sp.csr_array(matrix.astype(np.float32))))
        values.append(plain_objective(model, matrix, users.numpy(), items.numpy()))
    assert values[1] < values[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = [1e-3 * rng.normal(size=x.shape) for x in (users, items)]
        moved = plain_objective(many, matrix, users.numpy() + step[0], items.numpy() + step[1])
        assert moved > values[1] - 1e-6


def test_ials_same_seed_same_vectors():
    data = random_world(2)
    a, b, c = (IALS(width=4, seed=s).fit(data).scores(torch.arange(9), 0) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_every_reference_scores_the_catalogue(method):
    data = random_world(3)
    scorer = method.fit(data)
    assert isinstance(scorer, Scorer)
    users = torch.tensor([7, 0, 7])
    for d in range(2):
        scores = scorer.scores(users, d)
        assert scores.shape == (3, len(data.catalogues[d]))
        assert scores.dtype == torch.float32
        assert torch.equal(scores[0], scores[2])
    assert evaluate(scorer, data, protocol="corpus").counted > 0


def test_domains_do_not_mix_unless_pooled():
    """Items 0 and 1 go together in domain 1 only; user 0 took item 0 in domain 0."""
    data = world(
        records((0, 0, 0), (1, 2, 0), *((u, i, 1) for u in (2, 3) for i in (0, 1))),
        records((0, 1, 0)),
        num_users=4,
        num_items=3,
        catalogues=(torch.arange(3), torch.arange(3)),
    )
    for method, pooled in ((ItemKNN(), ItemKNN(pooled=True)), (EASE(1.0), EASE(1.0, pooled=True))):
        own, shared = (m.fit(data).scores(torch.tensor([0]), 0)[0] for m in (method, pooled))
        assert own[1] == 0
        assert shared[1] > 0.1
        one = PerDomain((pooled, pooled)).fit(data).scores(torch.tensor([0]), 0)[0]
        torch.testing.assert_close(one, shared)


def test_settings_by_domain():
    data = random_world(4)
    scorer = PerDomain((EASE(1.0), EASE(50.0))).fit(data)
    users = torch.arange(5)
    for d, value in enumerate((1.0, 50.0)):
        torch.testing.assert_close(scorer.scores(users, d), EASE(value).fit(data).scores(users, d))
    with pytest.raises(ValueError, match="1 settings for 2 domains"):
        PerDomain((EASE(1.0),)).fit(data)


def test_references_beat_chance_where_there_is_something_to_learn():
    rng = np.random.default_rng(0)
    taste = rng.integers(0, 3, 90)  # three kinds of users, each with ten items of its own
    rows = [(u, int(10 * taste[u] + i), 0) for u in range(90) for i in rng.permutation(10)[:6]]
    train, test = rows[:], []
    for u in range(90):
        test.append(train.pop(next(n for n, r in enumerate(train) if r[0] == u)))
    data = world(records(*train), records(*test), num_users=90, num_items=30, catalogues=(torch.arange(30),))
    chance = evaluate(Fixed(torch.zeros(90, 30), data), data, protocol="corpus", ks=(5,)).average()["recall@5"]
    for method in (ItemKNN(), EASE(5.0), IALS(width=3, regularization=0.1)):
        assert evaluate(method.fit(data), data, protocol="corpus", ks=(5,)).average()["recall@5"] > 3 * chance


def test_bad_settings_are_refused():
    for make, message in (
        (lambda: EASE(0.0), "regularization must be positive, got 0.0"),
        (lambda: ItemKNN(0), "neighbours must be at least 1"),
        (lambda: ItemKNN(shrinkage=-1.0), "shrinkage must not be negative"),
        (lambda: IALS(width=0), "at least 1, got 0 and 16"),
        (lambda: IALS(unobserved_weight=0.0), "must be positive, got 0.0 and"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
