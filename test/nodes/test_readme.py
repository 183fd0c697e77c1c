import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from mbnet_perception.cli import build_parser
from mbnet_perception.core.images import ENCODINGS
from mbnet_perception.nodes.diagnostics import STAGES, WINDOW
from mbnet_perception.nodes.parameters import DetectorSettings
from mbnet_perception.nodes.surface import main, renewed

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
LINES = "".join(re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)).splitlines()
COMMANDS = [line for line in LINES if re.match(r"(\.venv/bin/)?mbnet ", line)]


def words(start, end):
    """Text between two pieces of the README, each of which it has."""
    assert TEXT.count(start) == 1
    after = TEXT.split(start)[1]
    assert end in after
    return after.split(end)[0]


def test_the_tables_are_current():
    assert renewed(TEXT) == TEXT, "make readme makes the tables anew"


@pytest.mark.parametrize(
    ("was", "now"),
    [
        pytest.param("| `alpha` | double | `0.5` |", "| `alpha` | double | `0.6` |", id="default"),
        pytest.param("| 0 to 1 |", "| 0 to 2 |", id="range"),
        pytest.param("reliable, transient local", "reliable", id="QoS"),
        pytest.param("`std_srvs/srv/SetBool`", "`std_srvs/srv/Trigger`", id="type of a service"),
        pytest.param("| no | Threads", "| yes | Threads", id="at run time"),
        pytest.param("\n| `autostart`", "\n| `autostop`", id="name"),
        pytest.param("| `max_age_ms` |", "| `max_age_ms` | |", id="a cell too many"),
    ],
)
def test_a_broken_cell_is_noticed_and_put_right(was, now):
    broken = TEXT.replace(was, now, 1)
    assert broken != TEXT
    assert renewed(broken) == TEXT


def test_a_missing_row_is_noticed():
    row = next(line for line in TEXT.splitlines() if line.startswith("| `/diagnostics` |"))
    assert renewed(TEXT.replace(row + "\n", "")) == TEXT


@pytest.mark.parametrize(
    ("was", "now", "got"),
    [
        pytest.param(
            "<!-- table: services -->",
            "",
            "topics, parameters, weather_parameters",
            id="no beginning",
        ),
        pytest.param("<!-- end of table -->", "", "none", id="no end"),
        pytest.param(
            "table: topics",
            "table: services",
            "services, services, parameters, weather_parameters",
            id="twice",
        ),
        pytest.param(
            "table: topics",
            "table: actions",
            "actions, services, parameters, weather_parameters",
            id="unknown",
        ),
    ],
)
def test_markers_that_are_wrong_are_refused(was, now, got):
    with pytest.raises(ValueError, match=rf"parameters, weather_parameters once, got {got}"):
        renewed(TEXT.replace(was, now))


def test_the_command_says_whether_the_file_changed(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text(TEXT.replace("| `alpha` |", "| `beta` |"), encoding="utf-8")
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: tables made anew\n"
    assert file.read_text(encoding="utf-8") == TEXT
    assert main([str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: is current\n"


def test_the_command_fails_on_a_file_without_tables(tmp_path, capsys):
    file = tmp_path / "README.md"
    file.write_text("# Nothing\n", encoding="utf-8")
    assert main([str(file)]) == 1
    assert "once, got none" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "# Nothing\n"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!http)([^)]+)\)", TEXT))))
def test_links_lead_somewhere(target):
    assert (README.parent / target).is_file()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    build_parser().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.parametrize("file", ["detect.launch.py", "evaluate.launch.py"])
def test_launch_arguments_are_those_of_the_file(file):
    given = {name for line in LINES if file in line for name in re.findall(r"(\w+):=", line)}
    # By their text: launch is not installed everywhere.
    code = (README.parent / "launch" / file).read_text(encoding="utf-8")
    declared = set(re.findall(r'"(\w+)"', code))
    if file == "detect.launch.py":
        declared = {row.name for row in fields(DetectorSettings)}
    assert given
    assert given <= declared


def test_encodings_are_those_that_are_read():
    listed = words("Raw images may be ", ";\nothers")
    assert set(re.split(r", | or\s+", listed.replace("\n", " "))) == set(ENCODINGS)


def test_stages_and_window_are_those_of_diagnostics():
    told = words("max over the newest ", " of them fell")
    assert told.startswith(f"{WINDOW} frames")
    for stage in STAGES:
        assert re.search(rf"\b{stage}\b", told)
