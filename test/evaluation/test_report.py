import json
import os
import re

import cv2
import numpy as np
import pytest

from mbnet_perception import cli
from mbnet_perception.evaluation import report
from mbnet_perception.evaluation.dataset import read_coco
from mbnet_perception.evaluation.report import write_report
from mbnet_perception.evaluation.robustness import (
    Contender,
    as_json,
    evaluate_robustness,
    list_conditions,
)

NAME = '<b>bold</b> & "quoted" model'


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Three pictures with a bright red left half, which is an object, and one all red without."""
    folder = tmp_path_factory.mktemp("data")
    images, annotations = [], []
    for i in range(4):
        image = np.zeros((48, 64, 3), np.uint8)
        image[:, : 32 if i < 3 else 64, 2] = 255
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
        if i < 3:
            annotations.append({"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 32, 48]})
    path = folder / "a <i> & b.json"
    categories = [{"id": k, "name": name} for k, name in enumerate(("red", "green"), start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def measured(labels, make_model):
    """The first model is the surer of red the brighter it is, the second always as sure."""
    dataset = read_coco(labels)
    always = np.array([[0.7, 0, 0]])
    contenders = [
        Contender(NAME, make_model([(0, 0, 0.5, 1)]), 64),
        Contender("other", make_model([(0, 0, 0.5, 1)], always), 64),
    ]
    conditions = list_conditions(["fog", "night"], ["noise"], [1, 5])
    result = evaluate_robustness(dataset, contenders, conditions, resamples=10)
    return "a <i> & b.json", dataset, contenders, result


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "report"
    path = write_report(folder, *measured)
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "report.json"]
    return path


def test_the_page_is_whole_and_says_that_weather_is_synthetic(read_page, page):
    content = read_page(page.read_text())
    assert content.text.startswith("Robustness on a <i> & b.json")
    assert "Weather and corruptions are synthetic" in content.text
    assert "4 pictures, 3 objects" in content.text
    assert "from 10 resamples of 4 scenes" in content.text
    assert NAME in content.text
    assert "other" in content.text


def test_the_page_needs_nothing_else(read_page, page):
    content = read_page(page.read_text())
    assert not {"script", "link", "iframe", "object"} & set(content.tags)
    sources = [value for name, value in content.attributes if name in ("src", "href", "srcset")]
    assert sources
    assert all(value.startswith("data:image/jpeg;base64,") for value in sources)
    references = [value for name, value in content.attributes if name == "xlink:href"]
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"@import|url\((?!#)", page.read_text())


def test_the_page_has_both_colour_schemes_and_room_for_narrow_screens(page):
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text
    for n in range(2):
        assert len(re.findall(rf"--line-{n}: #", text)) == 2


def test_there_are_all_plots_and_pictures(read_page, page, measured):
    content = read_page(page.read_text())
    # Three kinds against severity, for AP and AP50; clear and three kinds as curves; one class.
    assert content.tags.count("svg") == 3 * 2 + 4 + 1
    assert all(title in content.text for title in ("AP50 against severity", "Worst misses"))
    # The first model's score is the mean red, a half, so night and fog make it miss.
    assert content.tags.count("img") >= 2
    assert content.tags.count("img") % 2 == 0  # each is shown for both models
    assert "misses 1 of 1" in content.text
    assert "misses 0 of 1" in content.text


def test_the_tables_hold_the_figures(read_page, page, measured):
    content = read_page(page.read_text())
    *_, result = measured
    summary = result.models[0].summaries["weather"]
    assert f"{100 * summary.rpc.ap50.value:.1f}" in content.words
    difference = result.models[1].summaries["weather"].mpc_difference.ap50.value
    assert difference > 0
    assert f"{difference:+.3f}" in content.text
    assert "night 5" in content.text


def test_json_holds_the_same_and_what_was_measured(page, measured):
    content = json.loads((page.parent / "report.json").read_text())
    data, _, _, result = measured
    assert content["data"] == data
    assert (content["pictures"], content["boxes"]) == (4, 3)
    assert "numpy" in content["versions"]
    expected = json.loads(json.dumps(as_json(result)))
    assert {key: content[key] for key in expected} == expected


def test_a_report_that_fails_leaves_the_old_one(page, measured, monkeypatch):
    before = page.read_bytes()

    def fail(*_):
        raise OSError("gone")

    monkeypatch.setattr(report, "plot_lines", fail)
    with pytest.raises(OSError, match="gone"):
        write_report(page.parent, *measured)
    assert page.read_bytes() == before


def test_a_full_disk_leaves_the_old_one(page, measured, monkeypatch):
    before = page.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_page", lambda *_: "page")
    monkeypatch.setattr(os, "fsync", fail)  # what was written lies beside by then
    with pytest.raises(OSError, match="No space left"):
        write_report(page.parent, *measured)
    assert page.read_bytes() == before
    assert sorted(file.name for file in page.parent.iterdir()) == ["report.html", "report.json"]


def test_clear_weather_alone_makes_a_report(read_page, measured, tmp_path):
    data, dataset, contenders, _ = measured
    result = evaluate_robustness(dataset, contenders[:1], list_conditions([], [], [1]), resamples=0)
    content = read_page(write_report(tmp_path, data, dataset, contenders[:1], result).read_text())
    assert "What is left" not in content.text
    assert "95 %" not in content.text
    assert content.tags.count("svg") == 2


def test_the_command_writes_a_report(read_page, labels, measured, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    file.write_bytes(measured[2][1].model)
    command = ["evaluate", "--data", str(labels), "--model", str(file), "--resolution", "64"]
    folder = tmp_path / "new" / "report"
    assert cli.main([*command, "--bootstrap", "5", "--report", str(folder)]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert read_page((folder / "report.html").read_text()).text.startswith(
        "Robustness on a <i> & b.json"
    )
