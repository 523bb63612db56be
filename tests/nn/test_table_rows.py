"""Tables drawn a block of rows at a time, or only in part, hold the numbers that are drawn at once."""

from __future__ import annotations

import pytest
import torch

from adi_lite.models.config import ModelConfig
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn import embedding
from adi_lite.nn.embedding import HISTORY, Table, draw_rows, module_key, whole_table
from adi_lite.nn.sharded_embedding import share


def at_once(rows: int, width: int, std: float) -> torch.Tensor:
    weight = torch.randn(rows, width) * std
    weight[0] = 0
    return weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 3, 4, 8, 13, 16])
@pytest.mark.parametrize("rows", [1, 2, 5, 15, 16, 17, 33, 100, 1001])
def test_blocks_give_the_bits_of_one_draw(monkeypatch, rows, width, dtype):
    """Also below 16 numbers, with a rest, and after an odd count of numbers; what is drawn next is the same too."""
    monkeypatch.setattr(embedding, "BLOCK", 64)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        for skipped in (0, 5, 17):
            torch.manual_seed(rows)
            torch.randn(skipped)
            expected, after = at_once(rows, width, 0.1), torch.randn(7)
            for world in (1, 2, 3, 7):
                parts = []
                for rank in range(world):
                    torch.manual_seed(rows)
                    torch.randn(skipped)
                    own = share(rows, rank, world)
                    parts.append(torch.zeros(own.stop - own.start, width))
                    draw_rows(parts[-1], own, rows, 0.1)
                    assert torch.equal(torch.randn(7), after)
                assert torch.equal(torch.cat(parts), expected)
    finally:
        torch.set_default_dtype(before)


def test_the_real_block_too():
    torch.manual_seed(1)
    expected = at_once(embedding.BLOCK // 8 + 3, 20, 0.3)
    torch.manual_seed(1)
    assert torch.equal(whole_table(embedding.BLOCK // 8 + 3, 20, 0.3, False).weight, expected)
    assert embedding.BLOCK % 16 == 0


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_parts_is_the_whole_model_cut(make_tiny, monkeypatch, tied):
    """With networks after the tables, a shared table, and the items' bias; sizes are those of the whole."""
    monkeypatch.setattr(embedding, "BLOCK", 32)
    data, config = make_tiny(rich=True), ModelConfig(dim=5, out_dim=8, hidden=(8,), tie_history=tied)

    def made(rank: int, world: int) -> TwoTower:
        def part(rows: int, width: int, std: float, sparse: bool) -> Table:
            own = share(rows, rank, world)
            weight = torch.zeros(own.stop - own.start, width)
            draw_rows(weight, own, rows, std)
            table = Table.from_pretrained(weight, freeze=False, sparse=sparse)
            table.num_embeddings = rows
            return table

        torch.manual_seed(3)
        return TwoTower(config, data.schema, data.num_items, table=part)

    torch.manual_seed(3)
    whole, parts = TwoTower(config, data.schema, data.num_items), [made(r, 3) for r in range(3)]
    cut = {f"{n}.weight" for n, m in whole.named_modules(remove_duplicate=False) if isinstance(m, Table)}
    assert "bias.weight" in cut and f"user.embedding.tables.{HISTORY}.weight" in cut
    for name, value in whole.state_dict().items():
        found = [p.state_dict()[name] for p in parts]
        assert torch.equal(torch.cat(found) if name in cut else found[0], value), name
    assert all(p.num_parameters() == whole.num_parameters() for p in parts)
    tables = parts[0].item.embedding.tables
    assert (parts[0].user.embedding.tables[HISTORY] is tables[module_key("item_id")]) == tied
