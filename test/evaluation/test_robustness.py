import json
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest

from mbnet_perception import cli
from mbnet_perception.core.weather import apply_weather
from mbnet_perception.evaluation.accuracy import measure_model
from mbnet_perception.evaluation.dataset import DatasetError, read_coco
from mbnet_perception.evaluation.robustness import (
    CLEAR,
    Condition,
    Contender,
    as_json,
    degrade,
    describe,
    evaluate_robustness,
    list_conditions,
)
from mbnet_perception.inference.detector import Detector

SIZE = (64, 48)  # width, height
NAMES = ("red", "green", "blue")
CONDITIONS = list_conditions(["fog", "night"], ["noise"], [1, 5])


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Eight pictures of two sizes; where one is red or green, that is its left half."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(8):
        width, height = SIZE if i % 3 else SIZE[::-1]
        # The last is bright and empty, which gives false alarms.
        image = rng.integers(0, 60 if i < 7 else 255, (height, width, 3), np.uint8)
        if i < 6:
            image[:, : width // 2, 2 - i % 2] = 150 + 10 * i  # BGR
            annotations.append(
                {
                    "id": i + 1,
                    "image_id": i,
                    "category_id": 1 + i % 2,
                    "bbox": [0, 0, width // 2, height],
                }
            )
        cv2.imwrite(str(folder / f"{i}.png"), image)
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
    path = folder / "labels.json"
    categories = [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


@pytest.fixture(scope="module")
def dataset(labels):
    return read_coco(labels)


@pytest.fixture(scope="module")
def contenders(make_model):
    """Of any picture, the first sees its mean colours in the left half, the second in the right."""
    return [
        Contender("left", make_model([(0, 0, 0.5, 1)]), 64),
        Contender("near", make_model([(0.1, 0, 0.6, 1)]), 64),
    ]


@pytest.fixture(scope="module")
def result(dataset, contenders):
    return evaluate_robustness(dataset, contenders, CONDITIONS, seed=3, resamples=40)


def test_clear_comes_first_and_once():
    conditions = list_conditions(["rain", "clear", "rain"], ["blur"], [3, 1])
    assert [str(each) for each in conditions] == ["clear", "rain 1", "rain 3", "blur 1", "blur 3"]
    assert list_conditions([], [], [1]) == (CLEAR,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((["hail"], [], [1]), "weather 'hail' is unknown; known: clear, fog", id="w"),
        pytest.param(([], ["fog"], [1]), "corruption 'fog' is unknown; known: noise", id="c"),
        pytest.param((["fog"], [], [0, 1]), r"severities must be among .* got \(0, 1\)", id="low"),
        pytest.param((["fog"], [], []), r"severities must be among .* got \(\)", id="none"),
    ],
)
def test_what_is_unknown_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        list_conditions(*arguments)


def test_a_pictures_weather_is_its_own(dataset):
    image = cv2.imread(str(dataset.pictures[0].path))
    snow = Condition("snow", 3)
    assert degrade(image, CLEAR, 0, 0) is image
    first = degrade(image, snow, place=0, seed=0)
    assert (first == degrade(image, snow, place=0, seed=0)).all()
    assert (first != degrade(image, snow, place=1, seed=0)).any()
    assert (first != degrade(image, snow, place=0, seed=1)).any()


def test_weather_is_the_kernels(dataset):
    image = cv2.imread(str(dataset.pictures[0].path))
    shown = degrade(image, Condition("fog", 5), place=0, seed=0)
    # Fog's patches follow the seed, but most of it is the visibility.
    kernel = apply_weather(image, "fog", 5, seed=0)
    assert abs(shown.astype(int) - kernel).mean() < abs(shown.astype(int) - image).mean() / 4


def test_clear_is_what_is_measured_without_weather(dataset, contenders, result):
    for contender, model in zip(contenders, result.models, strict=True):
        expected = measure_model(dataset, Detector(contender.model, 64, num_threads=1))
        clear = model.conditions[0]
        assert clear.condition == CLEAR
        assert clear.mean.ap.value == pytest.approx(expected.ap)
        assert clear.mean.ap50.value == pytest.approx(expected.ap50)
        assert list(clear.classes) == ["red", "green"]
        for name, own in clear.classes.items():
            assert own.ap.value == pytest.approx(expected.classes[name].ap)
    assert result.models[0].conditions[0].mean.ap.value > 0.3


def test_summaries_are_means_over_conditions(result):
    for model in result.models:
        value = {str(each.condition): each.mean.ap50.value for each in model.conditions}
        weather = [value[name] for name in ("fog 1", "fog 5", "night 1", "night 5")]
        summaries = model.summaries
        assert list(summaries) == ["weather", "corruptions", "fog", "night", "noise"]
        assert summaries["weather"].mpc.ap50.value == pytest.approx(np.mean(weather))
        assert summaries["fog"].mpc.ap50.value == pytest.approx(np.mean(weather[:2]))
        noise = (value["noise 1"] + value["noise 5"]) / 2
        assert summaries["corruptions"].mpc.ap50.value == pytest.approx(noise)
        assert summaries["noise"].rpc.ap50.value == pytest.approx(noise / value["clear"])


def test_models_are_compared_with_the_first(result):
    first, second = result.models
    for name in first.summaries:
        a, b = first.summaries[name], second.summaries[name]
        assert a.rpc_difference.ap.value == a.mpc_difference.ap50.value == 0
        assert (a.rpc_difference.ap.low, a.rpc_difference.ap.high) == (0, 0)  # the same resamples
        difference = b.mpc.ap.value - a.mpc.ap.value
        assert b.mpc_difference.ap.value == pytest.approx(difference)
        assert b.rpc_difference.ap.value == pytest.approx(b.rpc.ap.value - a.rpc.ap.value)
    clear = [model.conditions[0].mean.ap.value for model in result.models]
    assert second.clear_difference.ap.value == pytest.approx(clear[1] - clear[0])


def test_figures_lie_in_intervals_that_have_a_width(result):
    figure = result.models[0].conditions[0].mean.ap
    assert figure.low < figure.value < figure.high


def test_any_number_of_jobs_gives_the_same(dataset, contenders, result):
    shared = evaluate_robustness(dataset, contenders, CONDITIONS, seed=3, jobs=2, resamples=40)
    assert as_json(shared) == as_json(result)
    for own, other in zip(shared.models, result.models, strict=True):
        assert np.array_equal(own.curves, other.curves, equal_nan=True)
        assert (own.found == other.found).all()


def test_a_model_that_finds_nothing_has_no_share_left(dataset, contenders, make_model):
    blind = Contender("blind", make_model([(0, 0, 0.5, 1)], [(0, 0, 0)]), 64)
    result = evaluate_robustness(dataset, [contenders[0], blind], CONDITIONS, resamples=5)
    summary = result.models[1].summaries["weather"]
    assert summary.mpc.ap.value == 0
    assert summary.rpc.ap.value is summary.rpc_difference.ap.value is None
    assert "rPC weather          -  " in "\n".join(describe(result))


def test_boxes_know_what_found_them(dataset, contenders, result):
    # The mean red or green of the picture, which is the model's score.
    picture = dataset.pictures[1]
    mean = cv2.imread(str(picture.path))[..., 1].mean() / 255
    assert result.models[0].found.shape == (7, 6)
    assert result.models[0].found[0, 1] == pytest.approx(mean, abs=0.01)


def test_json_says_it_all(result):
    content = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert "synthetic" in content["note"]
    assert (content["seed"], content["resamples"], content["scenes"]) == (3, 40, 8)
    assert content["confidence"] == 0.95
    assert [model["name"] for model in content["models"]] == ["left", "near"]
    model = content["models"][0]
    assert [(c["condition"], c["severity"]) for c in model["conditions"]] == [
        ("clear", 0),
        ("fog", 1),
        ("fog", 5),
        ("night", 1),
        ("night", 5),
        ("noise", 1),
        ("noise", 5),
    ]
    assert model["conditions"][1]["ap50"] == asdict(result.models[0].conditions[1].mean.ap50)
    assert set(model["conditions"][1]["classes"]["red"]) == {"ap", "ap50"}
    assert set(model["summaries"]["fog"]) == {
        "mpc",
        "rpc",
        "mpc_difference",
        "rpc_difference",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"contenders": []}, "at least one", id="no model"),
        pytest.param({"conditions": CONDITIONS[1:]}, "must be clear, got fog 1", id="no clear"),
        pytest.param({"jobs": 0}, "jobs must be positive", id="jobs"),
        pytest.param({"seed": -1}, "seed must not be negative", id="seed"),
        pytest.param({"resamples": -1}, "resamples -1", id="resamples"),
    ],
)
def test_what_makes_no_sense_is_refused(dataset, contenders, changes, message):
    arguments = {"contenders": contenders, "conditions": CONDITIONS, **changes}
    with pytest.raises(ValueError, match=message):
        evaluate_robustness(dataset, **arguments)


def test_models_need_different_names(dataset, contenders):
    with pytest.raises(ValueError, match="different names"):
        evaluate_robustness(dataset, [contenders[0]] * 2, CONDITIONS)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_picture_that_is_missing_is_named(dataset, contenders, tmp_path, jobs):
    gone = replace(dataset.pictures[2], path=tmp_path / "gone.png")
    damaged = replace(dataset, pictures=(*dataset.pictures[:2], gone, *dataset.pictures[3:]))
    with pytest.raises(DatasetError, match=r"gone\.png"):
        evaluate_robustness(damaged, contenders, [CLEAR], jobs=jobs)


# The command.


@pytest.fixture
def evaluate(capsys, tmp_path, labels, contenders):
    def run(*options, models=2):
        arguments = ["evaluate", "--data", labels, "--resolution", 64]
        for contender in contenders[:models]:
            file = tmp_path / f"{contender.name}.onnx"
            file.write_bytes(contender.model)
            arguments += ["--model", file]
        status = cli.main([str(argument) for argument in (*arguments, *options)])
        return status, *capsys.readouterr()

    return run


def test_the_command_gives_json_for_several_models(evaluate, result):
    status, out, _ = evaluate(
        *("--weather", "clear,fog,night", "--corruptions", "noise", "--severity", "1,5"),
        *("--seed", 3, "--bootstrap", 40, "--json"),
    )
    assert status == 0
    assert json.loads(out) == json.loads(json.dumps(as_json(result)))


def test_the_command_gives_a_table(evaluate, result):
    status, out, _ = evaluate("--weather", "fog", "--severity", "1-2", "--bootstrap", 0, models=1)
    rows = [line.split() for line in out.splitlines()]
    assert status == 0
    assert rows[0][:1] == ["Weather"]
    assert [row[:-2] for row in rows[4:]] == [
        ["clear"],
        ["fog", "1"],
        ["fog", "2"],
        ["mPC", "weather"],
        ["mPC", "fog"],
        ["rPC", "weather"],
        ["rPC", "fog"],
    ]
    assert rows[4][-1] == f"{result.models[0].conditions[0].mean.ap50.value:.3f}"


def test_without_weather_it_measures_as_ever(evaluate, dataset, contenders):
    status, out, _ = evaluate("--json", models=1)
    expected = measure_model(dataset, Detector(contenders[0].model, 64))
    assert status == 0
    assert json.loads(out)["ap50"] == pytest.approx(expected.ap50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--weather", "hail"], "weather 'hail' is unknown", id="weather"),
        pytest.param(["--weather", "fog", "--severity", "6"], "severities must be", id="severity"),
        pytest.param(["--weather", "fog", "--jobs", "0"], "jobs must be positive", id="jobs"),
    ],
)
def test_the_command_says_what_it_cannot_do(evaluate, options, message):
    status, out, err = evaluate(*options, models=1)
    assert (status, out) == (1, "")
    assert f"error: {message}" in err


def test_a_severity_that_is_no_number_is_answered(evaluate, capsys):
    with pytest.raises(SystemExit):
        evaluate("--severity", "bad")
    assert "argument --severity: invalid" in capsys.readouterr().err
