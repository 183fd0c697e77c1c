import json
from itertools import pairwise

import numpy as np
import pytest

from mbnet_perception.cli import main
from mbnet_perception.core.anchors import DEFAULT_SCALES, cell_anchors, grid_sizes, make_anchors
from mbnet_perception.evaluation.anchor_fit import (
    SPACING,
    best_overlaps,
    fit_scales,
    measure_scales,
)
from mbnet_perception.evaluation.synthetic import write_pictures


def some_boxes(count, seed=0):
    rng = np.random.default_rng(seed)
    first, second = rng.random((2, count, 2))
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], 1)


def overlaps_one_by_one(boxes, anchors):
    """IoU of (N, 4) xyxy boxes with (A, 4) cxcywh anchors, all tried: (A, N)."""
    low = np.maximum(boxes[:, :2], (anchors[:, :2] - anchors[:, 2:] / 2)[:, None])
    high = np.minimum(boxes[:, 2:], (anchors[:, :2] + anchors[:, 2:] / 2)[:, None])
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return shared / (areas + anchors[:, 2:].prod(-1)[:, None] - shared)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 320), (200, 160)])
def test_the_nearest_anchor_of_a_shape_is_the_best_of_all_anchors(height, width):
    boxes = some_boxes(200)
    every = overlaps_one_by_one(boxes, make_anchors(height, width).astype(np.float64))
    levels = [
        rows * columns * len(shapes)
        for (rows, columns), shapes in zip(
            grid_sizes(height, width), cell_anchors(DEFAULT_SCALES), strict=True
        )
    ]
    expected = [part.max(0) for part in np.split(every, np.cumsum(levels)[:-1])]
    found = best_overlaps(boxes, height, width, DEFAULT_SCALES)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def boxes_like_anchors(scales, height=240, width=320):
    """Every anchor that lies in the picture, as a box: the scales then cover them wholly."""
    anchors = make_anchors(height, width, scales).astype(np.float64)
    boxes = np.concatenate(
        [anchors[:, :2] - anchors[:, 2:] / 2, anchors[:, :2] + anchors[:, 2:] / 2], 1
    )
    return boxes[(boxes >= 0).all(1) & (boxes <= 1).all(1)]


def test_boxes_of_the_anchors_shapes_are_covered_wholly():
    fit = measure_scales(boxes_like_anchors(DEFAULT_SCALES), 240, 320)
    assert fit.mean_iou == pytest.approx(1, abs=1e-5)
    assert fit.recall == 1
    assert sum(fit.shares) == pytest.approx(1)


def test_recall_is_the_share_of_boxes_that_are_covered_by_half():
    # The centre of a cell of 16 pixels, and a square of half the first scale.
    centre = np.array([8.5 / 20, 7.5 / 15])
    half = np.array([0.02, 0.02 * 4 / 3])
    boxes = [np.concatenate([centre - h, centre + h]) for h in (half, half / 10)]
    fit = measure_scales(np.stack(boxes), 240, 320)
    assert fit.recall == 0.5
    # The second one is a hundredth of the square; all other anchors are larger.
    assert fit.mean_iou == pytest.approx((1 + 0.01) / 2, abs=1e-3)
    assert fit.shares == (1, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "scales",
    [
        pytest.param((0.05, 0.1, 0.2, 0.35, 0.55, 0.8), id="small objects"),
        pytest.param((0.15, 0.25, 0.4, 0.55, 0.75, 0.95), id="large objects"),
    ],
)
def test_scales_that_made_the_boxes_are_nearly_found(scales):
    boxes = boxes_like_anchors(scales)
    fitted = fit_scales(boxes, 240, 320)
    assert fitted.mean_iou > 0.98
    assert fitted.mean_iou > measure_scales(boxes, 240, 320).mean_iou
    cell_anchors(fitted.scales)  # which refuses scales that are none


def test_scales_stay_apart_where_all_boxes_are_alike():
    size = np.array([0.3, 0.4])
    corners = np.random.default_rng(0).random((100, 2)) * (1 - size)
    scales = fit_scales(np.concatenate([corners, corners + size], 1), 240, 320).scales
    assert all(b >= SPACING * a for a, b in pairwise(scales))


def test_a_fit_is_never_worse_than_the_default():
    boxes = some_boxes(300)
    fitted = fit_scales(boxes, 240, 320)
    assert fitted.mean_iou >= measure_scales(boxes, 240, 320).mean_iou
    assert fitted == fit_scales(boxes, 240, 320)


def test_no_boxes_are_an_error():
    with pytest.raises(ValueError, match="no boxes to fit"):
        fit_scales(np.empty((0, 4)), 240, 320)


def test_the_command_prints_what_a_recipe_takes(tmp_path, capsys):
    labels = write_pictures(tmp_path, 4, size=(96, 72))
    assert main(["data", "anchors", str(labels), "--size", "96", "72"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("anchor_scales: [")
    assert main(["data", "anchors", str(labels), "--size", "96", "72", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert line == f"anchor_scales: {content['fitted']['scales']}"
    assert content["default"]["scales"] == list(DEFAULT_SCALES)
