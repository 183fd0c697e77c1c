"""How detectors held up on bags in any weather, as one HTML file, and JSON beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.files import replace_file
from mbnet_perception.evaluation.bag_pictures import ShownMoment
from mbnet_perception.evaluation.bag_results import (
    BagEvaluation,
    BagFacts,
    Moment,
    RunResult,
)
from mbnet_perception.evaluation.bag_score import as_json
from mbnet_perception.evaluation.bootstrap import Figure
from mbnet_perception.evaluation.gallery import SELECTION, show_objects
from mbnet_perception.evaluation.page import (
    card,
    ceiling,
    cell,
    fold,
    legend,
    panels,
    signed,
    strip,
    table,
    text_cell,
    versions_of,
    whole_page,
)
from mbnet_perception.evaluation.plots import Line, plot_frontier, plot_lines, plot_over_time
from mbnet_perception.evaluation.robustness import CLEAR, Condition, rows_by_name
from mbnet_perception.inference.models import OperatingPoint

# What the figures may depend on.
PACKAGES = (
    "mbnet_perception",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "rosbags",
)
# Of a plot over time; more could not be told apart.
MOST_TIMES = 300

Pictures = Callable[[Moment], ShownMoment | None]
"""What there is to see of a moment, None where the bag is not at hand."""


def write_bag_report(folder: Path, evaluation: BagEvaluation, pictures: Pictures) -> Path:
    """Write ``report.html`` and ``report.json``; each is whole, or is not there.

    Args:
        folder: Where to; made if missing.
        evaluation: The result.
        pictures: Gives what a moment looks like, or None where that cannot be shown.

    Returns:
        The HTML file.

    Raises:
        OSError: If the files cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    versions = versions_of(PACKAGES)
    page = _page(evaluation, pictures, versions)
    figures = json.dumps({**as_json(evaluation), "versions": versions}, indent=1)
    replace_file(folder / "report.json", figures.encode())
    replace_file(folder / "report.html", page.encode())
    return folder / "report.html"


def find_frontier(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Places of those that give more than everything that costs no more, cheapest first."""
    best: list[int] = []
    for n in sorted(range(len(costs)), key=lambda n: (costs[n], -gains[n])):
        if not best or gains[n] > gains[best[-1]]:
            best.append(n)
    return best


@dataclass(frozen=True)
class _View:
    """The result, and what several parts of the page need of it.

    Attributes:
        of: The result.
        names: Of the operating points, without what they have in common.
        measure: What AP50 is to be called here.
        clear, weather: AP50 of each point in clear weather, and its mean over the other
            conditions; NaN where there are none.
        costs: p90 of each point's latency, ms.
        best: The frontier of costs and AP50 in weather, or in clear weather where there is only
            that.
    """

    of: BagEvaluation
    names: tuple[str, ...]
    measure: str
    clear: tuple[float, ...]
    weather: tuple[float, ...]
    costs: tuple[float, ...]
    best: tuple[int, ...]

    @property
    def chosen(self) -> int:
        """The point with the best of those AP50, which the page is about where it is about one."""
        return self.best[-1]

    @property
    def kinds(self) -> dict[str, list[int]]:
        """Places of the conditions by name; the first is clear."""
        return rows_by_name(self.of.conditions)

    @property
    def weather_kinds(self) -> dict[str, list[int]]:
        return {name: rows for name, rows in self.kinds.items() if name != CLEAR.name}

    @property
    def over(self) -> str:
        """What is to be said of figures by a condition's name."""
        several = any(len(rows) > 1 for rows in self.kinds.values())
        return ", mean over severities" if several else ""

    def signed(self, number: int) -> str:
        """Sign and name of a point."""
        return signed(number, self.names[number])

    def ap50(self, number: int, rows: Iterable[int]) -> float:
        """Mean over some conditions."""
        return _mean([self.of.results[number][row].ap50 for row in rows])

    def left(self, number: int, rows: Iterable[int]) -> float:
        """The same as a share of the clear one; NaN where nothing is found in clear weather."""
        clear = self.clear[number]
        return self.ap50(number, rows) / clear if clear > 0 else np.nan


def _view(evaluation: BagEvaluation) -> _View:
    clear = tuple(own[0].ap50 for own in evaluation.results)
    weather = tuple(_mean([run.ap50 for run in own[1:]]) for own in evaluation.results)
    gains = np.nan_to_num(weather if len(evaluation.conditions) > 1 else clear).tolist()
    costs = tuple(each.p90_ms for each in evaluation.latency)
    return _View(
        of=evaluation,
        names=_short_names(evaluation.points),
        measure="AP50" if evaluation.against == "ground truth" else "consistency",
        clear=clear,
        weather=weather,
        costs=costs,
        best=tuple(find_frontier(costs, gains)),
    )


def _short_names(points: Sequence[OperatingPoint]) -> tuple[str, ...]:
    """Without what they have in common."""
    backbones = len({point.backbone for point in points}) > 1
    precisions = len({point.precision for point in points}) > 1
    names = []
    for point in points:
        words = [
            f"\N{GREEK SMALL LETTER ALPHA}\N{NO-BREAK SPACE}{point.alpha:g}",
            f"at\N{NO-BREAK SPACE}{point.resolution}",
        ]
        if precisions:
            words.insert(1, point.precision)
        if backbones:
            words.insert(0, point.backbone)
        names.append(" ".join(words))
    return tuple(names)


def _mean(values: Sequence[float | None]) -> float:
    """Of what is known; NaN where nothing is."""
    return float(_mean_over_rows(np.array(values, np.float64)[:, None])[0])


def _mean_over_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, N) to (N,), of what is not NaN."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(0), known.sum(0)
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def _page(evaluation: BagEvaluation, pictures: Pictures, versions: dict[str, str]) -> str:
    view = _view(evaluation)
    several = len(evaluation.bags) > 1
    what = f"{len(evaluation.bags)} bags" if several else evaluation.bags[0].name
    title = f"{what} in {'synthetic' if view.weather_kinds else 'clear'} weather"
    sections = [
        f"<h1>{escape(title)}</h1>",
        *_summary(view),
        *_choice(view),
        legend([view.signed(n) for n in range(len(view.names))]),
    ]
    if view.weather_kinds:
        sections += [f"<h2>{_capital(view.measure)} against severity</h2>", _severity_plots(view)]
    sections += [
        *_latency(view),
        *_heights(view),
        *_dropouts(view),
        *_over_time(view),
    ]
    if view.weather_kinds:
        sections += _moments(view, pictures)
    sections += [*_bags(view), *_details(view), _settings(view, versions)]
    return whole_page(title, sections)


def _summary(view: _View) -> list[str]:
    """What one can read in ten seconds."""
    evaluation = view.of
    frames = sum(bag.frames for bag in evaluation.bags)
    seconds = sum(bag.seconds for bag in evaluation.bags)
    about = f"{frames:,} frames, {_duration(seconds)}."
    if evaluation.against == "ground truth":
        about += f" Ground truth: {escape(evaluation.reference)}."
    else:
        about += (
            " <strong>Consistency, not accuracy:</strong> there is no ground truth, so detections "
            f"are held against what {escape(evaluation.reference)} sees in clear weather."
        )
    if view.weather_kinds:
        about += " <strong>The weather is synthetic:</strong> computed from the bags' pictures."
    of = view.signed(view.chosen)
    if len(view.names) > 1:
        best = "best" if evaluation.against == "ground truth" else "most consistent"
        where = " in weather" if view.weather_kinds else ""
        of += f", the {best}{where} of {len(view.names)} operating points"
    return [
        f'<p class="verdict">{_verdict(view)}</p>',
        f'<p class="note">Shown for {of}. {about}</p>',
        *(f'<p class="warning">{text}</p>' for text in _warnings(evaluation)),
        f'<div class="cards">{"".join(_cards(view))}</div>',
    ]


def _verdict(view: _View) -> str:
    kinds = view.weather_kinds
    left = {name: view.left(view.chosen, rows) for name, rows in kinds.items()}
    if not view.clear[view.chosen] > 0:
        return "Nothing is found, not even in clear weather."
    if not kinds:
        return f"{_capital(view.measure)} in clear weather: {view.clear[view.chosen]:.3f}."
    most, least = min(left, key=left.__getitem__), max(left, key=left.__getitem__)
    if len(kinds) == 1:
        return f"{_capital(_title(most))} costs {_cost(left[most])} of the {view.measure}."
    mean = view.weather[view.chosen] / view.clear[view.chosen]
    return (
        f"Weather costs {_cost(mean)} of the {view.measure}: {_title(most)} most, "
        f"{_cost(left[most])}; {_title(least)} least, {_cost(left[least])}."
    )


def _cost(left: float) -> str:
    lost = round(100 * (1 - left))
    return f"{lost}&nbsp;%" if lost > 0 else "nothing"


def _warnings(evaluation: BagEvaluation) -> list[str]:
    warnings = []
    faulty = [bag for bag in evaluation.bags if _faults(bag)]
    if faulty:
        names = ", ".join(escape(bag.name) for bag in faulty)
        warnings.append(f'<a href="#bags">Something was wrong</a> with {names}.')
    if evaluation.unmatched:
        warnings.append(f"{evaluation.unmatched:,} frames without ground truth are left out.")
    if evaluation.unknown_classes:
        names = ", ".join(map(escape, evaluation.unknown_classes))
        warnings.append(f"Classes that no model knows are left out: {names}.")
    return warnings


def _faults(bag: BagFacts) -> list[str]:
    faults = []
    if bag.broken:
        faults.append(f"reading ended early: {bag.broken}")
    if bag.failed:
        faults.append(f"{bag.failed:,} pictures unreadable, the first: {bag.first_failure}")
    if bag.backwards:
        faults.append(f"stamps went back {bag.backwards:,} times")
    return faults


def _cards(view: _View) -> list[str]:
    """What each weather costs."""
    runs = view.of.results[view.chosen]
    clear = view.clear[view.chosen]
    cards = []
    for name, rows in view.kinds.items():
        longest = max(runs[row].dropouts.longest_seconds for row in rows)
        lost = f"longest dropout {longest:.1f}&nbsp;s"
        if name == CLEAR.name:
            found = f"{_found(runs[0]):.0%}".replace("%", "&nbsp;%")
            lines = [f"{found} of sightings found", lost]
            cards.append(card("clear", f"{clear:.3f}", view.measure, None, lines))
            continue
        left = view.left(view.chosen, rows)
        severities = [view.of.conditions[row].severity for row in rows]
        lines = [f"{view.measure} {view.ap50(view.chosen, rows):.3f}"]
        if len(rows) > 1:
            lines[0] = f"mean {lines[0]}"
            lines.append(f"{runs[rows[-1]].ap50:.3f} at severity {severities[-1]}")
        number = f"{100 * left:.0f}&nbsp;%" if np.isfinite(left) else "&ndash;"
        cards.append(card(_title(name), number, "left", left, [*lines, lost]))
    return cards


def _found(run: RunResult) -> float:
    return run.dropouts.found / max(run.dropouts.frames, 1)


def _choice(view: _View) -> list[str]:
    """Which operating point to take."""
    head = ["with at least", "take", f"{view.measure}, clear"]
    if view.weather_kinds:
        head += [f"{view.measure}, weather", "left, %"]
    rows = []
    for n in view.best:
        least = math.ceil(10 * view.costs[n]) / 10  # rounded up, or it would not be enough
        row = [f"{least:.1f}&nbsp;ms", text_cell(view.signed(n)), _cell(view.clear[n])]
        if view.weather_kinds:
            row += [_cell(view.weather[n]), _percent(view.of.rpc[n], bar=True)]
        rows.append(row)
    text = (
        "For a time that is there for each picture, the operating point with the best "
        f"{view.measure}{' in weather' if view.weather_kinds else ''} that stays within it nine "
        "times of ten. The time is that of resizing and the network on one thread of "
        f"{escape(view.of.machine)}; transport, waiting, decoding, picking boxes and publishing "
        "are not in it."
    )
    if view.weather_kinds:
        text += f" What is left is the {view.measure} in weather as a share of the clear one (rPC)."
    if view.of.against == "consistency":
        text += " Consistency tells how alike detections are, not which of them are right."
    others = [view.signed(n) for n in range(len(view.names)) if n not in view.best]
    if others:
        text += f" Never worth its time here: {', '.join(others)}."
    return [
        "<h2>Which operating point to take</h2>",
        table(head, rows, words=[1]),
        f'<p class="note">{text}</p>',
    ]


def _severity_plots(view: _View) -> str:
    y_max = ceiling([run.ap50 for own in view.of.results for run in own])
    plots = []
    for name, rows in view.weather_kinds.items():
        rows = [0, *rows]
        x = np.array([view.of.conditions[row].severity for row in rows], np.float64)
        lines = [Line(x, np.array([own[row].ap50 for row in rows])) for own in view.of.results]
        ticks = [(0.0, "clear"), *((severity, f"{severity:g}") for severity in x[1:])]
        plots.append((_title(name), plot_lines(lines, "severity", view.measure, ticks, y_max)))
    return panels(plots)


def _latency(view: _View) -> list[str]:
    quality = "Accuracy" if view.of.against == "ground truth" else "Consistency"
    values = {"clear": view.clear}
    if view.weather_kinds:
        values["mean of weather"] = view.weather
    y_max = ceiling([value for each in values.values() for value in each])
    plots = [
        (
            title,
            plot_frontier(
                view.costs,
                each,
                find_frontier(view.costs, each),
                "p90 of the time for a picture, ms",
                view.measure,
                y_max,
            ),
        )
        for title, each in values.items()
    ]
    rows = [
        [
            view.signed(n),
            _cell(each.p50_ms, digits=1),
            _cell(each.p90_ms, digits=1),
            *(_cell(own[n]) for own in values.values()),
        ]
        for n, each in enumerate(view.of.latency)
    ]
    return [
        f"<h2>{quality} against latency</h2>",
        "<p>The dashed steps are the most that can be had in so many milliseconds.</p>",
        panels(plots),
        table(
            [
                "operating point",
                "p50, ms",
                "p90, ms",
                *(f"{view.measure}, {title}" for title in values),
            ],
            rows,
        ),
    ]


def _heights(view: _View) -> list[str]:
    heights = view.of.results[0][0].heights
    ticks = [
        (float(n), f"{100 * each.low:g}\N{EN DASH}{100 * min(each.high, 1):g}")
        for n, each in enumerate(heights)
    ]
    values = {
        name: [
            _mean_over_rows(
                np.array([[each.ap50 for each in own[row].heights] for row in rows], np.float64)
            )
            for own in view.of.results
        ]
        for name, rows in view.kinds.items()
    }
    y_max = ceiling([value for lines in values.values() for line in lines for value in line])
    x = np.arange(len(heights), dtype=np.float64)
    plots = [
        (
            _title(name),
            plot_lines(
                [Line(x, y) for y in lines],
                "height of the box, % of the picture",
                view.measure,
                ticks,
                y_max,
            ),
        )
        for name, lines in values.items()
    ]
    boxes = ", ".join(f"{each.boxes:,}" for each in heights)
    return [
        f"<h2>{_capital(view.measure)} by height</h2>",
        f"<p>Small is far away{view.over}. Boxes, from low to high: {boxes}.</p>",
        panels(plots),
    ]


def _dropouts(view: _View) -> list[str]:
    head = [
        "condition",
        "found, %",
        "objects never found",
        "dropouts",
        "mean, s",
        "longest, s",
        "flicker, 1/s",
    ]
    tables = []
    for own in view.of.results:
        rows = []
        for run in own:
            lost = run.dropouts
            rows.append(
                [
                    _condition(run.condition),
                    _percent(_found(run), bar=True),
                    f"<td>{lost.never:,} of {lost.objects:,}</td>",
                    f"<td>{lost.count:,}</td>",
                    _cell(lost.mean_seconds, digits=2),
                    _cell(lost.longest_seconds, digits=2),
                    _cell(lost.flicker, digits=2),
                ]
            )
        tables.append(table(head, rows))
    return [
        "<h2>Dropouts</h2>",
        "<p>An object is found by a detection of its class with IoU 0.5 and a score of "
        f"{SELECTION.score_threshold:g} or more. A dropout is the time in which one that was found "
        "before is not. Flicker counts the changes between found and lost, for each object and "
        "second in sight.</p>",
        *_chosen_first(view, tables),
    ]


def _chosen_first(view: _View, contents: Sequence[str]) -> list[str]:
    """The chosen point's, and folded those of the others."""
    shown = [f'<p class="caption">{view.signed(view.chosen)}</p>', contents[view.chosen]]
    others = [n for n in range(len(contents)) if n != view.chosen]
    return [*shown, *(fold(view.signed(n), contents[n]) for n in others)]


def _over_time(view: _View) -> list[str]:
    runs = view.of.results[view.chosen]
    parts = []
    for bag in view.of.bags:
        usual, step = _thinned(runs[0].timeline[bag.name])
        minutes = len(usual) * step > 300
        edges = np.arange(len(usual) + 1) * np.float64(step / 60 if minutes else step)
        plots = []
        for name, rows in (view.weather_kinds or view.kinds).items():
            mean = _mean_over_rows(np.array([runs[row].timeline[bag.name] for row in rows]))
            y, _ = _thinned(mean)
            label = "minutes" if minutes else "seconds"
            svg = plot_over_time(edges, y, usual, view.chosen, label, "found")
            plots.append((_title(name), svg))
        parts.append((bag.name, panels(plots, wide=True)))
    text = f"Share of the objects in sight that is found{view.over}."
    if view.weather_kinds:
        text += " Dotted: in clear weather."
    if len(parts) > 1:
        shown = [fold(escape(name), content, n == 0) for n, (name, content) in enumerate(parts)]
    else:
        shown = [content for _, content in parts]
    return [
        "<h2>Over time</h2>",
        f'<p>{text}</p><p class="caption">{view.signed(view.chosen)}</p>',
        *shown,
    ]


def _thinned(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Means of so many values each that there are not too many, and how many that is."""
    step = max(1, -(-len(values) // MOST_TIMES))
    padded = np.pad(values, (0, -len(values) % step), constant_values=np.nan)
    return _mean_over_rows(padded.reshape(-1, step).T), step


def _moments(view: _View, pictures: Pictures) -> list[str]:
    truth = "the truth"
    if view.of.against == "consistency":
        truth = f"what {escape(view.of.reference)} sees in clear weather"
    parts = [
        "<h2>Worst moments</h2>",
        "<p>Large objects that are found in clear weather and lost in weather. Detections have "
        f"the colour of their class; {truth} is dashed, thick where it is missed, and the largest "
        "of those are named.</p>",
    ]
    for name in view.weather_kinds:
        parts.append(f"<h3>{escape(_title(name))}</h3>")
        own = [moment for moment in view.of.moments if moment.condition.name == name]
        parts += [_strip(view, moment, pictures) for moment in own]
        if not own:
            parts.append("<p>Nothing is lost.</p>")
    return parts


def _strip(view: _View, moment: Moment, pictures: Pictures) -> str:
    number = view.of.points.index(moment.point)
    condition = _condition(moment.condition)
    stamp = f"{moment.stamp // 10**9}.{moment.stamp % 10**9 // 10**6:03d}"
    caption = f"{moment.bag}, frame {moment.number}, stamp {stamp}: {view.names[number]}"
    texts = [
        f"clear: finds {moment.found_clear} of {len(moment.boxes)}",
        f"{condition}: misses {len(moment.missed)} of {len(moment.boxes)}",
    ]
    shown = pictures(moment)
    if shown is None:
        return strip(f"{caption}. {'; '.join(texts)}. The bag was not at hand to show it.", [])
    clean, degraded, in_clear, in_weather, classes = shown

    def show(rgb: NDArray[np.uint8], found: Detections, missed: Sequence[int]) -> bytes:
        sure = found.scores >= SELECTION.score_threshold  # those that the node reports by default
        reported = Detections(found.boxes[sure], found.scores[sure], found.classes[sure])
        return show_objects(rgb, reported, classes, moment.boxes, moment.names, missed)

    files = [show(clean, in_clear, ()), show(degraded, in_weather, moment.missed)]
    return strip(
        caption,
        [(file, f"{caption}, {text}", text) for file, text in zip(files, texts, strict=True)],
    )


def _bags(view: _View) -> list[str]:
    rows = []
    for bag in view.of.bags:
        faults = "; ".join(_faults(bag))
        rows.append(
            [
                escape(bag.name),
                f"<td>{bag.frames:,}</td>",
                f"<td>{_duration(bag.seconds)}</td>",
                text_cell(escape(bag.topic)),
                text_cell(escape(faults) or "&ndash;"),
            ]
        )
    parts = [
        '<h2 id="bags">Bags</h2>',
        table(["bag", "frames", "duration", "topic", "faults"], rows, words=[3, 4]),
    ]
    if len(view.of.bags) > 1:
        tables = []
        for own in view.of.results:
            rows = []
            for bag in view.of.bags:
                means = (
                    _mean([own[row].bags[bag.name] for row in places])
                    for places in view.kinds.values()
                )
                rows.append([escape(bag.name), *map(_cell, means)])
            tables.append(table(["bag", *map(_title, view.kinds)], rows))
        parts += [f"<h3>{_capital(view.measure)} of each</h3>", *_chosen_first(view, tables)]
    return parts


def _details(view: _View) -> list[str]:
    strict = "AP" if view.of.against == "ground truth" else f"{view.measure} at IoU 0.50 to 0.95"
    head = ["condition"]
    for n in range(len(view.names)):
        head += [f"{view.signed(n)}<br>{kind}" for kind in (view.measure, strict)]
    rows = []
    for place, condition in enumerate(view.of.conditions):
        runs = [own[place] for own in view.of.results]
        rows.append(
            [_condition(condition), *(_cell(v) for run in runs for v in (run.ap50, run.ap))]
        )
    parts = ["<h2>All figures</h2>", fold("Every condition and severity", table(head, rows))]
    for n, own in enumerate(view.of.results):
        rows = [
            [
                escape(name),
                *(
                    _cell(_mean([own[row].classes[name][1] for row in places]))
                    for places in view.kinds.values()
                ),
            ]
            for name in own[0].classes
        ]
        title = f"{_capital(view.measure)} of each class{view.over}: {view.signed(n)}"
        parts.append(fold(title, table(["class", *map(_title, view.kinds)], rows)))
    return parts


def _settings(view: _View, versions: dict[str, str]) -> str:
    evaluation = view.of
    rows = {
        "operating points": "; ".join(map(str, evaluation.points)),
        "held against": f"{evaluation.against}: {evaluation.reference}",
        "conditions": ", ".join(map(_condition, evaluation.conditions)),
        "seed of the weather": str(evaluation.seed),
        "frames taken": f"1 of {evaluation.every}" if evaluation.every > 1 else "all",
        "latencies measured on": evaluation.machine,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        **{f"bag {bag.name}": f"{bag.path}, {bag.fingerprint}" for bag in evaluation.bags},
    }
    content = "".join(
        f"<p><strong>{escape(name)}:</strong> {escape(value)}</p>" for name, value in rows.items()
    )
    return (
        fold("Settings and versions", content)
        + '<p class="note">The figures are in report.json, too.</p>'
    )


def _cell(value: float | None, digits: int = 3) -> str:
    return cell(_figure(value), digits=digits)


def _percent(value: float | None, bar: bool = False) -> str:
    return cell(_figure(value), percent=True, bar=bar, digits=0)


def _figure(value: float | None) -> Figure:
    return Figure(value if value is not None and np.isfinite(value) else None)


def _title(name: str) -> str:
    return name.replace("_night", " at night")


def _condition(condition: Condition) -> str:
    return f"{_title(condition.name)} {condition.severity}" if condition.severity else "clear"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        text = f"{hours} h {minutes:02d} min"
    elif minutes:
        text = f"{minutes} min {rest:02d} s"
    else:
        text = f"{seconds:.1f} s"
    return text.replace(" ", "&nbsp;")
