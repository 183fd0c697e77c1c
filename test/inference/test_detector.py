import errno
import gc
import os

import numpy as np
import pytest

from mbnet_perception.core.detections import Selection
from mbnet_perception.core.images import Picture, picture_from_raw
from mbnet_perception.inference import detector as detector_module
from mbnet_perception.inference.detector import Detector, prepare_image
from mbnet_perception.inference.format import ModelError

# xyxy as fractions: a box of the left half, the lower right quarter, one over the edge.
BOXES = [(0.0, 0.25, 0.5, 0.75), (0.5, 0.5, 1.0, 1.0), (0.75, -0.5, 1.5, 0.25)]
SCORES = [(0.9, 0.0, 0.0), (0.0, 0.8, 0.0), (0.0, 0.0, 0.7)]


def pixels(height, width, bgr=(0, 0, 0)):
    return np.full((height, width, 3), bgr, np.uint8)


def picture(height, width, bgr=(0, 0, 0)):
    return Picture.of_bgr(pixels(height, width, bgr))


def detector_of(model, resolution=64):
    return Detector(model, resolution, num_threads=1, origin="a.onnx")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param(
            (100, 200), [(0, 25, 100, 75), (100, 50, 200, 100), (150, 0, 200, 25)], id="wide"
        ),
        pytest.param((80, 40), [(0, 20, 20, 60), (20, 40, 40, 80), (30, 0, 40, 20)], id="tall"),
        pytest.param((8, 1000), [(0, 2, 500, 6), (500, 4, 1000, 8), (750, 0, 1000, 2)], id="strip"),
    ],
)
def test_boxes_are_in_pixels_of_the_picture(make_model, size, expected):
    found, timing = detector_of(make_model(BOXES, SCORES)).detect(picture(*size), Selection())
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-5)
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert found.classes.tolist() == [0, 1, 2]
    assert min(timing.preprocess, timing.inference, timing.postprocess) > 0


def test_one_detector_serves_cameras_of_any_shape(make_model):
    detector = detector_of(make_model(BOXES, SCORES))
    for width in range(100, 200, 4):  # more shapes than it keeps sessions for
        found, _ = detector.detect(picture(100, width), Selection())
        assert found.boxes[0].tolist() == [0, 25, width / 2, 75]


@pytest.fixture
def built(monkeypatch):
    """The input sizes that sessions are built for, as it happens."""
    sizes, make_session = [], detector_module.make_session

    def make(model, input_hw, num_threads, origin):
        sizes.append(input_hw)
        return make_session(model, input_hw, num_threads, origin)

    monkeypatch.setattr(detector_module, "make_session", make)
    return sizes


def test_sixteen_shapes_of_cameras_by_turns_are_built_for_once(make_model, built):
    detector = detector_of(make_model(BOXES, SCORES))
    for _ in range(3):
        for side in range(33, 65, 2):
            detector.detect(picture(side, 64), Selection())
    assert built == [(48, 64)] + [(side, 64) for side in range(33, 65, 2)]  # the usual one first


def test_a_camera_in_use_keeps_its_session_whatever_comes_besides(make_model, built):
    detector = detector_of(make_model(BOXES, SCORES))
    detector.detect(picture(64, 64), Selection())
    for side in range(33, 63):
        detector.detect(picture(side, 64), Selection())
        detector.detect(picture(64, 64), Selection())
    assert built.count((64, 64)) == 1
    # What it says that it has seen needs no session, and it is no more than that.
    assert detector.seen == (*((side, 64) for side in range(48, 63)), (64, 64))
    del built[:]
    for size in detector.seen:
        detector.warm(size)
    assert not built


@pytest.fixture
def memory_files(monkeypatch):
    """Descriptors of the files in memory that are made, as it happens."""
    made, memfd_create = [], os.memfd_create

    def create(*args):
        made.append(memfd_create(*args))
        return made[-1]

    monkeypatch.setattr(os, "memfd_create", create)
    return made


def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError as error:
        assert error.errno == errno.EBADF
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_one_file_in_memory_serves_all_shapes_and_detectors_of_a_model(make_model, memory_files):
    first = detector_of(make_model(BOXES, SCORES))
    second = detector_of(first.model, resolution=96)
    for width in (50, 100, 200):
        first.detect(picture(100, width), Selection())
    (descriptor,) = memory_files
    del first
    gc.collect()
    assert is_open(descriptor)
    found, _ = second.detect(picture(100, 300), Selection())  # which it builds a session for
    assert found.boxes[0].tolist() == [0, 25, 150, 75]
    del second
    gc.collect()
    assert not is_open(descriptor)


def test_where_files_in_memory_are_forbidden_it_works_as_well(make_model, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "not in this sandbox")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    detector = detector_of(make_model(BOXES, SCORES))
    found, _ = detector.detect(picture(100, 200), Selection())
    assert found.boxes[0].tolist() == [0, 25, 100, 75]


def test_the_network_sees_red_first(make_model):
    detector = detector_of(make_model(BOXES[:1]))  # scores: mean red, green and blue
    found, _ = detector.detect(picture(48, 64, bgr=(51, 102, 204)), Selection(0.01))
    assert [detector.classes[k] for k in found.classes] == ["red", "green", "blue"]
    np.testing.assert_allclose(found.scores, [0.8, 0.4, 0.2], rtol=1e-5)


def test_selection_rules(make_model):
    detector = detector_of(make_model(BOXES, SCORES))
    image = picture(48, 64)
    assert detector.detect(image, Selection(0.75))[0].classes.tolist() == [0, 1]
    assert detector.detect(image, Selection(classes=("blue",)))[0].classes.tolist() == [2]
    assert detector.detect(image, Selection(max_detections=1))[0].classes.tolist() == [0]
    nothing, _ = detector.detect(image, Selection(0.95))
    assert nothing.boxes.shape == (0, 4)


def test_an_unknown_class_is_answered_with_the_known_ones(make_model):
    detector = detector_of(make_model(BOXES, SCORES))
    with pytest.raises(ValueError, match=r"'tram'.*\['red', 'green', 'blue'\]"):
        detector.detect(picture(48, 64), Selection(classes=("tram",)))


@pytest.mark.parametrize("encoding", ["rgb8", "bgra8", "rgba8", "mono8"])
def test_encodings_show_the_network_the_same(make_model, encoding):
    detector = detector_of(make_model(BOXES[:1]))  # scores: mean red, green and blue
    red_green_blue = {
        "rgb8": (204, 102, 51),
        "bgra8": (51, 102, 204, 9),
        "rgba8": (204, 102, 51, 9),
        "mono8": (102,),
    }[encoding]
    data = bytes(red_green_blue) * (48 * 64)
    image = picture_from_raw(data, 48, 64, encoding, 64 * len(red_green_blue))
    found, _ = detector.detect(image, Selection(0.01))
    scores = dict(zip(found.classes.tolist(), found.scores.tolist(), strict=True))
    expected = {0: 0.4, 1: 0.4, 2: 0.4} if encoding == "mono8" else {0: 0.8, 1: 0.4, 2: 0.2}
    assert scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("height", "width"), [(960, 1280), (477, 641)])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_picture_at_reduced_scale_is_told_of_in_camera_pixels(make_model, height, width, shrink):
    detector = detector_of(make_model(BOXES, SCORES))
    reduced = Picture(pixels(-(-height // shrink), -(-width // shrink)), "bgr", height, width)
    whole = Picture.of_bgr(pixels(height, width))
    # As high and wide: rounding the reduced one's own sides up could give another input.
    assert prepare_image(reduced, 64).shape == prepare_image(whole, 64).shape
    np.testing.assert_array_equal(
        detector.detect(reduced, Selection())[0].boxes, detector.detect(whole, Selection())[0].boxes
    )
    assert detector.seen == ((height, width),)


def test_one_beside_is_waited_for_when_the_session_is_built(make_model, monkeypatch):
    detector = detector_of(make_model(BOXES, SCORES))
    built, waits, make_session = [], [], detector_module.make_session

    def make(*args):
        built.append(args)
        return make_session(*args)

    class Beside:
        def wait_for_run(self):
            waits.append(len(built))

    monkeypatch.setattr(detector_module, "make_session", make)
    detector.warm((50, 100), Beside())
    assert waits == [1] * detector_module.WARM_RUNS


def test_it_knows_which_pictures_it_ran_on(make_model):
    detector = detector_of(make_model(BOXES, SCORES))
    assert detector.seen == ()
    detector.warm((48, 64))
    for _ in range(2):
        detector.detect(picture(60, 80), Selection())
    assert detector.seen == ((48, 64), (60, 80))
    detector.detect(picture(48, 64), Selection())
    assert detector.seen == ((60, 80), (48, 64))
    for width in range(100, 132, 2):
        detector.detect(picture(60, width), Selection())
    assert detector.seen == tuple((60, width) for width in range(100, 132, 2))


def test_a_picture_that_failed_is_not_known(make_model):
    detector = detector_of(make_model(BOXES, SCORES, height=48, width=64))
    with pytest.raises(ModelError):
        detector.detect(picture(64, 64), Selection())
    assert detector.seen == ()


def test_the_picture_stays_as_it_is(make_model):
    image = pixels(48, 64, bgr=(1, 2, 3))
    image.flags.writeable = False  # writing would raise
    detector_of(make_model(BOXES, SCORES)).detect(Picture.of_bgr(image), Selection())


def test_input_is_the_whole_picture():
    # Left half blue, right half red: no padding, no crop, nothing turned.
    image = np.hstack([pixels(120, 80, (255, 0, 0)), pixels(120, 80, (0, 0, 255))])
    prepared = prepare_image(Picture.of_bgr(image), 64)
    assert (prepared.shape, prepared.dtype) == ((1, 48, 64, 3), np.uint8)
    assert (prepared[0, :, :31] == (0, 0, 255)).all()
    assert (prepared[0, :, 33:] == (255, 0, 0)).all()


@pytest.mark.parametrize("width", [100, 127, 129, 160, 200, 257, 300, 641])
def test_no_pixel_is_left_out(width):
    for column in range(width):
        image = pixels(8, width)
        image[:, column] = 255
        assert prepare_image(Picture.of_bgr(image), 64).any(), column


def test_shrinking_averages():
    stripes = pixels(256, 256)
    stripes[:, ::4] = 255  # a quarter of the picture; interpolation at the centres meets none
    assert (abs(prepare_image(Picture.of_bgr(stripes), 64).astype(int) - 255 / 4) < 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"props": {}}, "is no model of mbnet_perception", id="no metadata"),
        pytest.param(
            {"scores": [[0.5, 0.5]] * 3},
            r"expected boxes \(1, A, 4\) and scores \(1, A, 3\), got \(1, 3, 4\) and \(1, 3, 2\)",
            id="classes do not fit",
        ),
        pytest.param({"scores": SCORES[:2]}, r"scores .* got .* \(1, 2, 3\)", id="rows do not fit"),
        pytest.param({"names": ("boxes", "logits")}, "does not run: .*scores", id="output name"),
        pytest.param({"height": 32, "width": 32}, "does not run: .*dimensions", id="fixed size"),
    ],
)
def test_a_model_that_breaks_the_contract_is_refused(make_model, arguments, message):
    model = make_model(BOXES, **{"scores": SCORES, **arguments})
    with pytest.raises(ModelError, match=rf"(?s)^a\.onnx: .*{message}"):
        detector_of(model)


def test_a_model_that_fails_on_one_shape_of_picture_is_named(make_model):
    detector = detector_of(make_model(BOXES, SCORES, height=48, width=64))
    with pytest.raises(ModelError, match=r"(?s)^a\.onnx: does not run: .*dimensions"):
        detector.detect(picture(64, 64), Selection())


@pytest.mark.parametrize("content", [b"", b"\x89PNG and so on"], ids=["empty", "another file"])
def test_what_is_no_model_is_refused(content):
    with pytest.raises(ModelError, match=r"^a\.onnx: ONNX Runtime cannot load it"):
        detector_of(content)
