import json
import re
from dataclasses import fields
from pathlib import Path

from mbnet_perception.nodes.parameters import DetectorSettings

README = Path(__file__).parents[2] / "README.md"


def test_the_parameter_table_is_that_of_the_node():
    section = README.read_text(encoding="utf-8").split("### Parameters")[1].split("###")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|[^|]*\| (yes|no) \|", section, re.MULTILINE)
    expected = []
    for row in fields(DetectorSettings):
        default = row.default
        if isinstance(default, tuple):
            text = f"[{', '.join(default)}]"
        else:
            text = json.dumps(default) if default == "" else str(default)
        expected.append((row.name, text, "no" if row.metadata["read_only"] else "yes"))
    assert rows == expected
