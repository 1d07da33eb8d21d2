"""Compare an earlier run into the same folder with the input, to find the cases still to be scored."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.cases.case import Case
from pipeline.cases.inputs import Inputs
from pipeline.cases.signature import input_signature
from pipeline.scoring.sink import Finished


@dataclass(frozen=True)
class Resumption:
    """Committed cases compared with the present input.

    Attributes:
        finished: committed cases by case_id.
        changed: scored cases whose input looks different now, or is another one.
        mended: rejected cases of which the same is true; they are always tried again.
        gone: committed cases that the input no longer names.
    """

    finished: dict[str, Finished]
    changed: frozenset[str] = field(default_factory=frozenset)
    mended: frozenset[str] = field(default_factory=frozenset)
    gone: frozenset[str] = field(default_factory=frozenset)

    def unfinished(self, cases: Iterable[Case]) -> Iterator[Case]:
        """The cases that are still to be scored."""
        for case in cases:
            done = self.finished.get(case.case_id)
            if done is None or not done.kept or case.case_id in self.changed or case.case_id in self.mended:
                yield case


def compare_with_input(inputs: Inputs, finished: dict[str, Finished], covariates: Collection[str] = ()) -> Resumption:
    """Compare the signature of every committed case's input; nothing is opened."""
    if not finished:
        return Resumption(finished)
    changed: set[str] = set()
    mended: set[str] = set()
    gone = set(finished)
    for case in inputs.cases():
        gone.discard(case.case_id)
        done = finished.get(case.case_id)
        if not done or not done.kept:
            continue
        if not _same_row(case, done, inputs) or done.signature != input_signature(case, covariates):
            (changed if done.scored else mended).add(case.case_id)
    return Resumption(finished, frozenset(changed), frozenset(mended), frozenset(gone))


def _same_row(case: Case, done: Finished, inputs: Inputs) -> bool:
    """Whether a table names the same scan and patient as before.

    Two scans of one size and time have one signature; which of them a row names, the table says. The name is that
    from the input's folder, so a folder that a link leads to may move. One scan on its own has no table.
    """
    if inputs.root is None and case.url is None:
        return True
    return os.path.normpath(case.image) == os.path.normpath(done.image) and case.patient_id == done.patient_id
