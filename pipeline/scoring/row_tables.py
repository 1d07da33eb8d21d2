"""Protocols of the sink for rows and their tables: score rows, or the rows of a search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa


class SinkRow(Protocol):
    """A row of the sink: its case, its result, the signature of its input, and its measures."""

    @property
    def case_id(self) -> str: ...  # noqa: D102  # see the class
    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def signature(self) -> str: ...  # noqa: D102
    @property
    def measures(self) -> Mapping[str, float]: ...  # noqa: D102


SinkRowT_contra = TypeVar("SinkRowT_contra", bound=SinkRow, contravariant=True)
SinkRowT = TypeVar("SinkRowT", bound=SinkRow)


class RowTables(Protocol[SinkRowT_contra]):
    """How rows become tables; among the columns are ``case_id, image, patient_id, status, code``."""

    @property
    def columns(self) -> pa.Schema:
        """Of the parts."""
        ...

    def part(self, rows: Sequence[SinkRowT_contra]) -> pa.Table:
        """Rows in these columns."""
        ...

    def write(self, parts: Iterable[pa.Table], folder: Path) -> None:
        """Write the final tables of a run from all parts."""
        ...


class Header(Protocol):
    """Common properties of all rows of an output folder: a dataclass of JSON values and `ModelIdentity`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
