"""Figures that an evaluation of bags must reach, so that a build fails where one does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mbnet_perception.evaluation.bag_results import BagEvaluation
from mbnet_perception.evaluation.robustness import CLEAR, Condition

RPC = "rpc"

_LIMIT = re.compile(r"(\w+)(?::([1-5]))?=(\d*\.?\d+)")


@dataclass(frozen=True)
class Limit:
    """The least that each operating point must reach.

    Attributes:
        name: A condition's, whose AP50 is meant, or "rpc".
        severity: Of the condition; None for the mean over all its severities.
        least: 0-1.
    """

    name: str
    severity: int | None
    least: float

    def __str__(self) -> str:
        return self.name if self.severity is None else f"{self.name}:{self.severity}"


def parse_gate(text: str) -> tuple[Limit, ...]:
    """Read limits as a user writes them: ``clear=0.5,rain:3=0.40,fog=0.3,rpc=0.80``.

    Raises:
        ValueError: If the text is no such list; names the part that is not.
    """
    return tuple(_limit(part.strip()) for part in text.split(","))


def check_gate(limits: Sequence[Limit], conditions: Sequence[Condition]) -> None:
    """Make sure, before the work begins, that what is asked for will be measured.

    Raises:
        ValueError: If it will not; lists what will.
    """
    names = {CLEAR.name} | {text for each in conditions for text in (each.name, _written(each))}
    if len(conditions) > 1:
        names.add(RPC)
    for limit in limits:
        if str(limit) not in names:
            raise ValueError(f"gate: {limit} is not evaluated; there is {', '.join(sorted(names))}")


def failures(evaluation: BagEvaluation, limits: Sequence[Limit]) -> list[str]:
    """What falls short, a line for each limit that an operating point does not reach.

    Args:
        evaluation: The whole result.
        limits: That :func:`check_gate` let pass.
    """
    figure = "AP50" if evaluation.against == "ground truth" else "consistency (AP50)"
    lines = []
    for limit in limits:
        for point, rpc, runs in zip(
            evaluation.points, evaluation.rpc, evaluation.results, strict=True
        ):
            if limit.name == RPC:
                what, reached = "rPC", rpc
            else:
                own = [run.ap50 for run in runs if _is_meant(run.condition, limit)]
                what, reached = f"{figure} in {limit}", sum(own) / len(own)
            if reached is None:
                lines.append(f"{point}: nothing is found in clear weather, so there is no rPC")
            elif round(reached, 4) < limit.least:  # as it is shown
                lines.append(f"{point}: {what} is {reached:.4f}, less than {limit.least:g}")
    return lines


def _is_meant(condition: Condition, limit: Limit) -> bool:
    return limit.name == condition.name and limit.severity in (None, condition.severity)


def _written(condition: Condition) -> str:
    return f"{condition.name}:{condition.severity}" if condition != CLEAR else condition.name


def _limit(part: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if not found or not 0 <= float(found[3]) <= 1:
        raise ValueError(
            "gate: expected limits such as clear=0.5,rain:3=0.4,rpc=0.8, with severities 1-5 and "
            f"values 0-1; got {part!r}"
        )
    return Limit(found[1], int(found[2]) if found[2] else None, float(found[3]))
