import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mbnet_perception.evaluation.dataset import Dataset, DatasetError, Picture
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training.data import (
    BatchSampler,
    Draw,
    TrainingData,
    choose_crop,
    collate,
    crop_boxes,
    mirror_boxes,
    shift_colours,
)


def picture(boxes, ignore=(), height=100, width=200, path=Path("none.png")):
    count = len(boxes)
    return Picture(
        identifier=1,
        path=path,
        height=height,
        width=width,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.arange(count, dtype=np.int64) % 2,
        verified=np.array([True, True]),
        exhaustive=np.array([True, False]),
        ignore=np.array(ignore, np.float32).reshape(-1, 4),
    )


def test_crop_gives_fractions_of_the_crop():
    boxes, classes, ignore = crop_boxes(
        picture([[100, 20, 150, 60]]), crop=(50, 10, 100, 50), input_hw=(100, 200)
    )
    np.testing.assert_allclose(boxes, [[0.5, 0.2, 1.0, 1.0]])
    assert classes.tolist() == [0]
    assert len(ignore) == 0


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        pytest.param([90, 0, 110, 20], 1, id="half of it is seen"),
        pytest.param([70, 0, 110, 20], 0, id="a quarter of it is seen"),
        pytest.param([0, 0, 20, 20], 0, id="outside"),
        pytest.param([150, 20, 153, 23], 0, id="3 pixels are too small"),
        pytest.param([150, 20, 156, 26], 1, id="6 pixels are enough"),
    ],
)
def test_crop_keeps_what_is_left_of_an_object_if_it_is_enough(box, kept):
    boxes, _, ignore = crop_boxes(picture([box]), crop=(100, 0, 100, 100), input_hw=(100, 100))
    assert len(boxes) == kept
    outside = box[2] <= 100
    assert len(ignore) == (0 if kept or outside else 1)  # what is seen of the others is no negative


def test_ignore_areas_move_with_the_crop():
    _, _, ignore = crop_boxes(
        picture([], ignore=[[0, 0, 150, 100], [0, 0, 50, 50]]), (100, 0, 100, 100), (50, 50)
    )
    np.testing.assert_allclose(ignore, [[0, 0, 0.5, 1]])


def test_mirror_swaps_left_and_right_and_leaves_its_argument():
    boxes = np.array([[0.1, 0.2, 0.4, 0.6]], np.float32)
    np.testing.assert_allclose(mirror_boxes(boxes), [[0.6, 0.2, 0.9, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(boxes, [[0.1, 0.2, 0.4, 0.6]], rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (336, 200), (3, 5)])
def test_crops_lie_inside_the_picture(height, width):
    for seed in range(200):
        x, y, w, h = choose_crop(height, width, 0.75, np.random.default_rng(seed))
        assert w >= 1
        assert h >= 1
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h


def test_colours_change_and_the_argument_does_not():
    image = np.full((8, 8, 3), 100, np.uint8)
    changed = [shift_colours(image, np.random.default_rng(seed)) for seed in range(20)]
    assert (image == 100).all()
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert len({c.tobytes() for c in changed}) > 10


def draws(sampler):
    return [draw for batch in sampler for draw in batch]


def test_each_epoch_sees_every_picture_once_in_an_order_of_its_own():
    sampler = BatchSampler(np.ones(10), 4, (32, 64), epochs=3, seed=1)
    first = draws(sampler)
    again = draws(sampler)
    sampler.epoch = 1
    second = draws(sampler)
    assert sorted(d.index for d in first) == list(range(10))
    assert first == again
    assert [d.index for d in first] != [d.index for d in second]
    assert len({d.seed for d in first + second}) == 20


def test_pictures_of_a_batch_share_a_size_and_sizes_grow_over_the_run():
    sampler = BatchSampler(np.ones(400), 2, (64, 96, 128, 160), epochs=5, seed=0)
    seen = []
    for sampler.epoch in range(5):
        batches = list(sampler)
        assert all(len({(d.height, d.width) for d in batch}) == 1 for batch in batches)
        seen.append({d.width for batch in batches for d in batch})
    assert seen[0] == {64, 96}
    assert seen[-1] == {64, 96, 128, 160}


def test_pictures_come_as_often_as_their_repeats_say():
    sampler = BatchSampler(np.array([1.0] * 500 + [3.0] * 500), 10, (32,), epochs=1, seed=0)
    drawn = [d.index for d in draws(sampler)]
    assert len(drawn) == 1000
    assert 700 < sum(i >= 500 for i in drawn) < 800  # three of four


def test_rare_classes_repeat_by_the_root_of_their_rarity():
    def of_class(*classes):
        boxes = [[10, 10, 50, 50]] * len(classes)
        return dataclasses.replace(picture(boxes), classes=np.array(classes, np.int64))

    pictures = (of_class(1), of_class(0, 1), *[of_class(0)] * 5, of_class())
    data = TrainingData([Dataset(("a", "b"), pictures)], ("a", "b"))
    assert (data.repeat_factors(0.0) == 1).all()
    # b is in 2 of 8 pictures, a in 6: with all shares up to 1 rare, sqrt(8 / 2) and sqrt(8 / 6).
    expected = [2, 2, *[(8 / 6) ** 0.5] * 5, 1]
    np.testing.assert_allclose(data.repeat_factors(1.0), expected)


def test_samples_carry_what_the_picture_was_looked_for(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((100, 200, 3), (255, 0, 0), np.uint8))  # blue
    source = Dataset(("dog", "cat"), (picture([[20, 20, 80, 80]], path=path),))
    data = TrainingData([source], ("cat", "bird", "dog"))
    image, targets = data[Draw(0, 48, 64, (0, 0, 0))]
    assert image.shape == (48, 64, 3)
    assert image[..., 2].mean() > image[..., 0].mean()  # RGB
    assert targets.countable.tolist() == [False, False, True]  # the cat is not exhaustive
    assert set(targets.classes.tolist()) <= {2}
    stacked, _ = collate([data[Draw(0, 48, 64, (0, 0, k))] for k in range(3)])
    assert stacked.shape == (3, 48, 64, 3)
    assert stacked.dtype == torch.uint8


def test_a_class_that_the_model_lacks_is_named():
    with pytest.raises(DatasetError, match=r"classes \['cat'\] are not among the model's"):
        TrainingData([Dataset(("cat",), ())], ("dog",))


def test_boxes_follow_the_pixels_through_augmentation(tmp_path):
    """A white box on black stays under its label, whatever crop, mirror and size come out."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:100] = 255
    path = tmp_path / "box.png"
    cv2.imwrite(str(path), image)
    source = picture([[40, 30, 100, 90]], height=120, width=160, path=path)
    data = TrainingData([Dataset(("a", "b"), (source,))], ("a", "b"))
    checked = 0
    for seed in range(40):
        pixels, targets = data[Draw(0, 96, 128, (seed,))]
        for x1, y1, x2, y2 in targets.boxes.numpy() * [128, 96, 128, 96]:
            grey = pixels.mean(2)
            bright = grey > (grey.min() + grey.max()) / 2
            if not bright.all():
                ys, xs = np.nonzero(bright)
                np.testing.assert_allclose(
                    [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [x1, y1, x2, y2], atol=1.6
                )
                checked += 1
    assert checked > 20


def test_synthetic_pictures_are_training_data(tmp_path):
    from mbnet_perception.evaluation.dataset import read_coco

    dataset = read_coco(write_pictures(tmp_path, 2, size=(96, 72)))
    data = TrainingData([dataset], dataset.classes)
    _, targets = data[Draw(1, 60, 80, (0,))]
    assert targets.countable.all()
    assert dataclasses.is_dataclass(targets)
