"""Report of a search for lesions, as lines without patients' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.cases.lesions.lesion import counted
from pipeline.cases.lesions.locate import Located

_SHOWN = 3  # of each kind of line


def report_lines(located: Located) -> Iterable[str]:
    """Lines with the lesions by format, those matched, and those not."""
    match = located.match
    files = Counter(file.format for file in located.collected.files)
    marks = Counter(lesion.format for annotations in located.collected.annotations for lesion in annotations.lesions)
    for kind, count in sorted(files.items()):
        yield f"{kind}: {counted(marks[kind], 'lesion')} in {counted(count, 'file')}"
    if not files:
        yield f"no annotation found among {counted(located.collected.others.total(), 'other file')}"
    yield from _some(match.notes, "note", "")
    yield from _some([str(refused) for refused in match.homeless], "annotation", " without an image here")
    refused = [annotation for refusals in match.refused.values() for annotation in refusals]
    yield from _some([str(annotation) for annotation in refused], "annotation", " that cannot be used")
    yield from _some([case.case_id for case in located.without], "image", " without a lesion")
    labels = Counter(lesion.case.image for lesion in located.lesions if lesion.case.label is not None)
    shared = [count for count in labels.values() if count > 1]
    if shared:
        yield (
            f"{sum(shared)} lesions have the label of their row, which has several ({counted(len(shared), 'row')}): "
            "check that it is each one's own"
        )


def _some(lines: Sequence[str], noun: str, rest: str) -> Iterable[str]:
    """The number of lines, and the first of them."""
    if lines:
        yield f"{counted(len(lines), noun)}{rest}{':' if len(lines) <= _SHOWN else f', the first {_SHOWN}:'}"
        yield from (f"  {line}" for line in lines[:_SHOWN])
