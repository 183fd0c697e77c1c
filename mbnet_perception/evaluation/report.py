"""The robustness of models as one HTML file that needs nothing else, and JSON beside it."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mbnet_perception.core.files import replace_file
from mbnet_perception.evaluation.average_precision import RECALLS
from mbnet_perception.evaluation.bootstrap import Figure
from mbnet_perception.evaluation.dataset import Dataset
from mbnet_perception.evaluation.gallery import SELECTION, Miss, show_miss, worst_misses
from mbnet_perception.evaluation.plots import (
    DARK_COLOURS,
    LIGHT_COLOURS,
    MARKER_SIGNS,
    Line,
    plot_lines,
)
from mbnet_perception.evaluation.robustness import (
    CLEAR,
    SYNTHETIC,
    Accuracy,
    Contender,
    ModelResult,
    Robustness,
    as_json,
    rows_by_name,
)
from mbnet_perception.inference.detector import Detector

# What the figures may depend on.
PACKAGES = ("mbnet_perception", "numpy", "opencv-python-headless", "onnxruntime", "pycocotools")


def write_report(
    folder: Path,
    data: str,
    dataset: Dataset,
    contenders: Sequence[Contender],
    result: Robustness,
) -> Path:
    """Write ``report.html`` and ``report.json``; each is whole, or is not there.

    Args:
        folder: Where to; made if missing.
        data: Name of the data.
        dataset: That was measured.
        contenders: The models.
        result: What was measured.

    Returns:
        The HTML file.

    Raises:
        OSError: If the files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "data": data,
        "pictures": len(dataset.pictures),
        "boxes": sum(len(picture.boxes) for picture in dataset.pictures),
        "versions": _versions(),
    }
    page = _page(about, dataset, contenders, result)
    figures = json.dumps({**about, **as_json(result)}, indent=1)
    replace_file(folder / "report.json", figures.encode())
    replace_file(folder / "report.html", page.encode())
    return folder / "report.html"


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # OpenCV goes by several names
    return versions


def _page(
    about: dict[str, Any],
    dataset: Dataset,
    contenders: Sequence[Contender],
    result: Robustness,
) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    note = f"{about['pictures']} pictures, {about['boxes']} objects."
    if result.resamples:
        note += (
            f" Small figures and bands are 95 % intervals from {result.resamples} resamples of "
            f"{result.scenes} scenes."
        )
    sections = [
        f"<h1>Robustness on {escape(about['data'])}</h1>",
        f'<p class="note"><strong>{SYNTHETIC}</strong> {note}</p>',
        _legend(result.models),
    ]
    if len(result.conditions) > 1:
        sections += [
            "<h2>What is left of the clear AP50</h2>",
            "<p>rPC in percent: the mean AP50 over severities, as a share of the same model's in "
            "clear weather.</p>",
            _kept_table(result.models),
            "<h2>AP50 against severity</h2>",
            _severity_plots(result, "ap50", "AP50"),
            "<h2>AP against severity</h2>",
            "<p>AP is the mean over IoU 0.50 to 0.95.</p>",
            _severity_plots(result, "ap", "AP"),
        ]
    sections += [
        "<h2>Precision and recall</h2>",
        "<p>At IoU 0.5, mean over classes and severities: the area under a line is the mean "
        "AP50.</p>",
        _curve_plots(result),
        "<h3>Each class in clear weather</h3>",
        _class_plots(result, dataset.classes),
        "<h2>Worst misses</h2>",
        "<p>Large objects that are found in clear weather and lost early as it turns; under "
        f"clear, those never found. Found means IoU 0.5 and a score of "
        f"{SELECTION.score_threshold:g} or more. Detections have the colour of their class; "
        "the truth is dashed, thick where it is missed, and the largest of those are named.</p>",
        _gallery(dataset, contenders, result),
        "<h2>All figures</h2>",
        *_details(result, dataset.classes),
        f'<p class="note">Seed {result.seed}. {escape(versions)}. The figures are in '
        f"report.json, too.</p>",
    ]
    return _SHELL.format(
        title=escape(f"Robustness on {about['data']}"),
        light=_colours(LIGHT_COLOURS),
        dark=_colours(DARK_COLOURS),
        body="\n".join(sections),
    )


def _colours(colours: Sequence[str]) -> str:
    return " ".join(f"--line-{n}: {colour};" for n, colour in enumerate(colours))


def _sign(number: int) -> str:
    n = number % len(LIGHT_COLOURS)
    return f'<span class="sign" style="color: var(--line-{n})">{MARKER_SIGNS[n]}</span>'


def _model(number: int, model: ModelResult) -> str:
    """Sign and name; a long name may break after its underscores."""
    return f"{_sign(number)}&nbsp;{escape(model.name).replace('_', '_<wbr>')}"


def _legend(models: Sequence[ModelResult]) -> str:
    items = [f"<li>{_model(n, model)} at {model.resolution}</li>" for n, model in enumerate(models)]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the page is narrow; the cells are HTML."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>' for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(figure: Figure, percent: bool = False, sign: bool = False, bar: bool = False) -> str:
    """A figure over its interval; of a percentage, the sign for it is left to the row or table."""

    def text(value: float) -> str:
        plus = "+" if sign else ""
        digits = f"{100 * value:{plus}.1f}" if percent else f"{value:{plus}.3f}"
        return digits.replace("-", "&minus;")

    if figure.value is None:
        return "<td>&ndash;</td>"
    interval = ""
    if figure.low is not None and figure.high is not None:
        dash = " to " if sign else "&ndash;"
        interval = f"<small>{text(figure.low)}{dash}{text(figure.high)}</small>"
    style = f' class="bar" style="--share: {min(max(figure.value, 0), 1):.3f}"' if bar else ""
    return f"<td{style}>{text(figure.value)}{interval}</td>"


def _kept_table(models: Sequence[ModelResult]) -> str:
    names = list(models[0].summaries)
    rows = [
        [
            _model(n, model),
            _cell(model.conditions[0].mean.ap50),
            *(_cell(model.summaries[name].rpc.ap50, percent=True, bar=True) for name in names),
        ]
        for n, model in enumerate(models)
    ]
    return _table(["model", "clear AP50", *map(_title, names)], rows)


def _title(name: str) -> str:
    return escape({"weather": "all weather", "corruptions": "all corruptions"}.get(name, name))


def _panels(panels: Sequence[tuple[str, str]]) -> str:
    """Plots beside each other, as many as there is room for; each a title and an SVG."""
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in panels
    ]
    return f'<div class="panels">{"".join(figures)}</div>'


def _severity_plots(result: Robustness, which: str, label: str) -> str:
    figures = [[getattr(each.mean, which) for each in model.conditions] for model in result.models]
    y_max = _ceiling([end for row in figures for each in row for end in (each.value, each.high)])
    panels = []
    for name, rows in rows_by_name(result.conditions).items():
        if name == CLEAR.name:
            continue
        x = np.array([result.conditions[row].severity for row in [0, *rows]], np.float64)
        lines = []
        for own in figures:
            points = np.array([_point(own[row]) for row in [0, *rows]])
            lines.append(Line(x, *points.T))
        ticks = [(0.0, "clear"), *((severity, f"{severity:g}") for severity in x[1:])]
        panels.append((name, plot_lines(lines, "severity", label, ticks, y_max)))
    return _panels(panels)


def _point(figure: Figure) -> tuple[float, float, float]:
    """Value, low and high; NaN where there is none."""
    ends = (figure.value, figure.low, figure.high)
    return tuple(np.nan if end is None else end for end in ends)  # type: ignore[return-value]


def _ceiling(values: Sequence[float | None]) -> float:
    """A round number above them all, for the axes that are to be compared."""
    top = max((value for value in values if value is not None), default=0.0)
    return min(1.0, max(0.1, math.ceil(10.5 * top) / 10))


def _curve_plots(result: Robustness) -> str:
    panels = []
    for name, rows in rows_by_name(result.conditions).items():
        lines = [
            Line(RECALLS, np.nanmean(model.curves[rows], axis=(0, 1))) for model in result.models
        ]
        panels.append((name, plot_lines(lines, "recall", "precision")))
    return _panels(panels)


def _class_plots(result: Robustness, classes: Sequence[str]) -> str:
    panels = []
    for k, name in enumerate(classes):
        curves = [model.curves[0, k] for model in result.models]
        if np.isfinite(curves[0]).all():
            lines = [Line(RECALLS, curve) for curve in curves]
            panels.append((name, plot_lines(lines, "recall", "precision")))
    return _panels(panels)


def _gallery(dataset: Dataset, contenders: Sequence[Contender], result: Robustness) -> str:
    detectors = [
        Detector(each.model, each.resolution, num_threads=1, origin=each.name)
        for each in contenders
    ]
    parts = []
    for name, misses in worst_misses(dataset, result).items():
        parts.append(f"<h3>{escape(name)}</h3>")
        if not misses:
            parts.append("<p>Nothing is missed.</p>")
        for miss in misses:
            files = show_miss(dataset, miss, detectors, result.seed)
            parts.append(_strip(dataset, miss, result.models, files))
    return "\n".join(parts)


def _strip(
    dataset: Dataset, miss: Miss, models: Sequence[ModelResult], files: Sequence[bytes]
) -> str:
    picture = dataset.pictures[miss.place]
    figures = []
    for n, (model, missed, file) in enumerate(zip(models, miss.missed, files, strict=True)):
        text = f"misses {len(missed)} of {len(picture.boxes)}"
        data = base64.b64encode(file).decode()
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" loading="lazy" '
            f'alt="{escape(f"{picture.path.name} in {miss.condition}: {model.name} {text}")}">'
            f"<figcaption>{_model(n, model)}: {text}</figcaption></figure>"
        )
    return (
        f'<p class="caption">{escape(str(miss.condition))}, {escape(picture.path.name)}</p>'
        f'<div class="pictures">{"".join(figures)}</div>'
    )


def _details(result: Robustness, classes: Sequence[str]) -> list[str]:
    models = result.models
    compared = len(models) > 1
    signs = [_sign(n) for n in range(len(models))]
    rows = []
    for row, condition in enumerate(result.conditions):
        means = [model.conditions[row].mean for model in models]
        rows.append([escape(str(condition)), *_pairs(means)])
    head = ["condition", *(f"{sign} {kind}" for sign in signs for kind in ("AP", "AP50"))]
    parts = [_fold("Every condition and severity", _table(head, rows))]
    summary_rows: list[list[str]] = []
    difference_rows: list[list[str]] = []
    if models[0].summaries:
        for name in models[0].summaries:
            own = [model.summaries[name] for model in models]
            summary_rows.append([f"mPC {_title(name)}", *_pairs([each.mpc for each in own])])
            summary_rows.append(
                [f"rPC {_title(name)}, %", *_pairs([each.rpc for each in own], percent=True)]
            )
            difference_rows.append(
                [f"mPC {_title(name)}", *_pairs([e.mpc_difference for e in own[1:]], sign=True)]
            )
            difference_rows.append(
                [
                    f"rPC {_title(name)}, points",
                    *_pairs([e.rpc_difference for e in own[1:]], percent=True, sign=True),
                ]
            )
        parts.append(_fold("mPC and rPC", _table(head, summary_rows)))
    if compared:
        clear = ["clear", *_pairs([model.clear_difference for model in models[1:]], sign=True)]
        head = ["", *(f"{sign} {kind}" for sign in signs[1:] for kind in ("AP", "AP50"))]
        parts.append(
            _fold(
                f"Differences from {_model(0, models[0])}",
                "<p>Compared within each resample; where an interval leaves out 0, the "
                "difference is more than the luck of the pictures.</p>"
                + _table(head, [clear, *difference_rows]),
            )
        )
    kinds = rows_by_name(result.conditions)
    for n, model in enumerate(models):
        known = model.conditions[0].classes
        rows = [
            [
                escape(name),
                *(
                    _cell(_mean([model.conditions[row].classes[name].ap50 for row in own]))
                    for own in kinds.values()
                ),
            ]
            for name in classes
            if name in known
        ]
        parts.append(
            _fold(
                f"AP50 of each class, mean over severities: {_model(n, model)}",
                _table(["class", *map(_title, kinds)], rows),
            )
        )
    return parts


def _mean(figures: Sequence[Figure]) -> Figure:
    values = [figure.value for figure in figures if figure.value is not None]
    return Figure(float(np.mean(values)) if values else None)


def _pairs(accuracies: Sequence[Accuracy], percent: bool = False, sign: bool = False) -> list[str]:
    return [_cell(figure, percent, sign) for each in accuracies for figure in (each.ap, each.ap50)]


def _fold(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


_SHELL = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{
  color-scheme: light dark;
  --page: #ffffff; --text: #1b1f24; --quiet: #59636e; --grid: #c9ced4; --bar: #3f9b6c;
  {light}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --page: #14171a; --text: #e4e7ea; --quiet: #a2abb4; --grid: #4a525a; --bar: #3f9b6c;
    {dark}
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0 auto; padding: 1rem clamp(1rem, 4vw, 3rem) 3rem; max-width: 90rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
}}
h1 {{ font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .5rem; }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 .5rem; }}
p {{ margin: .5rem 0; max-width: 65rem; }}
.note, .caption, small, figcaption {{ color: var(--quiet); }}
.note strong {{ color: var(--text); }}
.legend {{
  display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: .5rem 0; margin: 0;
  list-style: none; background: var(--page);
}}
@media screen and (min-width: 60rem) {{ .legend {{ position: sticky; top: 0; z-index: 1; }} }}
.legend li {{ overflow-wrap: anywhere; }}
.sign {{ font-size: .9em; }}
.scroll {{ overflow-x: auto; margin: .75rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--grid); }}
th {{ font-weight: 600; white-space: nowrap; }}
th:first-child {{
  text-align: left; position: sticky; left: 0; background: var(--page); white-space: normal;
  min-width: min(13rem, 40vw); overflow-wrap: anywhere;
}}
thead th {{ vertical-align: bottom; }}
td small {{ display: block; white-space: nowrap; }}
td.bar {{
  background: linear-gradient(to right, var(--bar) calc(100% * var(--share)), transparent 0)
    bottom / 100% .3rem no-repeat;
}}
.panels, .pictures {{ display: grid; gap: 1rem; }}
.panels {{ grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }}
.pictures {{ grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }}
figure {{ margin: 0; min-width: 0; }}
figcaption {{ font-size: .9rem; overflow-wrap: anywhere; }}
.panels figcaption {{ font-weight: 600; color: var(--text); }}
.panels svg {{ display: block; width: 100%; height: auto; }}
.panels svg text {{ font-family: system-ui, sans-serif !important; }}
.pictures img {{ display: block; width: 100%; height: auto; }}
details {{ border-bottom: 1px solid var(--grid); padding: .5rem 0; }}
summary {{ cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
