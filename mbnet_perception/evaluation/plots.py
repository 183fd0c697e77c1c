"""Plots as inline SVG that takes its colours from the page, so that it suits light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Okabe and Ito's colours, which colour-blind people can tell apart, on white and on black; the
# markers tell lines apart without any.
LIGHT_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0508a", "#8a6d00", "#4a4a4a")
DARK_COLOURS = ("#56b4e9", "#ff9b4a", "#2fd6a3", "#e89ac7", "#e6c229", "#c8c8c8")
MARKERS = ("o", "s", "^", "D", "v", "P")
MARKER_SIGNS = ("●", "■", "▲", "◆", "▼", "✚")

# Drawn in these, which nothing else has, and then exchanged for the page's own.
_TEXT, _GRID = "#010203", "#040506"
_LINES = tuple(f"#0a0b{n:02x}" for n in range(len(LIGHT_COLOURS)))
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mbnet",  # equal data give equal files
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _GRID,
    "font.size": 9,
}


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Attributes:
        x, y: (N,) its points; a NaN leaves a gap.
        low, high: (N,) ends of a band around it, or None for none.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def colour_of(number: int) -> int:
    """Which of the colours a thing has; after six they begin anew."""
    return number % len(LIGHT_COLOURS)


def sign_of(number: int) -> str:
    """The marker of a thing, as a character."""
    return MARKER_SIGNS[_marker_of(number)]


def _marker_of(number: int) -> int:
    """Moved on by one whenever the colours begin anew, so that no two of 36 look the same."""
    return (number + number // len(LIGHT_COLOURS)) % len(MARKERS)


def plot_lines(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    ticks: Sequence[tuple[float, str]] | None = None,
    y_max: float = 1.0,
) -> str:
    """Draw lines over the same axes.

    Args:
        lines: The first has the first colour, and so on; after six the colours begin anew.
        x_label, y_label: What the axes mean.
        ticks: Where the x axis is marked, and how; lines get markers then. None marks 0 to 1.
        y_max: Upper end of the y axis, which begins at 0.

    Returns:
        An ``<svg>`` element as wide as what it stands in. Its colours are `currentColor`, and the
        page's ``--grid`` and ``--line-0``, ``--line-1``, ....
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes((3.6, 2.5), x_label, y_label, y_max)
        for n, line in enumerate(lines):
            colour = _LINES[colour_of(n)]
            marker = MARKERS[_marker_of(n)] if ticks else ""
            axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.6)
            if line.low is not None and line.high is not None:
                axes.fill_between(
                    line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0
                )
        if ticks:
            axes.set_xticks([x for x, _ in ticks], [text for _, text in ticks])
        else:
            axes.set_xlim(0, 1)
        return _svg(figure)


def plot_frontier(
    x: Sequence[float],
    y: Sequence[float],
    best: Sequence[int],
    x_label: str,
    y_label: str,
    y_max: float = 1.0,
) -> str:
    """Draw things by what they cost and what they give, and what is the most for each cost.

    Args:
        x, y: Of each thing; the first has the first colour and marker, and so on.
        best: Places of those for which nothing gives as much for less, cheapest first; steps run
            through them, dashed.
        x_label, y_label, y_max: As of :func:`plot_lines`. The x axis begins at 0, too.

    Returns:
        An ``<svg>`` element, as from :func:`plot_lines`.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes((3.6, 2.5), x_label, y_label, y_max)
        end = 1.1 * max(x)
        steps_x = [*(x[n] for n in best), end]
        steps_y = [*(y[n] for n in best), max(y[n] for n in best)]
        axes.plot(
            steps_x, steps_y, color=_TEXT, linewidth=1, linestyle="--", drawstyle="steps-post"
        )
        for n, (cost, gain) in enumerate(zip(x, y, strict=True)):
            colour, marker = _LINES[colour_of(n)], MARKERS[_marker_of(n)]
            axes.plot(cost, gain, color=colour, marker=marker, markersize=6.5, linestyle="")
        axes.set_xlim(0, end)
        return _svg(figure)


def plot_over_time(
    edges: NDArray[np.float64],
    share: NDArray[np.float64],
    usual: NDArray[np.float64],
    number: int,
    x_label: str,
    y_label: str,
) -> str:
    """Draw a share over time, and dotted what it usually is, in a wide, low plot.

    Args:
        edges: (N + 1,) times between which the shares hold.
        share, usual: (N,) of 1; a NaN leaves a gap.
        number: Of the thing whose share it is, which gives it its colour.
        x_label, y_label: What the axes mean.

    Returns:
        An ``<svg>`` element, as from :func:`plot_lines`.
    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes((5.0, 1.6), x_label, y_label, y_max=1.04)
        colour = _LINES[colour_of(number)]
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.16, linewidth=0)
        axes.stairs(usual, edges, baseline=None, color=_TEXT, linewidth=0.9, linestyle=":")
        axes.stairs(share, edges, baseline=None, color=colour, linewidth=1.6)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_yticks([0, 0.5, 1])
        return _svg(figure)


def _axes(
    size: tuple[float, float], x_label: str, y_label: str, y_max: float
) -> tuple[Figure, Axes]:
    """In a picture of that width and height in inches."""
    width, height = size
    figure = Figure(figsize=size)
    figure.subplots_adjust(
        left=0.6 / width, right=1 - 0.15 / width, bottom=0.45 / height, top=1 - 0.08 / height
    )
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_ylim(0, y_max)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace(_TEXT, "currentColor").replace(_GRID, "var(--grid)")
    for n, colour in enumerate(_LINES):
        svg = svg.replace(colour, f"var(--line-{n})")
    return svg
