"""Which of several tables in a folder names its scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.cases.intake.columns import guess_columns, join_worth, label_worth
from pipeline.cases.intake.joining import ScanNames
from pipeline.cases.tables.table import Table
from pipeline.errors import Code, TableError, UsageError

_NAMED = 10  # score of a label column whose name contains a word for labels


def choose_table(folder: Path, tables: Sequence[Table], scans: Sequence[ScanNames]) -> Table | None:
    """The table that names the most scans; None when none names any.

    Raises:
        TableError: when two name as many, or another names scans that the chosen one does not.
    """
    ranked = []
    for table in tables:
        try:
            columns = guess_columns(table, scans)
        except UsageError:
            continue
        label = label_worth(columns.label, table.column(columns.label)) if columns.label else 0
        ranked.append(((min(label, _NAMED), *join_worth(columns.join)), columns, table))
    if not ranked:
        return None
    best = max(value for value, _, _ in ranked)
    best_tables = [table for value, _, table in ranked if value == best]
    if len(best_tables) > 1:
        names = ", ".join(table.path.name for table in best_tables)
        raise TableError(
            Code.E_LABEL_COLUMNS,
            folder,
            f"tables {names} speak of as many scans; join them into one, or name one: --table FILE",
        )
    chosen = next(columns for value, columns, _ in ranked if value == best)
    for _, columns, table in ranked:
        missed = columns.join.matched_scans - chosen.join.matched_scans
        if columns.label and chosen.label and missed:
            raise TableError(
                Code.E_LABEL_COLUMNS,
                folder,
                f"table {table.path.name} speaks of {len(missed)} scans that {best_tables[0].path.name} does not; join "
                "them into one, or name one: --table FILE",
            )
    return best_tables[0]
