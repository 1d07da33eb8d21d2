"""Compare a table's kind of truth with a model's: histology or opinion, real or simulated intensities.

A table states it in the file beside it or in columns (`pipeline.cases.table_facts`); one that states nothing passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cases.table_facts import TableFacts
from pipeline.cases.tables.table import most_common


@dataclass(frozen=True)
class TruthDifferences:
    """Differences of a table's cases from a model's training cases; None where there are none, or nothing is known.

    Attributes:
        intensities: simulated against real, or a mix of both.
        labels: another label source, or several.
    """

    intensities: str | None = None
    labels: str | None = None

    @property
    def lines(self) -> list[str]:
        """Both, where there are any."""
        return [line for line in (self.intensities, self.labels) if line]


def truth_differences(
    facts: TableFacts, *, label_source: str, intensities: str, of: str = "the model"
) -> TruthDifferences:
    """Compare a table with a model or a configuration.

    Args:
        facts: of the table.
        label_source: whose opinion or which test the other's labels are.
        intensities: ``real`` or ``simulated``.
        of: name of the other.
    """
    found_intensities = found_labels = None
    if set(facts.intensities) - {intensities}:
        found_intensities = f"intensities of the cases: {most_common(facts.intensities)}; of {of}: {intensities}"
    if {_plain(source) for source in facts.label_sources} - {_plain(label_source)}:
        found_labels = f"labels of the cases: {most_common(facts.label_sources)}; of {of}: {label_source}"
    return TruthDifferences(found_intensities, found_labels)


def _plain(source: str) -> str:
    return " ".join(source.casefold().split())
