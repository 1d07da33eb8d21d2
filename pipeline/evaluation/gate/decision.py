"""A decision of the promotion gate: conditions that hold or not, the verdict, and both in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import UsageError
from pipeline.evaluation.calibration.outcome import Verdict


@dataclass(frozen=True)
class Condition:
    """One condition of the gate.

    Attributes:
        name: a few words.
        holds: whether it is shown to hold.
        finding: the value, the limit and, where it does not hold, the way out.
        outcome: of a statistical claim, which may also be neither shown nor refuted; None for a plain fact.
    """

    name: str
    holds: bool
    finding: str
    outcome: Verdict | None = None

    @classmethod
    def of(cls, name: str, outcome: Verdict, finding: str) -> Condition:
        """A statistical claim, which holds where it is shown."""
        return cls(name, outcome == "shown", finding, outcome)

    @property
    def verdict(self) -> str:
        """``yes``, or ``no`` with the outcome of a statistical claim."""
        if self.holds:
            return "yes"
        return "no" if self.outcome is None else f"no, {self.outcome}"


@dataclass(frozen=True)
class GateDecision:
    """Decision of the gate, with its conditions.

    Attributes:
        conditions: all that were judged, in order.
        forced_because: the reason a person gave for promoting regardless; None without one.
    """

    conditions: tuple[Condition, ...]
    forced_because: str | None = None

    @property
    def failed(self) -> tuple[Condition, ...]:
        """Conditions that do not hold."""
        return tuple(condition for condition in self.conditions if not condition.holds)

    @property
    def promoted(self) -> bool:
        """Whether ``champion`` moves."""
        return not self.failed or self.forced_because is not None

    @property
    def verdict(self) -> str:
        """``promoted``, ``promoted by force`` or ``refused``."""
        if not self.failed:
            return "promoted"
        return "promoted by force" if self.promoted else "refused"

    @property
    def reasons(self) -> str:
        """Why, in words: the conditions that failed, or that all hold."""
        why = "; ".join(f"{condition.name}: {condition.finding}" for condition in self.failed) or "all conditions hold"
        return f"forced because: {self.forced_because}; {why}" if self.failed and self.forced_because else why

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"verdict": self.verdict, "reasons": self.reasons, **asdict(self)}


def decide_promotion(conditions: Sequence[Condition], *, forced_because: str | None = None) -> GateDecision:
    """Decide on conditions that were judged.

    Raises:
        UsageError: when no condition was judged, or the reason is blank.
    """
    if not conditions:
        raise UsageError("gate: no condition was judged; expected at least one")
    if forced_because is not None and not forced_because.strip():
        raise UsageError("gate: the reason for forcing is blank; say why in words")
    return GateDecision(tuple(conditions), forced_because)


def decision_text(decision: GateDecision, *, facts: Mapping[str, str], most: int | None = None) -> str:
    """Markdown for the model version's page: the verdict, the facts, every condition.

    Args:
        decision: made.
        facts: about it, by name.
        most: characters; where there would be more, the findings of conditions that hold are left out.
    """
    lines = [f"**Gate: {decision.verdict}**"]
    if decision.forced_because is not None:
        lines.append(f"\nForced because: {decision.forced_because}")
    lines += ["", *(f"- {name}: {value}" for name, value in facts.items()), "", "| condition | holds | finding |"]
    lines.append("|---|---|---|")
    rows = [_row(condition, condition.finding) for condition in decision.conditions]
    if most is not None and len("\n".join([*lines, *rows])) > most:
        short = "in `decision.md` of the gate's run"
        rows = [_row(condition, short if condition.holds else condition.finding) for condition in decision.conditions]
    return "\n".join([*lines, *rows])


def _row(condition: Condition, finding: str) -> str:
    verdict = condition.verdict if condition.holds else f"**{condition.verdict}**"
    return f"| {condition.name} | {verdict} | {finding} |"
