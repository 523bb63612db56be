"""What the commands share: options, output, and the reading of arguments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from adi_lite.data.packed import is_packed
from adi_lite.data.registry import DATASETS
from adi_lite.models.registry import NETWORKS
from adi_lite.training.config import Config

# Progress; results go to standard output. Paths and settings are shown as they are, whatever brackets they hold.
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on standard output.")]
Markets = Annotated[str | None, typer.Option(help="Markets of the cross-market data, e.g. s1,s2,s3,t1.")]
Valid = Annotated[float | None, typer.Option(min=0, max=0.9, help="Share of your latest records kept for validation.")]
Test = Annotated[float | None, typer.Option(min=0, max=0.9, help="Share of your latest records kept for the test.")]
OWN = "default"
"""Whose settings tables of one's own start from."""
Changes = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set epochs=5.")]


def show(report: dict, as_json: bool, present: Callable[[], None]) -> None:
    if as_json:
        typer.echo(json.dumps(report))
    else:
        present()


def show_lines(report: dict) -> None:
    for name, value in report.items():
        typer.echo(f"{name}: {value}")


def known(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return name


def options_of(dataset: str, markets: str | None) -> dict:
    if markets is None:
        return {}
    if not dataset.startswith("xmarket"):
        raise ValueError(f"--markets belongs to the cross-market data, not to {dataset!r}")
    return {"markets": words(markets)}


def own_options(folder: Path, valid: float | None, test: float | None, markets: str | None = None) -> dict:
    """Options of :func:`adi_lite.data.packed.load_own`, as given."""
    if markets is not None:
        raise ValueError("--markets belongs to the cross-market data, not to --data")
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; name the one that holds interactions.parquet or interactions.csv")
    given = {name: share for name, share in (("valid", valid), ("test", test)) if share is not None}
    if given and is_packed(folder):
        raise ValueError(
            f"{folder} is packed, and was cut when it was: give --{next(iter(given))} to adi-lite data pack"
        )
    return given


def check_folder_free(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out needs a folder, which is made if it is not there")


def config_of(dataset: str, name: str, method: str, changes: dict) -> Config:
    from adi_lite.experiments.named import named_config

    if method not in NETWORKS:
        raise ValueError(f"unknown model {method!r}; choose {', '.join(NETWORKS)}")
    path = Path(name)
    if not is_file(name):
        return named_config(dataset, name, method, **changes)
    if not path.is_file():
        raise ValueError(f"no configuration file {path}")
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ValueError(f"{path} must hold settings as 'name: value' lines")
    return Config().with_changes(**{"method": method, **settings, **changes})


def is_file(config: str) -> bool:
    """Whether ``--config`` names a file rather than a named configuration."""
    return Path(config).suffix in (".yaml", ".yml")


def changes_of(pairs: list[str]) -> dict:
    changes = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise ValueError(f"--set needs name=value, got {pair!r}")
        if name == "method":
            raise ValueError(f"--set {pair}: a command names its method in an argument of its own")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--set {pair}: {value!r} is no value; write a number, a word or [a, list]") from None
    return changes


def words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


def numbers(text: str) -> tuple[int, ...]:
    found = words(text)
    if not found or not all(w.isdigit() and int(w) > 0 for w in found):
        raise ValueError(f"--k needs positive whole numbers such as 10,50, got {text!r}")
    return tuple(int(w) for w in found)
