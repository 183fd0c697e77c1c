"""The README's tables of what the nodes offer to ROS, made from what the nodes are made of.

`python -m mbnet_perception.nodes.surface README.md` writes them between their markers.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import Any

from mbnet_perception.nodes.endpoints import CAMERA, ENDPOINTS, Endpoint
from mbnet_perception.nodes.parameters import DetectorSettings, Settings, WeatherSettings

MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n)(.*?)(?=<!-- end of table -->)", re.DOTALL)
"""A table between its markers: its name, the marker's end, and what stands there."""

# ROS 2's own words, as `ros2 param describe` says them.
TYPES = {bool: "boolean", int: "integer", float: "double", str: "string"}


def topic_table() -> str:
    """Topics of the detector, in Markdown."""
    rows = [
        (_names(one), f"`{one.type_name}`", one.direction, _qos(one), _prose(one.meaning))
        for one in ENDPOINTS
        if one.direction != "service"
    ]
    return _table(("topic", "type", "direction", "QoS", "meaning"), rows)


def service_table() -> str:
    """Services of the detector, in Markdown."""
    rows = [
        (_names(one), f"`{one.type_name}`", _prose(one.meaning))
        for one in ENDPOINTS
        if one.direction == "service"
    ]
    return _table(("service", "type", "meaning"), rows)


def parameter_table(table: type[Settings]) -> str:
    """Parameters of a node, in Markdown."""
    rows = [
        (
            f"`{row.name}`",
            _type(row),
            f"`{_default(row)}`",
            _prose(_range(row)),
            "no" if row.metadata["read_only"] else "yes",
            _prose(row.metadata["description"]),
        )
        for row in fields(table)
    ]
    return _table(("name", "type", "default", "range", "at run time", "meaning"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "topics": topic_table,
    "services": service_table,
    "parameters": partial(parameter_table, DetectorSettings),
    "weather_parameters": partial(parameter_table, WeatherSettings),
}


def renewed(text: str) -> str:
    """A Markdown text with its marked tables made anew.

    Raises:
        ValueError: If it does not have each table once.
    """
    found = [match[1] for match in MARKED.finditer(text)]
    if sorted(found) != sorted(TABLES):
        raise ValueError(
            f"expected the markers of each of the tables {', '.join(TABLES)} once, "
            f"got {', '.join(found) or 'none'}; a table stands between <!-- table: name --> and "
            "<!-- end of table -->"
        )
    return MARKED.sub(lambda match: match[1] + match[2] + TABLES[match[1]](), text)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the tables of a file anew; 1 where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m mbnet_perception.nodes.surface",
        description="Make the tables of topics, services and parameters in a README anew.",
    )
    parser.add_argument("readme", type=Path, help="Markdown file with the tables' markers")
    path = parser.parse_args(argv).readme
    try:
        before = path.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {path}: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {'is current' if after == before else 'tables made anew'}")
    return 0


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _names(endpoint: Endpoint) -> str:
    one, several = (
        f"`{name.replace(CAMERA, '<camera topic>')}`"
        for name in (endpoint.name, endpoint.name_of_several)
    )
    return one if one == several else f"{one}; with several cameras {several}"


def _qos(endpoint: Endpoint) -> str:
    words = ["reliable" if endpoint.reliable else "best effort"]
    if endpoint.latched:
        words.append("transient local")
    return ", ".join([*words, f"depth {endpoint.depth}"])


def _type(row: Field[Any]) -> str:
    if isinstance(row.default, tuple):
        return f"{TYPES[row.metadata['of']]} array"
    return TYPES[type(row.default)]


def _default(row: Field[Any]) -> str:
    """As one would write it in a parameter file."""
    if isinstance(row.default, tuple):
        return f"[{', '.join(map(str, row.default))}]"
    if isinstance(row.default, bool):
        return str(row.default).lower()
    return str(row.default) or '""'


def _range(row: Field[Any]) -> str:
    if row.metadata["span"]:
        low, high = row.metadata["span"]
        return f"{low:g} to {high:g}"
    return str(row.metadata["constraints"])


def _prose(text: str) -> str:
    """Text of a cell: names as code, so that Markdown takes no <topic> for HTML."""
    names = r"(?:~/)?<[\w ]+>(?:/\w+)*|(?<!\w)~?/\w+(?:/\w+)*|\w+_\w+(?:/\w+)*"
    return re.sub(names, lambda match: f"`{match[0]}`", text).replace("|", r"\|")


if __name__ == "__main__":
    sys.exit(main())
