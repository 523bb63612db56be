"""The files that describe the environment agree with each other, and with the environment that runs the tests."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import adi_lite

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
DIRECT = [
    Requirement(line)
    for line in (
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(line for extra in EXTRAS.values() for line in extra),
    )
]


def locked() -> dict[str, Version]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#"]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;+]+)", line) for line in lines]
    assert all(pins), f"not a plain pin: {[line for line, pin in zip(lines, pins, strict=True) if not pin]}"
    names = [canonicalize_name(pin[1]) for pin in pins]
    assert len(set(names)) == len(names), "a package is pinned twice"
    assert names == sorted(names), "the pins are not sorted"
    return {name: Version(pin[2]) for name, pin in zip(names, pins, strict=True)}


LOCK = locked()


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_every_direct_dependency_is_pinned_to_a_version_that_it_allows(requirement):
    name = canonicalize_name(requirement.name)
    assert name in LOCK, f"{requirement.name} is in pyproject.toml but not in requirements.lock"
    assert requirement.specifier.contains(LOCK[name], prereleases=True)


def test_environment_yml_takes_its_pins_from_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["project"]["name"]
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.lock", "-e ."]}]
    assert Version("3.11") in Requirement(f"python{PROJECT['project']['requires-python']}").specifier


def test_what_is_installed_is_what_is_locked():
    installed = {canonicalize_name(d.name): Version(d.version).public for d in importlib.metadata.distributions()}
    assert {name: installed.get(name, "absent") for name in LOCK} == {n: v.public for n, v in LOCK.items()}


def test_the_lock_holds_what_the_project_needs_and_nothing_else():
    needed, todo = set(), list(DIRECT)
    while todo:
        requirement = todo.pop()
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if key in needed:
            continue
        needed.add(key)
        for line in importlib.metadata.requires(requirement.name) or []:
            sub = Requirement(line)
            wanted = [{"extra": ""}, *({"extra": extra} for extra in requirement.extras)]
            if sub.marker is None or any(sub.marker.evaluate(extra) for extra in wanted):
                todo.append(sub)
    names = {name for name, _ in needed}
    assert names - set(LOCK) <= {"pip"}
    assert set(LOCK) <= names, "pinned, but nothing asks for it"


def test_the_library_imports_only_what_pyproject_names():
    packages = {"yaml": "pyyaml", "faiss": "faiss-cpu"}  # import name -> package, where they differ
    lines = [*PROJECT["project"]["dependencies"], *EXTRAS["export"]]  # the export says what to install where it lacks
    named = {canonicalize_name(Requirement(line).name) for line in lines}
    modules = {name for path in (ROOT / "adi_lite").rglob("*.py") for name in imported(path.read_text())}
    outside = modules - set(sys.stdlib_module_names) - {"adi_lite"}
    assert {"torch", "numpy"} <= outside
    assert {canonicalize_name(packages.get(name, name)) for name in outside} <= named


def imported(source: str) -> set[str]:
    """Top-level names of the modules that a source file imports."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


def test_the_version_is_said_once():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == adi_lite.__version__ == importlib.metadata.version("adi-lite")
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"


def test_the_command_line_is_installed():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="adi-lite")
    assert callable(entry.load())
