"""Lines that list the files of a folder that become no case, by kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pipeline.cases.intake.rows import first_three
from pipeline.cases.intake.scans import SurveyedScan, UnreadScan
from pipeline.cases.intake.selection import RULE, LeftOut
from pipeline.cases.lesions.match import LesionMatch


def left_out_lines(
    *,
    unread: Sequence[UnreadScan],
    masks: Sequence[SurveyedScan],
    derived: Sequence[SurveyedScan],
    other_kind: Sequence[SurveyedScan],
    series: Sequence[LeftOut],
    without: Sequence[str],
    match: LesionMatch,
) -> Iterable[str]:
    """One line for each kind of file that becomes no case, with a count and three examples."""
    if masks:
        yield f"{len(masks)} masks: {first_three([mask.image for mask in masks])}"
    if derived:
        yield f"{len(derived)} files beside the scan of their folder: {first_three([scan.image for scan in derived])}"
    copies = [f"{left.scan.image} ({left.reason})" for left in series if left.reason.startswith("an exact copy")]
    if copies:
        yield f"{len(copies)} exact copies of other scans: {first_three(copies)}"
    others = [f"{left.scan.image} ({left.reason})" for left in series if not left.reason.startswith("an exact copy")]
    if others:
        yield f"{len(others)} series of studies of which one is taken ({RULE}): {first_three(others)}"
    if other_kind:
        kind = "single slices or pictures" if other_kind[0].is_flat else "volumes"
        yield f"{len(other_kind)} {kind} among others that are not: {first_three([scan.image for scan in other_kind])}"
    if without:
        yield f"{len(without)} scans without a marked lesion: {first_three(without)}"
    refused = [*match.homeless, *(refused for several in match.refused.values() for refused in several)]
    if refused:
        yield f"{len(refused)} annotations that give no lesion: {first_three([*map(str, refused)])}"
    codes: dict[str, list[UnreadScan]] = defaultdict(list)
    for scan in unread:
        codes[str(scan.error.code)].append(scan)
    for code, several in sorted(codes.items()):
        reason = several[0].error.reason
        yield f"{len(several)} with {code} ({reason}): {first_three([scan.image for scan in several])}"
