"""Facts about a table: whose opinion its labels are, whether its intensities are real, what its words mean.

A file beside the table, with its name and the suffix ``.yaml`` (``manifest.yaml`` beside ``manifest.csv``), or the
columns ``label_source`` and ``intensities``. They warn when a model is evaluated on another kind of truth.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from pipeline.cases.case import Case
from pipeline.config.inputs import FilePath, Section, SourceText, Words
from pipeline.config.plain_yaml import parse_yaml
from pipeline.errors import Code, TableError

SOURCE_COLUMN, INTENSITIES_COLUMN = "label_source", "intensities"
_VALUES = ("real", "simulated")


class FactsFile(Section):
    """The file beside a table."""

    label_source: SourceText | None = Field(None, description="whose opinion or which test the label is")
    intensities: Literal["real", "simulated"] | None = None
    positive_label: Words = Field((), description="words that mean malignant")
    negative_label: Words = Field((), description="words that mean benign; what is neither stays unlabelled")
    images_root: FilePath | None = Field(
        None, description="folder that the images lie in, where that is not the table's; of tables made by this program"
    )


@dataclass(frozen=True)
class TableFacts:
    """What is known of a table's labels and scans.

    Attributes:
        label_sources: labelled cases by whose opinion or which test their label is; empty where it is not stated.
        intensities: cases by ``real`` or ``simulated``; empty where it is not stated.
    """

    label_sources: Mapping[str, int] = field(default_factory=dict)
    intensities: Mapping[str, int] = field(default_factory=dict)


def facts_path(table: Path) -> Path:
    """Where the file about a table lies, when there is one."""
    return table.with_suffix(".yaml")


def read_facts_file(table: Path) -> FactsFile:
    """Read the file beside a table; an empty one when there is none.

    Raises:
        TableError: E_FORMAT, when it is not what it should be.
    """
    path = facts_path(table)
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return FactsFile()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = getattr(error, "problem", None) or type(error).__name__
        raise TableError(Code.E_FORMAT, path, f"cannot be read as YAML ({why}); correct it") from None
    if tree is None:
        return FactsFile()
    if not isinstance(tree, dict):
        raise TableError(Code.E_FORMAT, path, f"holds {type(tree).__name__}, expected label_source and intensities")
    if "preprocessing" in tree:  # a training's configuration that has the table's name
        return FactsFile()
    try:
        return FactsFile.model_validate(tree)
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        names = ", ".join(FactsFile.model_fields)
        raise TableError(
            Code.E_FORMAT, path, f"{key}: {error.errors()[0]['msg'].lower()}; a table's own file holds {names}"
        ) from None


def images_root(table: Path, facts: FactsFile) -> Path:
    """The folder that paths in a table start from and that no image may leave: the table's, or what its file names.

    A table could otherwise reach any file of the user who reads it. So another folder is accepted only where the file
    that names it belongs to the user, and nobody else could have written it.

    Raises:
        TableError: E_PERMISSION, when that is not so.
    """
    if facts.images_root is None:
        return table.resolve().parent
    path = facts_path(table)
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or path.is_symlink():
        raise TableError(
            Code.E_PERMISSION,
            path,
            "names images_root, which is followed only in a file of your own that nobody else may write; "
            "make it yours (chown, chmod 600), or copy the table to its images",
        )
    return facts.images_root.resolve()


def collect_facts(path: Path, facts: FactsFile, cases: Iterable[Case]) -> TableFacts:
    """Count what the columns say of each case, or the file of all of them.

    Raises:
        TableError: E_LABEL_VALUE, for intensities that are neither ``real`` nor ``simulated``.
    """
    sources: Counter[str] = Counter()
    intensities: Counter[str] = Counter()
    for case in cases:
        source = case.extra.get(SOURCE_COLUMN, "").strip() or facts.label_source
        kind = case.extra.get(INTENSITIES_COLUMN, "").strip().lower() or facts.intensities
        if kind is not None and kind not in _VALUES:
            raise TableError(
                Code.E_LABEL_VALUE, path, f"column {INTENSITIES_COLUMN!r} holds {kind!r}, expected real or simulated"
            )
        if source and case.label is not None:
            sources[source] += 1
        if kind:
            intensities[kind] += 1
    return TableFacts(dict(sources), dict(intensities))
