"""What the reports in HTML share: a page that needs nothing else, and the parts it is made of."""

from __future__ import annotations

import base64
import importlib.metadata
import math
from collections.abc import Collection, Iterable, Sequence
from html import escape

from mbnet_perception.evaluation.bootstrap import Figure
from mbnet_perception.evaluation.plots import DARK_COLOURS, LIGHT_COLOURS, colour_of, sign_of

_WORDS = ' class="words"'


def whole_page(title: str, sections: Sequence[str]) -> str:
    """An HTML document in the reader's colour scheme, for wide and narrow screens.

    Args:
        title: Plain text.
        sections: HTML, one below the other.
    """
    return _SHELL.format(
        title=escape(title),
        light=_colours(LIGHT_COLOURS),
        dark=_colours(DARK_COLOURS),
        body="\n".join(sections),
    )


def _colours(colours: Sequence[str]) -> str:
    return " ".join(f"--line-{n}: {colour};" for n, colour in enumerate(colours))


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # OpenCV goes by several names
    return versions


def sign(number: int) -> str:
    """The marker that a thing has in the plots."""
    style = f"color: var(--line-{colour_of(number)})"
    return f'<span class="sign" style="{style}">{sign_of(number)}</span>'


def signed(number: int, name: str) -> str:
    """Sign and name; a long name may break after its underscores."""
    return f"{sign(number)}&nbsp;{escape(name).replace('_', '_<wbr>')}"


def legend(items: Sequence[str]) -> str:
    """What the signs stand for, always in sight where there is room; the items are HTML."""
    return f'<ul class="legend">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int] = ()) -> str:
    """A table that scrolls by itself where the page is narrow.

    Args:
        head: HTML of the cells of the first row.
        rows: HTML of the first cell of each row, and then ``<td>`` elements.
        words: Columns that hold words, as from :func:`text_cell`, and not figures.
    """
    top = "".join(
        f'<th scope="col"{_WORDS if n in words else ""}>{cell}</th>' for n, cell in enumerate(head)
    )
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(cells)}</tr>' for first, *cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def cell(
    figure: Figure,
    percent: bool = False,
    sign: bool = False,
    bar: bool = False,
    digits: int | None = None,
) -> str:
    """A figure over its interval, as an element of a table.

    Args:
        figure: What to show; a dash where it cannot be told.
        percent: Show it in percent; the sign for that is left to the row or the table.
        sign: Show the sign of positive ones, too.
        bar: Draw its share of 1 as a bar.
        digits: Behind the point; by default 1 in percent and else 3.
    """
    if digits is None:
        digits = 1 if percent else 3

    def text(value: float) -> str:
        plus = "+" if sign else ""
        number = f"{100 * value if percent else value:{plus}.{digits}f}"
        return number.replace("-", "&minus;")

    if figure.value is None:
        return "<td>&ndash;</td>"
    interval = ""
    if figure.low is not None and figure.high is not None:
        dash = " to " if sign else "&ndash;"
        interval = f"<small>{text(figure.low)}{dash}{text(figure.high)}</small>"
    style = f' class="bar" style="--share: {min(max(figure.value, 0), 1):.3f}"' if bar else ""
    return f"<td{style}>{text(figure.value)}{interval}</td>"


def text_cell(content: str) -> str:
    """An element of a table that holds words, as HTML."""
    return f"<td{_WORDS}>{content}</td>"


def card(title: str, number: str, unit: str, share: float | None, lines: Sequence[str]) -> str:
    """A figure to be seen at a glance.

    Args:
        title: What it is about, as plain text.
        number: HTML, written large.
        unit: Plain text, beside it.
        share: Of 1, drawn as a bar; None draws none.
        lines: HTML, small, one below the other.
    """
    bar = ""
    if share is not None:
        bar = f'<div class="bar" style="--share: {min(max(share, 0), 1):.3f}"></div>'
    text = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<section class="card"><h3>{escape(title)}</h3><p class="number">{number} '
        f"<small>{escape(unit)}</small></p>{bar}{text}</section>"
    )


def panels(plots: Sequence[tuple[str, str]], wide: bool = False) -> str:
    """Plots beside each other, as many as there is room for; each a title and an SVG."""
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in plots
    ]
    return f'<div class="panels{" wide" if wide else ""}">{"".join(figures)}</div>'


def strip(caption: str, pictures: Sequence[tuple[bytes, str, str]]) -> str:
    """Pictures beside each other, as many as there is room for.

    Args:
        caption: Plain text, above all of them.
        pictures: JPEG file, what it shows as plain text, and HTML to stand below it.
    """
    figures = []
    for file, shows, text in pictures:
        data = base64.b64encode(file).decode()
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" loading="lazy" '
            f'alt="{escape(shows)}"><figcaption>{text}</figcaption></figure>'
        )
    return f'<p class="caption">{escape(caption)}</p><div class="pictures">{"".join(figures)}</div>'


def fold(title: str, content: str, is_open: bool = False) -> str:
    """HTML that shows when its title is clicked."""
    state = " open" if is_open else ""
    return f"<details{state}><summary>{title}</summary>{content}</details>"


def ceiling(values: Iterable[float | None]) -> float:
    """A round number above all that are known, for axes that are to be compared."""
    known = (value for value in values if value is not None and math.isfinite(value))
    top = max(known, default=0.0)
    return min(1.0, max(0.1, math.ceil(10.5 * top) / 10))


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
  --bad: #d55e00;
  {light}
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --page: #14171a; --text: #e4e7ea; --quiet: #a2abb4; --grid: #4a525a; --bar: #3f9b6c;
    --bad: #ff9b4a;
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
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 .5rem; scroll-margin-top: 3rem; }}
h3 {{ font-size: 1rem; margin: 1.5rem 0 .5rem; }}
p {{ margin: .5rem 0; max-width: 65rem; overflow-wrap: break-word; }}
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
.words {{ text-align: left; max-width: 34rem; overflow-wrap: break-word; }}
.pictures + .caption {{ margin-top: 1.25rem; }}
.verdict {{ font-size: clamp(1.15rem, 2.5vw, 1.4rem); line-height: 1.35; margin: .75rem 0; }}
.warning {{ border-left: .3rem solid var(--bad); padding-left: .6rem; }}
.warning a {{ color: inherit; }}
.cards {{
  display: grid; gap: .75rem; margin: 1.25rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 100%), 1fr));
}}
.card {{ border: 1px solid var(--grid); border-radius: .5rem; padding: .6rem .9rem; }}
.card h3 {{ margin: 0; }}
.card p {{ margin: .15rem 0 0; font-size: .85rem; color: var(--quiet); }}
.card .number {{
  display: flex; flex-wrap: wrap; gap: 0 .5rem; align-items: baseline; font-size: 1.9rem;
  line-height: 1.2; font-weight: 600; color: var(--text);
}}
.card .number small {{ font-size: .9rem; line-height: 1.4; font-weight: 400; }}
.card .bar {{
  height: .45rem; margin: .3rem 0 .5rem; border-radius: .25rem;
  background: linear-gradient(to right, var(--bar) calc(100% * var(--share)), var(--grid) 0);
}}
.panels, .pictures {{ display: grid; gap: 1rem; }}
.panels {{ grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }}
.panels.wide {{ grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr)); }}
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
