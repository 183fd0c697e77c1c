"""The robustness of models as one HTML file that needs nothing else, and JSON beside it."""

from __future__ import annotations

import json
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
from mbnet_perception.evaluation.page import (
    ceiling,
    cell,
    fold,
    legend,
    panels,
    sign,
    signed,
    strip,
    table,
    versions_of,
    whole_page,
)
from mbnet_perception.evaluation.plots import Line, plot_lines
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
PACKAGES = ("mbnet_perception", "numpy", "opencv-python-headless", "onnxruntime")


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
        "versions": versions_of(PACKAGES),
    }
    page = _page(about, dataset, contenders, result)
    figures = json.dumps({**about, **as_json(result)}, indent=1)
    replace_file(folder / "report.json", figures.encode())
    replace_file(folder / "report.html", page.encode())
    return folder / "report.html"


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
        legend([f"{_model(n, each)} at {each.resolution}" for n, each in enumerate(result.models)]),
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
    return whole_page(f"Robustness on {about['data']}", sections)


def _model(number: int, model: ModelResult) -> str:
    return signed(number, model.name)


def _kept_table(models: Sequence[ModelResult]) -> str:
    names = list(models[0].summaries)
    rows = [
        [
            _model(n, model),
            cell(model.conditions[0].mean.ap50),
            *(cell(model.summaries[name].rpc.ap50, percent=True, bar=True) for name in names),
        ]
        for n, model in enumerate(models)
    ]
    return table(["model", "clear AP50", *map(_title, names)], rows)


def _title(name: str) -> str:
    return escape({"weather": "all weather", "corruptions": "all corruptions"}.get(name, name))


def _severity_plots(result: Robustness, which: str, label: str) -> str:
    figures = [[getattr(each.mean, which) for each in model.conditions] for model in result.models]
    y_max = ceiling([end for row in figures for each in row for end in (each.value, each.high)])
    plots = []
    for name, rows in rows_by_name(result.conditions).items():
        if name == CLEAR.name:
            continue
        x = np.array([result.conditions[row].severity for row in [0, *rows]], np.float64)
        lines = []
        for own in figures:
            points = np.array([_point(own[row]) for row in [0, *rows]])
            lines.append(Line(x, *points.T))
        ticks = [(0.0, "clear"), *((severity, f"{severity:g}") for severity in x[1:])]
        plots.append((name, plot_lines(lines, "severity", label, ticks, y_max)))
    return panels(plots)


def _point(figure: Figure) -> tuple[float, float, float]:
    """Value, low and high; NaN where there is none."""
    ends = (figure.value, figure.low, figure.high)
    return tuple(np.nan if end is None else end for end in ends)  # type: ignore[return-value]


def _curve_plots(result: Robustness) -> str:
    plots = []
    for name, rows in rows_by_name(result.conditions).items():
        lines = [
            Line(RECALLS, np.nanmean(model.curves[rows], axis=(0, 1))) for model in result.models
        ]
        plots.append((name, plot_lines(lines, "recall", "precision")))
    return panels(plots)


def _class_plots(result: Robustness, classes: Sequence[str]) -> str:
    plots = []
    for k, name in enumerate(classes):
        curves = [model.curves[0, k] for model in result.models]
        if np.isfinite(curves[0]).all():
            lines = [Line(RECALLS, curve) for curve in curves]
            plots.append((name, plot_lines(lines, "recall", "precision")))
    return panels(plots)


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
    pictures = []
    for n, (model, missed, file) in enumerate(zip(models, miss.missed, files, strict=True)):
        text = f"misses {len(missed)} of {len(picture.boxes)}"
        shows = f"{picture.path.name} in {miss.condition}: {model.name} {text}"
        pictures.append((file, shows, f"{_model(n, model)}: {text}"))
    return strip(f"{miss.condition}, {picture.path.name}", pictures)


def _details(result: Robustness, classes: Sequence[str]) -> list[str]:
    models = result.models
    compared = len(models) > 1
    signs = [sign(n) for n in range(len(models))]
    rows = []
    for row, condition in enumerate(result.conditions):
        means = [model.conditions[row].mean for model in models]
        rows.append([escape(str(condition)), *_pairs(means)])
    head = ["condition", *(f"{sign} {kind}" for sign in signs for kind in ("AP", "AP50"))]
    parts = [fold("Every condition and severity", table(head, rows))]
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
        parts.append(fold("mPC and rPC", table(head, summary_rows)))
    if compared:
        clear = ["clear", *_pairs([model.clear_difference for model in models[1:]], sign=True)]
        head = ["", *(f"{sign} {kind}" for sign in signs[1:] for kind in ("AP", "AP50"))]
        parts.append(
            fold(
                f"Differences from {_model(0, models[0])}",
                "<p>Compared within each resample; where an interval leaves out 0, the "
                "difference is more than the luck of the pictures.</p>"
                + table(head, [clear, *difference_rows]),
            )
        )
    kinds = rows_by_name(result.conditions)
    for n, model in enumerate(models):
        known = model.conditions[0].classes
        rows = [
            [
                escape(name),
                *(
                    cell(_mean([model.conditions[row].classes[name].ap50 for row in own]))
                    for own in kinds.values()
                ),
            ]
            for name in classes
            if name in known
        ]
        parts.append(
            fold(
                f"AP50 of each class, mean over severities: {_model(n, model)}",
                table(["class", *map(_title, kinds)], rows),
            )
        )
    return parts


def _mean(figures: Sequence[Figure]) -> Figure:
    values = [figure.value for figure in figures if figure.value is not None]
    return Figure(float(np.mean(values)) if values else None)


def _pairs(accuracies: Sequence[Accuracy], percent: bool = False, sign: bool = False) -> list[str]:
    return [cell(figure, percent, sign) for each in accuracies for figure in (each.ap, each.ap50)]
