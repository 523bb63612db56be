"""The schema that a person writes: which columns are features, and of what kind. Read from and written to YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from adi_lite.data.defects import Report
from adi_lite.data.schema import FeatureKind

Name = Annotated[str, StringConstraints(min_length=1, max_length=256, strict=True)]


class FeatureSpec(BaseModel):
    """How to read one feature.

    Attributes:
        kind: ``categorical`` (one value a row), ``bag`` (a list of values) or ``dense`` (a number, or a list of numbers
            of one length).
        per_domain: the feature has a value for each domain, in columns ``name@domain`` or in a long table with a
            column ``domain``.
        table: name of the embedding table; features of one side that name the same table share it and its vocabulary.
        separator: what separates the values of a bag within a cell of text.
        min_count: a value that fewer training users (or items) have is unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FeatureKind
    per_domain: bool = False
    table: Name | None = None
    separator: Annotated[str, StringConstraints(min_length=1, max_length=8)] = "|"
    min_count: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _dense_has_no_table(self) -> FeatureSpec:
        if self.kind == "dense" and (self.table is not None or self.min_count > 1):
            raise ValueError("a dense feature has neither a table nor a min_count: remove them, or name another kind")
        return self


class TableSchema(BaseModel):
    """Which domains there are, and which columns of the users' and the items' table are features.

    Attributes:
        version: of this format.
        domains: names in the order of their numbers; without it, the sorted names that the interactions hold.
        history: whether a user's past items are a feature.
        user_id, item_id: whether the ids themselves are features, known for those of the training part.
        users, items: features by name. Columns that are not listed are left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    domains: list[Name] | None = Field(None, min_length=1)
    history: bool = True
    user_id: bool = True
    item_id: bool = True
    users: dict[Name, FeatureSpec] = Field(default_factory=dict)
    items: dict[Name, FeatureSpec] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_are_free(self) -> TableSchema:
        if self.domains is not None and len(set(self.domains)) < len(self.domains):
            twice = sorted({d for d in self.domains if self.domains.count(d) > 1})
            raise ValueError(f"domains must be unique; these occur more than once: {', '.join(twice)}")
        for side, reserved in (("users", USER_COLUMNS), ("items", ITEM_COLUMNS)):
            features = getattr(self, side)
            if taken := sorted(set(features) & reserved):
                raise ValueError(f"{side}: {', '.join(taken)} may not be a feature, the name has a meaning of its own")
            if wrong := sorted(name for name in features if "@" in name):
                raise ValueError(f"{side}: {wrong[0]!r}: list the name before the @ once, with per_domain: true")
            tables = {spec.table for spec in features.values() if spec.table is not None}
            if clash := sorted(tables & {f"{side[:-1]}_id"}):
                raise ValueError(f"{side}: no table may be called {clash[0]!r}, the ids have it")
        return self

    def to_yaml(self) -> str:
        """The schema as YAML text, without what is at its default."""
        raw = {"version": self.version} | self.model_dump(exclude_defaults=True)
        return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=120)

    @classmethod
    def from_yaml(cls, text: str) -> TableSchema:
        """Read a schema.

        Raises:
            ValueError: not YAML, or not a schema; the message says where.
        """
        report = Report()
        schema = _parse(text, "schema", report)
        report.raise_errors()
        return schema


USER_COLUMNS = frozenset({"user_id", "domain", "history"})
ITEM_COLUMNS = frozenset({"item_id", "domain", "domains"})
"""Columns of the users' and the items' table that are not features."""


def read_schema_file(path: Path, report: Report) -> TableSchema | None:
    """Read ``schema.yaml``; every defect goes to ``report``, and then the result is ``None``."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        report.add("error", path.name, "", f"cannot be read ({error.strerror})", "check the file and its rights")
    except UnicodeDecodeError as error:
        report.add("error", path.name, "", f"is not UTF-8 text, first at byte {error.start}", "save it as UTF-8")
    else:
        return _parse(text, path.name, report)
    return None


def _parse(text: str, file: str, report: Report) -> TableSchema | None:
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        report.add(
            "error", file, "", f"is not YAML{where}: {getattr(error, 'problem', None) or error}", "correct the line"
        )
        return None
    if not isinstance(raw, dict):
        report.add(
            "error",
            file,
            "",
            "is not a mapping",
            "start with 'version: 1', then domains, users, items as the docs show",
        )
        return None
    try:
        return TableSchema.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(map(str, problem["loc"]))
            report.add("error", file, where, problem["msg"].removeprefix("Value error, "), "correct the entry")
        return None


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML takes the last of two equal keys without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key.value, str) else False:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(key.value if isinstance(key.value, str) else id(key))
        return super().construct_mapping(node, deep)
