"""What many tests share: small data sets, one random with features of every kind, one whose answers are known; commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from small_worlds import domain_checkerboard, tiny

from adi_lite import cli
from adi_lite.data.schema import MultiDomainDataset


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    """Every test draws the same numbers whichever tests ran before it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def make_tiny() -> Callable[..., MultiDomainDataset]:
    return tiny


@pytest.fixture
def make_checkerboard() -> Callable[..., MultiDomainDataset]:
    return domain_checkerboard


@pytest.fixture
def adi(monkeypatch, capsys):
    """Runs a command in this process, through the entry point; gives status, standard output and standard error."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["adi-lite", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = stop.code or 0
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def ok(adi):
    """A command with --json that must succeed: its object, the only thing on standard output."""

    def call(*words):
        status, out, err = adi(*words, "--json")
        assert status == 0, err
        assert out.count("\n") == 1, "one line"
        return json.loads(out, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))

    return call


@pytest.fixture
def refused(adi):
    """A command that must fail: its one sentence on standard error."""

    def call(*words):
        status, out, err = adi(*words)
        lines = err.strip().splitlines()
        assert status == 2, (status, out, err)
        assert out == ""
        assert lines[-1].startswith("error: ") and len(lines[-1]) > len("error: ")
        assert not any(line.startswith("error") for line in lines[:-1])
        assert "Traceback" not in err
        return lines[-1]

    return call
