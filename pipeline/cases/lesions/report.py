"""What a search for lesions found, for a person, in lines without patients' data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.cases.lesions.locate import Located

_SHOWN = 3  # of each kind of line


def report_lines(located: Located) -> Iterable[str]:
    """What was found by format, what matched, and what did not, in lines for a person."""
    match = located.match
    files = Counter(file.format for file in located.collected.files)
    marks = Counter(lesion.format for found in located.collected.annotations for lesion in found.lesions)
    for kind, count in sorted(files.items()):
        yield f"{kind}: {marks[kind]} lesions in {count} files"
    if not files:
        yield f"no annotation found among {located.collected.others.total()} other files"
    yield from _some(match.notes, "notes")
    yield from _some([str(refused) for refused in match.homeless], "annotations without an image here")
    refused = [annotation for found in match.refused.values() for annotation in found]
    yield from _some([str(annotation) for annotation in refused], "annotations that cannot be used")
    yield from _some([case.case_id for case in located.without], "images without a lesion")
    if located.shared_labels:
        lesions = sum(count for count in _lesions_by_label(located).values() if count > 1)
        yield (
            f"{located.shared_labels} rows share their label with all of their lesions ({lesions} in all): "
            "check that it is each lesion's own"
        )


def _lesions_by_label(located: Located) -> Counter[str]:
    return Counter(lesion.case.image for lesion in located.lesions if lesion.case.label is not None)


def _some(lines: Sequence[str], what: str) -> Iterable[str]:
    """The first lines, and how many there are."""
    if lines:
        yield f"{len(lines)} {what}{':' if len(lines) <= _SHOWN else f', the first {_SHOWN}:'}"
        yield from (f"  {line}" for line in lines[:_SHOWN])
