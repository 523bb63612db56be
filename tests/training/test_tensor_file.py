"""Files written block by block are those of the safetensors library."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from adi_lite.training import tensor_file
from adi_lite.training.tensor_file import TYPES, Blocks, blocks_of, in_order, write


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    kinds = {name: torch.randint(0, 2, (3, 5), generator=generator).to(t) for name, t in TYPES.items()}
    odd = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 7), "turned": torch.randn(4, 3, generator=generator).T}
    return {**kinds, **odd, "räume": torch.randn(101, 3, generator=generator)}


@pytest.mark.parametrize("block", [8, 64, 2**24])
def test_the_library_reads_every_type_and_shape(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tensor_file, "BLOCK_BYTES", block)
    write(tmp_path / "x", {n: blocks_of(t) for n, t in tensors().items()}, {"note": "ä"})
    found = load_file(tmp_path / "x")
    assert found.keys() == tensors().keys()
    for name, t in tensors().items():
        assert found[name].dtype == t.dtype and found[name].shape == t.shape and torch.equal(found[name], t), name
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"note": "ä"}
    assert int.from_bytes((tmp_path / "x").read_bytes()[:8], "little") % 8 == 0


def test_blocks_are_views_and_wide_types_come_first():
    big = torch.arange(2 * tensor_file.BLOCK_BYTES // 8).view(-1, 2)
    parts = list(blocks_of(big).blocks)
    assert len(parts) == 2 and parts[0].data_ptr() == big.data_ptr()
    some = {n: blocks_of(t) for n, t in tensors().items()}
    widths = [some[n].dtype.itemsize for n in in_order(some)]
    assert widths == sorted(widths, reverse=True)


def test_what_cannot_be_written_is_told(tmp_path):
    with pytest.raises(ValueError, match="z is of torch.complex64"):
        write(tmp_path / "x", {"z": blocks_of(torch.zeros(2, dtype=torch.complex64))}, {})
    with pytest.raises(ValueError, match="short has 8 bytes, its shape 12"):
        write(tmp_path / "x", {"short": Blocks(torch.float32, (3,), [torch.zeros(2)])}, {})
