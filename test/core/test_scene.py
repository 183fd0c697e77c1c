import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mbnet_perception.core.scene import CLASSES, DrivingScene
from mbnet_perception.core.scene_canvas import Camera, MeshBuilder
from mbnet_perception.core.scene_layout import Item

MAGENTA = (255, 0, 255)  # no object has this colour


def board(name, s, left, right, low, high):
    """A flat rectangle across the road, in metres; x counts from the camera to the right."""

    def build(pose):
        mesh = MeshBuilder()
        mesh.fill([(left, low, 0), (right, low, 0), (right, high, 0), (left, high, 0)], (9, 99, 9))
        return mesh.build(PLAIN.setting.light)

    return Item(name, s, 0.0, build)


PLAIN = DrivingScene(0)


def scene_of(items, monkeypatch, seed=0, size=(640, 480)):
    """A scene with these items alone, before magenta, seen by a camera known in all details.

    Focal length 500 px, axis at the centre of the image, 1.2 m above a straight road, without
    noise, blur and shaking. The camera drives along q = 0 at 10 m/s.
    """
    scene = DrivingScene(seed, size)
    scene.setting = replace(
        scene.setting, unit=1.0, side=1, camera_q=0.0, speed=10.0, bend=0.0, noise=0.0, blur=0.0,
        bonnet=False,
    )  # fmt: skip
    width, height = size
    scene.camera = Camera(500.0, (width - 1) / 2, (height - 1) / 2, 1.2)
    backdrop = np.full((height, width, 3), MAGENTA, np.uint8)
    monkeypatch.setattr(scene, "_sky", backdrop)
    monkeypatch.setattr(scene, "_shaken", lambda seconds: scene.camera)
    monkeypatch.setattr(scene._ground, "draw", lambda *args: None)
    monkeypatch.setattr(scene.street, "items", lambda seconds, travelled: items)
    return scene


def without_shadow(item):
    def build(pose):
        mesh = item.build(pose)
        ends = zip(mesh.first, mesh.stops, strict=True)
        flat = [bool((mesh.vertices[a:b, 1] == 0).all()) for a, b in ends]
        return replace(mesh, extents=np.where(flat, 0, mesh.extents))

    return replace(item, build=build, _meshes={})


def iou(a, b):
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return overlap / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap)


# --- the picture ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(640, 480), (320, 240), (161, 97), (96, 224)], ids=lambda size: f"{size[0]}x{size[1]}"
)
@pytest.mark.parametrize("seed", [0, 4, 25])
def test_size_is_kept_and_boxes_lie_inside(size, seed):
    width, height = size
    image, boxes, names = DrivingScene(seed, size).render(3.0)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert boxes.shape == (len(names), 4)
    assert boxes.dtype == np.float32
    assert set(names) <= set(CLASSES)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 4).all()


def test_equal_seeds_and_times_give_equal_pictures_whatever_was_drawn_before():
    first, second = DrivingScene(3, (320, 240)), DrivingScene(3, (320, 240))
    for seconds in (9.0, 0.0, 4.5):
        second.render(seconds)
    for one, other in zip(first.render(4.5), second.render(4.5), strict=True):
        assert np.array_equal(one, other)


def test_seeds_differ():
    one, other = (DrivingScene(seed, (160, 120)).render(1.0)[0] for seed in (1, 2))
    assert np.abs(one.astype(int) - other).mean() > 10


def test_boxes_scale_with_the_image():
    small = DrivingScene(20, (320, 240)).render(6.0)
    large = DrivingScene(20, (640, 480)).render(6.0)
    wide = [box for box in small[1] if (box[2:] - box[:2]).min() > 12]
    assert len(wide) >= 3
    for box in wide:
        assert max(iou(2 * box, other) for other in large[1]) > 0.85


# --- boxes ------------------------------------------------------------------------------------


def test_box_is_the_pinhole_projection(monkeypatch):
    # 20 m ahead a metre is 500 / 20 = 25 px. Axis at (319.5, 239.5), pixel centres at integers:
    # x 0 to 2 m -> centres 319.5 to 369.5; y 1.5 m -> 239.5 - 25 * 0.3 = 232, y 0 -> 269.5.
    # A pixel spans half a pixel to either side of its centre.
    scene = scene_of([board("car", 20.0, 0.0, 2.0, 0.0, 1.5)], monkeypatch)
    _, boxes, names = scene.render(0.0)
    assert names == ["car"]
    assert boxes[0] == pytest.approx([320, 232.5, 370, 270], abs=1.0)


def test_camera_moves_ahead_at_its_speed(monkeypatch):
    # After one second 10 of the 20 m are left: the board is twice as large.
    scene = scene_of([board("car", 20.0, 0.0, 2.0, 0.0, 1.5)], monkeypatch)
    assert scene.render(1.0)[1][0] == pytest.approx([320, 225, 420, 300], abs=1.0)


def test_what_stands_grows_until_it_is_passed(monkeypatch):
    scene = scene_of([board("cone", 30.0, 1.0, 1.5, 0.0, 0.7)], monkeypatch)
    boxes = [scene.render(seconds)[1] for seconds in np.arange(0.0, 2.7, 0.2)]
    areas = [(box[0, 2:] - box[0, :2]).prod() for box in boxes]
    assert (np.diff(areas) > 0).all()
    assert len(scene.render(3.2)[1]) == 0


def test_box_is_clipped_at_the_border(monkeypatch):
    # 10 m ahead 50 px to the metre: x -8 to -5 m -> -80.5 to 69.5.
    scene = scene_of([board("bus", 10.0, -8.0, -5.0, 0.0, 2.0)], monkeypatch)
    assert scene.render(0.0)[1][0, [0, 2]] == pytest.approx([0, 70], abs=1.0)


def test_tiny_objects_get_no_box(monkeypatch):
    # At 50 m 10 px to the metre: 3 px wide and 6 px wide.
    tiny, small = (board("person", 50.0, x, x + w, 0, 1.7) for x, w in ((-2, 0.2), (2, 0.6)))
    _, boxes, _ = scene_of([tiny, small], monkeypatch).render(0.0)
    assert len(boxes) == 1
    assert boxes[0, 0] > 320


@pytest.mark.parametrize(
    ("cover", "kept"),
    [
        pytest.param(0.0, True, id="free"),
        pytest.param(0.5, True, id="half hidden"),
        pytest.param(0.8, False, id="mostly hidden"),
        pytest.param(1.0, False, id="hidden"),
    ],
)
@pytest.mark.parametrize("front", ["truck", ""], ids=["by an object", "by scenery"])
def test_hidden_objects_are_dropped_and_boxes_hold_what_shows(monkeypatch, cover, kept, front):
    # The car spans 4 m of road, 100 px, at 20 m. The board before it, at 10 m with 50 px to the
    # metre, covers its left part.
    behind = board("car", 20.0, 0.0, 4.0, 0.0, 1.0)
    before = board(front, 10.0, -2.0, 2.0 * cover, 0.0, 1.5)
    _, boxes, names = scene_of([before, behind], monkeypatch).render(0.0)
    assert ("car" in names) == kept
    assert ("truck" in names) == (front == "truck")
    if kept:
        box = boxes[names.index("car")]
        assert box[[0, 2]] == pytest.approx([320 + 100 * cover, 420], abs=1.5)


def labelled_items():
    """Up to three items of every class, as streets hold them."""
    found = {name: [] for name in CLASSES}
    for seed in range(40):
        scene = DrivingScene(seed, (64, 48))
        if scene.setting.place == "track":
            continue
        for item in scene.street.items(0.0, 0.0):
            if item.name and len(found[item.name]) < 3:
                found[item.name].append(item)
    return [pytest.param(item, id=f"{item.name}-{k}") for items in found.values()
            for k, item in enumerate(items)]  # fmt: skip


@pytest.mark.parametrize("item", labelled_items())
@pytest.mark.parametrize("q", [-4.0, 0.5], ids=["beside", "ahead"])
def test_box_holds_exactly_the_pixels_the_object_changes(item, q, monkeypatch):
    still = replace(without_shadow(item), s=14.0, q=q, speed_s=0.0, speed_q=0.0)
    image, boxes, names = scene_of([still], monkeypatch).render(0.0)
    assert names == [item.name]
    changed = np.abs(image.astype(int) - MAGENTA).max(2) > 100
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert boxes[0] == pytest.approx(expected, abs=2.0)


# --- the drive --------------------------------------------------------------------------------


def test_every_class_appears():
    seen = Counter()
    for seed in range(16):
        scene = DrivingScene(seed, (320, 240))
        for seconds in (2.0, 8.0):
            seen.update(scene.render(seconds)[2])
    assert set(seen) == set(CLASSES)


@pytest.mark.parametrize("seed", range(8))
def test_street_stays_populated(seed):
    scene = DrivingScene(seed, (320, 240))
    counts = [len(scene.render(seconds)[1]) for seconds in (0.0, 10.0, 20.0, 30.0, 60.0)]
    assert min(counts) >= 3


def test_large_objects_do_not_pop_up():
    """Of the well visible boxes away from the border, hardly any is new since 1/15 s ago."""
    known = new = 0
    for seed in range(6):
        scene = DrivingScene(seed, (320, 240))
        before = scene.render(5.0)
        for step in range(1, 8):
            now = scene.render(5.0 + step / 15)
            for box, name in zip(now[1], now[2], strict=True):
                inside = box[0] > 8 and box[1] > 4 and box[2] < 312 and box[3] < 236
                if not inside or (box[2:] - box[:2]).min() < 20:
                    continue
                same = [b for b, n in zip(before[1], before[2], strict=True) if n == name]
                if any(iou(box, b) > 0.3 for b in same):
                    known += 1
                else:
                    new += 1
            before = now
    assert known > 100
    assert new <= 0.03 * known


@pytest.mark.parametrize("seed", range(12))
def test_nothing_drives_through_the_camera(seed):
    scene = DrivingScene(seed, (64, 48))
    setting = scene.setting
    for seconds in np.arange(0.0, 20.0, 0.5):
        travelled = setting.speed * seconds
        for item in scene.street.items(seconds, travelled):
            s, q = item.at(seconds)
            if item.name in ("car", "bus", "truck") and item.speed_s > 0:
                beside = abs(q - setting.camera_q) > 0.6 * setting.lane
                assert beside or abs(s - travelled) > 6.0 * setting.unit


def test_people_swing_their_legs():
    items = DrivingScene(20, (64, 48)).street.items(0.0, 0.0)
    walker = next(i for i in items if i.name == "person" and abs(i.speed_s) > 0.5 and i.poses > 8)
    widths = [np.ptp(walker.mesh(seconds).vertices[:, 2]) for seconds in np.arange(0, 2, 0.1)]
    assert max(widths) > min(widths) + 0.2


def test_traffic_lights_change():
    items = DrivingScene(20, (64, 48)).street.items(0.0, 0.0)
    light = next(item for item in items if item.name == "traffic_light")
    glowing = {
        tuple(light.mesh(seconds).colours[light.mesh(seconds).glows].ravel())
        for seconds in np.arange(0, 25, 0.5)
    }
    assert len(glowing) == 4  # red, red with amber, green, amber


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1.5, "one", None], ids=repr)
def test_bad_seed_is_named(seed):
    with pytest.raises(ValueError, match=f"seed must be an integer, got {seed!r}"):
        DrivingScene(seed)


@pytest.mark.parametrize("size", [(0, 480), (640,), (640, 31), (64.5, 64), 640], ids=repr)
def test_bad_size_is_named(size):
    with pytest.raises(ValueError, match=r"\(width, height\), two integers of at least 32, got"):
        DrivingScene(0, size)


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf])
def test_bad_time_is_named(seconds):
    with pytest.raises(ValueError, match=f"seconds must be finite and >= 0, got {seconds}"):
        PLAIN.render(seconds)


def test_negative_and_large_seeds_work():
    for seed in (-5, 2**80, np.int64(7)):
        assert DrivingScene(seed, (64, 48)).render(1.0)[0].shape == (48, 64, 3)
