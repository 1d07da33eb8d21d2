"""Rows of text cells of a file, before the header is found."""

from __future__ import annotations

from dataclasses import dataclass

_LOOKED_AT = 30  # rows among which the header is looked for


@dataclass(frozen=True)
class CellGrid:
    """Cells of a file.

    Attributes:
        rows: cells as text, row by row; rows may differ in length.
        row_numbers: of each row, as a person counts them in the file.
        notes: how the file was read, where that was not plain.
    """

    rows: list[list[str]]
    row_numbers: list[int]
    notes: tuple[str, ...] = ()

    def header_row(self) -> int:
        """Index of the header: the first row that fills nearly as many cells as any of the rows after it.

        Titles, dates and notes above a table fill a cell or two; a header names nearly all columns.
        """
        filled = [sum(bool(cell.strip()) for cell in row) for row in self.rows[:_LOOKED_AT]]
        for index, count in enumerate(filled):
            below = filled[index + 1 :]
            if count >= 2 and count >= 0.6 * max(below, default=0):
                return index
        return max(range(len(filled)), key=filled.__getitem__)
