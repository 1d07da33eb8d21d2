"""Whether calibration is shown, not shown or refuted, by comparing intervals with margins.

Three quantities decide. Slope (spread of the probabilities) and intercept with the slope fixed at 1 (their level) are
what Van Calster et al. (2016) call weak calibration. The ICI (Austin & Steyerberg, 2019) alone sees a curve that is
wrong although both are right. O:E is printed beside them and decides nothing: where the odds are within a factor of
1.25, O:E is too, at any prevalence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from scipy import stats

from pipeline.evaluation.intervals.interval import Interval, normal_quantile, t_quantile

Verdict = Literal["shown", "not shown", "refuted"]
SHOWN, NOT_SHOWN, REFUTED = get_args(Verdict)
_MOST_TIMES_AS_MANY = 100.0  # beyond, a figure scaled from so few patients would be no more than a guess


@dataclass(frozen=True)
class EquivalenceMargin:
    """Margin of equivalence: how far a quantity may be from its ideal value without mattering.

    Attributes:
        name: key among an evaluation's intervals.
        title: as shown.
        ideal: value under perfect calibration.
        lower: smallest value that does not matter.
        upper: largest value that does not matter.
        layout: of the numbers in words, as ``.2f``.
    """

    name: str
    title: str
    ideal: float
    lower: float
    upper: float
    layout: str

    def show(self, value: float) -> str:
        """The value in words."""
        return format(value, self.layout)

    def words(self, interval: Interval) -> str:
        """The quantity with its interval, as ``slope 1.08 (0.83 to 1.33)``."""
        limits = f"{self.show(interval.lower)} to {self.show(interval.upper)}"
        return f"{self.title} {self.show(interval.estimate)} ({limits})"

    def holds(self, interval: Interval) -> bool:
        """Whether the whole interval lies within the margins."""
        return self.lower <= interval.lower and interval.upper <= self.upper

    def excludes(self, interval: Interval) -> bool:
        """Whether the whole interval lies outside the margins, on one side."""
        return interval.upper < self.lower or interval.lower > self.upper

    def doubts(self, interval: Interval) -> bool:
        """Whether the estimate lies outside the margins, and the interval excludes the ideal value."""
        outside = not self.lower <= interval.estimate <= self.upper
        return outside and not interval.contains(self.ideal)

    def openness(self, interval: Interval) -> str:
        """Which margins the interval reaches beyond, in words."""
        if self.excludes(interval):
            return "lies outside, as one of several may by chance"
        reached = []
        if interval.lower < self.lower:
            reached.append(f"below {self.show(self.lower)}")
        if interval.upper > self.upper:
            reached.append(f"above {self.show(self.upper)}")
        return f"reaches {' and '.join(reached)}"

    @property
    def room(self) -> float:
        """Distance from the ideal value to the nearest margin that can be crossed."""
        sides = (self.ideal - self.lower, self.upper - self.ideal)
        return min(side for side in sides if side > 0.0)


# The slope may be 1.25 times too high or too low: the range within which van Calster et al. (2019) and Riley et al.
# (2021) call a slope near to 1. So may the odds of malignancy: O:E is then within 0.8 to 1.25 at any prevalence. An
# intercept at its margin moves a probability of 0.5 by 0.055; the ICI may be 0.05.
_LARGEST_FACTOR, _LARGEST_ICI = 1.25, 0.05
_LARGEST_SHIFT = math.log(_LARGEST_FACTOR)
MARGINS = (
    EquivalenceMargin("calibration_slope", "slope", 1.0, 1.0 / _LARGEST_FACTOR, _LARGEST_FACTOR, ".2f"),
    EquivalenceMargin("calibration_intercept", "intercept", 0.0, -_LARGEST_SHIFT, _LARGEST_SHIFT, "+.2f"),
    EquivalenceMargin("ici", "ICI", 0.0, 0.0, _LARGEST_ICI, ".3f"),
)
# With which a perfectly calibrated model would be shown to be so, of each quantity, by the patients that are named.
_CHANCE = 0.9


@dataclass(frozen=True)
class SampleSize:
    """How many patients like these would decide, with the cases and malignant cases they would bring.

    Attributes:
        patients: that would decide.
        cases: of theirs.
        malignant: cases whose label is 1.
        event: what that label means, in a word or two.
    """

    patients: int
    cases: int
    malignant: int
    event: str = "malignant"

    def __str__(self) -> str:
        return f"{self.patients} patients ({self.cases} cases, {self.malignant} {self.event})"


@dataclass(frozen=True)
class CalibrationOutcome:
    """Verdict on calibration, with reasons.

    Attributes:
        verdict: ``shown``: every interval lies within its margins. ``refuted``: one, widened as one of three, lies
            outside. Else ``not shown``.
        reasons: in words, what settles the verdict; for ``not shown`` what is open, and how many patients would decide.
        in_doubt: titles of quantities whose estimate lies outside its margins while the interval, widened likewise,
            excludes the ideal value: evidence of a fault that matters. Those that are refuted are among them.
        needed: patients that would decide; None where the verdict has fallen, or the cases do not allow an estimate.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    in_doubt: tuple[str, ...] = ()
    needed: SampleSize | None = None

    def __str__(self) -> str:
        return f"{self.verdict}: {'; '.join(self.reasons)}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {**asdict(self), "reasons": list(self.reasons), "in_doubt": list(self.in_doubt)}
        if self.needed is not None:
            plain["needed"] = {name: getattr(self.needed, name) for name in ("patients", "cases", "malignant")}
        return plain


def calibration_outcome(
    intervals: Mapping[str, Interval], undefined: Mapping[str, str], counts: SampleSize
) -> CalibrationOutcome:
    """Compare the intervals of slope, intercept and ICI with their margins.

    This is a test of equivalence: a small study neither shows nor refutes calibration, and a large one accepts a fault
    within the margins. Calibration is shown when all quantities lie within their margins, which needs no correction:
    with intervals of 95 % a fault at its margin is accepted in at most 2.5 % of studies. It is refuted by one quantity
    alone, so for that the intervals are widened, each to a level that makes it 2.5 % for all together (Bonferroni).

    Args:
        intervals: by name; an absent one is undefined.
        undefined: why, by name.
        counts: of this study.

    Source: margins of equivalence as Schuirmann, 1987 (with intervals of 95 %, not 90 %).
    """
    defined = {margin: intervals[margin.name] for margin in MARGINS if margin.name in intervals}
    wide = {margin: _widened(interval, len(MARGINS), counts.patients) for margin, interval in defined.items()}
    doubts = tuple(margin.title for margin in defined if margin.doubts(wide[margin]))
    refuted = [_refutation(margin, interval) for margin, interval in defined.items() if margin.excludes(wide[margin])]
    if refuted:
        return CalibrationOutcome("refuted", tuple(refuted), doubts)
    absent = [undefined[margin.name] for margin in MARGINS if margin.name not in intervals]
    still_open = {margin: interval for margin, interval in defined.items() if not margin.holds(interval)}
    if not absent and not still_open:
        within = (
            f"{margin.words(interval)} within {margin.show(margin.lower)} to {margin.show(margin.upper)}"
            for margin, interval in defined.items()
        )
        return CalibrationOutcome("shown", tuple(within))
    reasons = list(dict.fromkeys(absent))
    reasons += [f"{margin.words(interval)} {margin.openness(interval)}" for margin, interval in still_open.items()]
    if absent:
        return CalibrationOutcome("not shown", tuple(reasons), doubts)
    times = max(_times_as_many(margin, still_open[margin], counts) for margin in still_open)
    if times > _MOST_TIMES_AS_MANY:
        reasons.append(f"more than {_MOST_TIMES_AS_MANY:g} times as many patients would be needed to decide")
        return CalibrationOutcome("not shown", tuple(reasons), doubts)
    patients, cases, malignant = (
        _round_up(times * number) for number in (counts.patients, counts.cases, counts.malignant)
    )
    needed = SampleSize(patients, cases, malignant, counts.event)
    return CalibrationOutcome("not shown", (*reasons, f"about {needed} would decide"), doubts, needed)


def _widened(interval: Interval, looks: int, patients: int) -> Interval:
    """The interval, so much wider as makes it one of several looks at a study of so many patients (Bonferroni)."""
    tail, degrees = (1.0 - interval.level) / 2.0, max(patients - 1, 1)
    times = float(stats.t.isf(tail / looks, degrees) / stats.t.isf(tail, degrees))
    lower = interval.estimate - times * (interval.estimate - interval.lower)
    upper = interval.estimate + times * (interval.upper - interval.estimate)
    return Interval(interval.estimate, lower, upper, 1.0 - 2.0 * tail / looks, interval.method)


def _refutation(margin: EquivalenceMargin, interval: Interval) -> str:
    low, senses = interval.upper < margin.lower, _SENSES[margin.name]
    return (
        f"{margin.words(interval)} is outside {margin.show(margin.lower)} to {margin.show(margin.upper)}"
        f" ({senses[0] if low else senses[1]})"
    )


_SENSES: Mapping[str, tuple[str, str]] = {
    "calibration_slope": ("overconfident", "underconfident"),
    "calibration_intercept": ("probabilities are too high on average", "probabilities are too low on average"),
    "ici": ("", "probabilities are far from what is observed"),
}


def _times_as_many(margin: EquivalenceMargin, interval: Interval, counts: SampleSize) -> float:
    """Factor by which the patients must be multiplied for this quantity, whose spread falls with their square root.

    It is the number with which perfect calibration would be shown with probability ``_CHANCE``. Where there are as many
    already, the truth lies near a margin; then it is the number with which an interval around the estimate would no
    longer reach that margin.
    """
    reach = (interval.upper - interval.lower) / 2.0
    if margin.lower == margin.ideal:  # one-sided: a perfect model's upper limit shrinks with the width
        perfect = (2.0 * reach / margin.room) ** 2
    else:
        far = normal_quantile(interval.level)
        error = reach / t_quantile(counts.patients - 1, interval.level)
        perfect = (error * (far + normal_quantile(_CHANCE)) / margin.room) ** 2
    if perfect > 1.0:
        return perfect
    away = min(abs(interval.estimate - limit) for limit in (margin.lower, margin.upper) if limit != margin.ideal)
    return (reach / away) ** 2 if away > 0.0 else math.inf


def _round_up(number: float) -> int:
    """To two digits, upwards: the figure is no better than that."""
    if number <= 0.0:
        return 0
    step = 10 ** max(len(str(math.ceil(number))) - 2, 0)
    return int(math.ceil(number / step) * step)
