import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mbnet_perception.evaluation.dataset import Dataset, DatasetError, Picture, read_coco
from mbnet_perception.evaluation.synthetic import write_pictures
from mbnet_perception.training.data import (
    BatchSampler,
    Draw,
    TrainingData,
    View,
    choose_crop,
    collate,
    crop_boxes,
    join_views,
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
    data = TrainingData([(Dataset(("a", "b"), pictures), 1.0)])
    assert (data.repeat_factors(0.0) == 1).all()
    # b is in 2 of 8 pictures, a in 6: with all shares up to 1 rare, sqrt(8 / 2) and sqrt(8 / 6).
    expected = [2, 2, *[(8 / 6) ** 0.5] * 5, 1]
    np.testing.assert_allclose(data.repeat_factors(1.0), expected)


def test_samples_carry_what_the_picture_was_looked_for(tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.full((100, 200, 3), (255, 0, 0), np.uint8))  # blue
    source = Dataset(("dog", "cat"), (picture([[20, 20, 80, 80]], path=path),))
    data = TrainingData([(source, 1.0)])
    image, targets = data[Draw(0, 48, 64, (0, 0, 0))]
    assert image.shape == (48, 64, 3)
    assert image[..., 2].mean() > image[..., 0].mean()  # RGB
    assert targets.countable.tolist() == [True, False]  # the cat is not exhaustive
    assert set(targets.classes.tolist()) <= {0}
    stacked, _ = collate([data[Draw(0, 48, 64, (0, 0, k))] for k in range(3)])
    assert stacked.shape == (3, 48, 64, 3)
    assert stacked.dtype == torch.uint8


@pytest.mark.parametrize(
    "pictures", [pytest.param((), id="no pictures"), pytest.param((picture([]),), id="no boxes")]
)
def test_data_with_nothing_to_learn_is_refused(pictures):
    with pytest.raises(DatasetError, match=f"nothing to learn: {len(pictures)} pictures"):
        TrainingData([(Dataset(("a", "b"), pictures), 1.0)])


def test_pictures_of_a_heavier_source_come_more_often():
    one = Dataset(("a", "b"), (picture([[10, 10, 50, 50]]),))
    two = Dataset(("a", "b"), (picture([[10, 10, 50, 50]]),) * 2)
    data = TrainingData([(one, 3.0), (two, 0.5)])
    assert data.repeat_factors(0.0).tolist() == [3, 0.5, 0.5]


def test_boxes_follow_the_pixels_through_augmentation(tmp_path):
    """A white box on black stays under its label, whatever crop, mirror and size come out."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[30:90, 40:100] = 255
    path = tmp_path / "box.png"
    cv2.imwrite(str(path), image)
    source = picture([[40, 30, 100, 90]], height=120, width=160, path=path)
    data = TrainingData([(Dataset(("a", "b"), (source,)), 1.0)])
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


def grey_view(level, height, width, countable, boxes=(), classes=()):
    return View(
        image=np.full((height, width, 3), level, np.uint8),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes, np.int64),
        countable=np.array(countable),
        ignore=np.zeros((0, 4), np.float32),
        ignored=np.zeros((0, 2), bool),
    )


def test_views_lie_side_by_side_with_what_is_known_of_each():
    left = grey_view(10, 100, 40, (True, False), [[0.5, 0, 1, 0.5]], [0])
    right = grey_view(20, 100, 60, (True, True), [[0, 0.25, 0.5, 1]], [1])
    joined = join_views([(left, (0, 0)), (right, (40, 0))], 100, 100)
    assert (joined.image[:, :40] == 10).all()
    assert (joined.image[:, 40:] == 20).all()
    np.testing.assert_allclose(joined.boxes, [[0.2, 0, 0.4, 0.5], [0.4, 0.25, 0.7, 1]], rtol=1e-6)
    assert joined.classes.tolist() == [0, 1]
    # Each part is an area, half a pixel larger each way, for the classes unknown in it.
    expected = [[-0.005, -0.005, 0.405, 1.005], [0.395, -0.005, 1.005, 1.005]]
    np.testing.assert_allclose(joined.ignore, expected, rtol=1e-5)
    assert joined.countable.tolist() == [True, True]
    assert joined.ignored.tolist() == [[False, True], [False, False]]


def boxed_pictures(folder, count):
    """Pictures that are black but for one white box, which is labelled."""
    pictures = []
    for i in range(count):
        x, y = 10 + 20 * i, 10 + 10 * i
        image = np.zeros((120, 160, 3), np.uint8)
        image[y : y + 60, x : x + 50] = 255
        path = folder / f"{i}.png"
        cv2.imwrite(str(path), image)
        pictures.append(
            picture([[x, y, x + 50, y + 60]], height=120, width=160, path=path),
        )
    return Dataset(("a", "b"), tuple(pictures))


def test_a_mosaic_shows_four_pictures_with_their_boxes(tmp_path):
    data = TrainingData([(boxed_pictures(tmp_path, 4), 1.0)], mosaic=1.0)
    sides, differing = [], []
    for seed in range(20):
        draw = Draw(seed % 4, 96, 128, (seed,))
        assert len(data.indices(draw)) == 4
        assert data.indices(draw)[0] == draw.index
        pixels, targets = data[draw]
        labelled = np.zeros((96, 128), bool)
        # What a crop left too little of is in an area that is ignored for all classes.
        partly = targets.ignore[targets.ignored.all(1)]
        for box in torch.cat([targets.boxes, partly]).numpy() * [128, 96, 128, 96]:
            x1, y1, x2, y2 = box.round().astype(int)
            labelled[y1:y2, x1:x2] = True
        grey = pixels.mean(2)
        differing.append(((grey > (grey.min() + grey.max()) / 2) != labelled).mean())
        sides += (targets.boxes[:, 2] - targets.boxes[:, 0]).tolist()
    assert np.median(differing) < 0.02
    assert max(differing) < 0.1
    assert len(sides) > 40  # of 80
    assert np.median(sides) < 0.3  # of an input; a whole picture's box is 0.31, a crop's is larger


def test_the_share_of_mosaics_leaves_other_draws_alone(tmp_path):
    dataset = boxed_pictures(tmp_path, 2)
    plain, mixed = (TrainingData([(dataset, 1.0)], mosaic=share) for share in (0.0, 0.4))
    draws = [Draw(0, 48, 64, (seed,)) for seed in range(30)]
    mosaics = [draw for draw in draws if len(mixed.indices(draw)) == 4]
    assert 4 < len(mosaics) < 20
    assert not any(len(plain.indices(draw)) == 4 for draw in draws)
    others = [draw for draw in draws if draw not in mosaics]
    assert all((plain[draw][0] == mixed[draw][0]).all() for draw in others)


class Negative:
    """Stands for a policy, and tells what it was given."""

    def __init__(self):
        self.given = []

    def apply(self, image, seed):
        self.given.append((image, seed))
        return 255 - image


def test_the_policy_has_the_last_word_on_pixels(tmp_path):
    dataset, policy = boxed_pictures(tmp_path, 1), Negative()
    draw = Draw(0, 48, 64, (7, 0, 3))
    before, targets = TrainingData([(dataset, 1.0)])[draw]
    after, same_targets = TrainingData([(dataset, 1.0)], policy)[draw]
    np.testing.assert_array_equal(after, 255 - before)
    assert policy.given[0][1] == (7, 0, 3, 1)
    torch.testing.assert_close(targets.boxes, same_targets.boxes)


def test_processes_share_out_each_batch():
    def sampler(**of):
        return BatchSampler(np.ones(12), 4, (32, 64), epochs=3, seed=1, **of)

    whole = list(sampler())
    shares = [list(sampler(rank=rank, processes=2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert [len(first), len(second)] == [len(batch) / 2] * 2
        assert sorted(first + second, key=batch.index) == batch


def test_a_last_batch_that_comes_out_uneven_is_filled_up():
    samplers = [BatchSampler(np.ones(7), 4, (32,), 1, 0, rank, 2) for rank in range(2)]
    first, second = (list(sampler)[-1] for sampler in samplers)
    assert [len(first), len(second)] == [2, 2]
    assert len({draw.index for draw in first + second}) == 3
    assert second[1] == first[0]


def test_a_last_batch_of_one_is_filled_up():
    *_, last = BatchSampler(np.ones(5), 4, (32,), 1, 0)
    assert len(last) == 2
    assert last[0] == last[1]


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 3), (4, 4), (1, 1)])
def test_a_batch_that_cannot_be_shared_out_is_refused(batch_size, processes):
    message = f"batch_size {batch_size} cannot be shared out to {processes} processes"
    with pytest.raises(ValueError, match=message):
        BatchSampler(np.ones(5), batch_size, (32,), 1, 0, processes=processes)


def test_batches_that_were_had_are_skipped():
    sampler = BatchSampler(np.ones(10), 3, (32, 64), epochs=3, seed=1)
    whole = list(sampler)
    sampler.skip = 3
    assert list(sampler) == whole[3:]


def test_synthetic_pictures_are_training_data(tmp_path):
    dataset = read_coco(write_pictures(tmp_path, 2, size=(96, 72)))
    data = TrainingData([(dataset, 1.0)])
    _, targets = data[Draw(1, 60, 80, (0,))]
    assert targets.countable.all()
