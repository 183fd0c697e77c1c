"""How bad a condition is, 1 to 5, told in the physical unit of each weather kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

SEVERITIES = (1, 2, 3, 4, 5)


def at_severity(table: Sequence[float], severity: float) -> float:
    """A physical quantity at a severity, between two rows of its table by equal ratios.

    Args:
        table: Its positive values at severity 1, 2, 3, 4 and 5.
        severity: From 1 to 5; 2.5 lies between 2 and 3.

    Raises:
        ValueError: If the severity is not within 1 to 5.
    """
    if not SEVERITIES[0] <= severity <= SEVERITIES[-1]:
        raise ValueError(f"severity must be a number from 1 to 5, got {severity!r}")
    row = min(int(severity), SEVERITIES[-1] - 1) - 1
    share = severity - SEVERITIES[row]
    return math.exp((1 - share) * math.log(table[row]) + share * math.log(table[row + 1]))
