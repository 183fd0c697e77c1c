import pytest

from mbnet_perception.core.geometry import input_size


@pytest.mark.parametrize(
    ("image_hw", "resolution", "expected"),
    [
        pytest.param((480, 640), 320, (240, 320), id="wide"),
        pytest.param((640, 480), 320, (320, 240), id="tall"),
        pytest.param((500, 500), 224, (224, 224), id="square"),
        pytest.param((60, 80), 160, (120, 160), id="enlarged"),
        pytest.param((375, 1242), 320, (97, 320), id="96.6 is rounded"),
        pytest.param((10, 1000), 320, (32, 320), id="a strip keeps 32 pixels"),
    ],
)
def test_long_side_is_the_resolution_and_the_aspect_ratio_stays(image_hw, resolution, expected):
    assert input_size(image_hw, resolution) == expected


@pytest.mark.parametrize(
    ("image_hw", "resolution", "message"),
    [
        pytest.param((0, 640), 320, "must be positive, got 0 x 640", id="no height"),
        pytest.param((480, 0), 320, "must be positive, got 480 x 0", id="no width"),
        pytest.param((480, 640), 31, "at least 32 pixels, got 31", id="resolution"),
    ],
)
def test_nonsense_is_refused(image_hw, resolution, message):
    with pytest.raises(ValueError, match=message):
        input_size(image_hw, resolution)
