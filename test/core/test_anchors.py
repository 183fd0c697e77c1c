import math

import numpy as np
import pytest

from mbnet_perception.core.anchors import cell_anchors, grid_sizes, make_anchors

# Cells of the six maps of a 320 x 240 input: 320 and 240 halved four times and on, rounded up.
CELLS = [(15, 20), (8, 10), (4, 5), (2, 3), (1, 2), (1, 1)]
COUNT = 3 * 20 * 15 + 6 * (10 * 8 + 5 * 4 + 3 * 2 + 2 * 1 + 1 * 1)


def test_maps_of_a_camera_picture():
    assert grid_sizes(240, 320) == CELLS
    anchors = make_anchors(240, 320)
    assert anchors.shape == (COUNT, 4)
    assert anchors.dtype == np.float32


def test_rows_run_by_map_then_y_then_x_then_anchor():
    rows = iter(make_anchors(240, 320))
    for (height, width), per_cell in zip(CELLS, (3, 6, 6, 6, 6, 6), strict=True):
        for y in range(height):
            for x in range(width):
                for _ in range(per_cell):
                    expected = [(x + 0.5) / width, (y + 0.5) / height]
                    np.testing.assert_allclose(next(rows)[:2], expected, rtol=1e-6)
    assert next(rows, None) is None


def test_shapes_within_a_cell():
    scales = (0.1, 0.2, 0.4, 0.5, 0.7, 0.9)
    first, second, *_, last = cell_anchors(scales)
    root2, root3 = math.sqrt(2), math.sqrt(3)
    np.testing.assert_allclose(
        first, [(0.05, 0.05), (0.1 * root2, 0.1 / root2), (0.1 / root2, 0.1 * root2)], rtol=1e-6
    )
    between = math.sqrt(0.2 * 0.4)
    np.testing.assert_allclose(
        second,
        [
            (0.2, 0.2),
            (0.2 * root2, 0.2 / root2),
            (0.2 / root2, 0.2 * root2),
            (0.2 * root3, 0.2 / root3),
            (0.2 / root3, 0.2 * root3),
            (between, between),
        ],
        rtol=1e-6,
    )
    np.testing.assert_allclose(last[-1], [math.sqrt(0.9)] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "size", [(240, 320), (320, 240), (180, 320), (224, 224)], ids=["4:3", "3:4", "16:9", "1:1"]
)
def test_shapes_keep_their_proportions_in_pixels(size):
    height, width = size
    pixels = make_anchors(height, width)[:, 2:] * (width, height)
    np.testing.assert_allclose(pixels[0], [0.04 * max(size)] * 2, rtol=1e-5)
    small = pixels[: 3 * math.prod(grid_sizes(height, width)[0])].reshape(-1, 3, 2)
    large = pixels[len(small) * 3 :].reshape(-1, 6, 2)
    for cells, ratios in ((small, (1, 2, 1 / 2)), (large, (1, 2, 1 / 2, 3, 1 / 3, 1))):
        found = cells[..., 0] / cells[..., 1]
        np.testing.assert_allclose(found, np.tile(ratios, (len(cells), 1)), rtol=1e-5)


@pytest.mark.parametrize(
    "scales",
    [
        pytest.param((0.1, 0.2, 0.4), id="too few"),
        pytest.param((0.1, 0.4, 0.2, 0.5, 0.7, 0.9), id="not ascending"),
        pytest.param((0.0, 0.2, 0.4, 0.5, 0.7, 0.9), id="zero"),
    ],
)
def test_nonsense_scales_are_refused(scales):
    with pytest.raises(ValueError, match=r"six ascending positive numbers, got \(0"):
        make_anchors(240, 320, scales)
