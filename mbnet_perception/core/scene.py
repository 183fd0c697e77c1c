"""Synthetic driving scenes: a street seen from a car that drives along it, with exact boxes."""

import math
import operator
from collections.abc import Sequence
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.scene_canvas import Camera, Canvas, Floats, Image
from mbnet_perception.core.scene_ground import Ground
from mbnet_perception.core.scene_layout import SIGHT, Street
from mbnet_perception.core.scene_setting import draw_setting
from mbnet_perception.core.scene_vehicles import PAINTS

CLASSES: tuple[str, ...] = (
    "person",
    "bicycle",
    "motorcycle",
    "car",
    "bus",
    "truck",
    "traffic_light",
    "stop_sign",
    "speed_limit",
    "crosswalk",
    "cone",
)
"""Names of the labelled objects; `crosswalk` is the sign, not the stripes on the road."""

MIN_SIDE = 4
"""Objects whose box is narrower or lower than this many pixels get no box."""

MIN_VISIBLE = 0.3
"""Objects get no box when less than this share of their pixels in the image can be seen."""

_SMALLEST_IMAGE = 32
_MOST_OWNERS = 255

Limits = tuple[int, int, int, int]


class DrivingScene:
    """A street with traffic, seen from a driving car.

    Everything is a function of the seed, the time and the image size alone.

    Attributes:
        seed: What decides about the scene.
        size: Width and height of the images in pixels.
        setting: What the seed decided about the street as a whole.
        camera: The pinhole camera without the shaking of the drive, in pixels of the image.
        street: What stands and moves in it.
    """

    def __init__(self, seed: int, size: tuple[int, int] = (640, 480)) -> None:
        """Lay out a scene.

        Args:
            seed: Any integer; equal seeds give equal scenes.
            size: Width and height of the images in pixels, each at least 32.

        Raises:
            ValueError: If seed or size is not of that kind.
        """
        try:
            self.seed = operator.index(seed)
        except TypeError:
            raise ValueError(f"seed must be an integer, got {seed!r}") from None
        try:
            width, height = (operator.index(side) for side in size)
        except (TypeError, ValueError):
            width = height = 0
        if min(width, height) < _SMALLEST_IMAGE:
            raise ValueError(
                f"size must be (width, height), two integers of at least {_SMALLEST_IMAGE}, "
                f"got {size!r}"
            )
        self.size = (width, height)
        self.setting = draw_setting(Random(f"{self.seed} setting"))
        self.street = Street(self.seed, self.setting)
        self.camera = Camera(
            focal=self.setting.focal * width,
            centre=(width - 1) / 2,
            horizon=self.setting.horizon * height,
            height=self.setting.camera_height,
        )
        self._sky = self._paint_sky(Random(f"{self.seed} sky"))
        self._ground = Ground(self.setting, self.camera, self.size, self.seed)
        chance = np.random.default_rng([abs(self.seed), int(self.seed < 0)])
        grain = chance.standard_normal((height + 32, width + 32, 3), np.float32)
        grain += grain[..., 1:2]  # sensor noise is partly common to the colours
        self._grain = np.rint(grain * np.float32(0.7 * self.setting.noise)).astype(np.int16)

    def render(self, seconds: float) -> tuple[Image, Floats, list[str]]:
        """Draw the scene at a time.

        Args:
            seconds: Time since the start of the drive, finite and not negative.

        Returns:
            The image, (H, W, 3) uint8 BGR; the boxes of what can be seen of the labelled objects,
            (N, 4) float32 xyxy in image pixels, where pixel column k spans k to k + 1, inside the
            image; and their N names out of `CLASSES`. Nearest objects come first.

        Raises:
            ValueError: If seconds is negative or not finite.
        """
        seconds = float(seconds)
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"seconds must be finite and >= 0, got {seconds}")
        setting = self.setting
        travelled = setting.speed * seconds
        bend = setting.bend * math.sin(travelled / (60.0 * setting.unit) + setting.bend_phase)
        camera = self._shaken(seconds)
        canvas = Canvas(self._sky.copy(), camera, setting.light)
        self._ground.draw(canvas, self.street, travelled, bend)

        seen = []
        slope = 0.5 * self.size[0] / camera.focal
        for item in self.street.items(seconds, travelled):
            s, q = item.at(seconds)
            z = s - travelled
            x = setting.side * (q - setting.camera_q) + 0.5 * bend * z * z
            in_view = abs(x) < slope * (z + item.reach) + item.reach
            if in_view and -item.reach < z < SIGHT * setting.unit:
                seen.append((z + item.behind, x, z, item))
        seen.sort(key=lambda entry: -entry[0])
        drawn: list[tuple[int, str, Limits, int]] = []
        for _, x, z, item in seen:
            owner = len(drawn) + 1 if item.name and len(drawn) < _MOST_OWNERS else 0
            limits = canvas.draw(item.mesh(seconds), (x, 0.0, z), owner)
            if owner and limits[2] > limits[0]:
                limits = self._inside(limits)
                patch = canvas.owners[limits[1] : limits[3], limits[0] : limits[2]]
                drawn.append((owner, item.name, limits, int(np.count_nonzero(patch == owner))))
        if setting.bonnet:
            self._draw_bonnet(canvas)
        boxes, names = _visible_boxes(canvas.owners, drawn)
        return self._expose(canvas.image, seconds), boxes, names

    def _shaken(self, seconds: float) -> Camera:
        """Return the camera with the small pitch of a moving car."""
        shake = 0.0025 * math.sin(7.0 * seconds) + 0.002 * math.sin(2.3 * seconds + 1.0)
        camera = self.camera
        return Camera(
            camera.focal, camera.centre, camera.horizon + shake * camera.focal, camera.height
        )

    def _inside(self, limits: Limits) -> Limits:
        """Clip pixel limits to the image."""
        width, height = self.size
        x0, y0 = min(max(limits[0], 0), width), min(max(limits[1], 0), height)
        return x0, y0, max(min(limits[2], width), x0), max(min(limits[3], height), y0)

    def _draw_bonnet(self, canvas: Canvas) -> None:
        """Draw the own car's bonnet along the lower edge."""
        width, height = self.size
        paint = PAINTS[self.seed % len(PAINTS)]
        tint = self.setting.light.tint
        colour = [0.7 * c * t for c, t in zip(paint, tint, strict=True)]
        centre, axes = (width // 2, round(height * 1.04)), (round(0.62 * width), height // 10)
        cv2.ellipse(canvas.image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(canvas.owners, centre, axes, 0, 0, 360, 0, -1)

    def _paint_sky(self, style: Random) -> Image:
        """Paint what is too far off to move: the sky with clouds, hills, a distant skyline."""
        setting = self.setting
        width, height = self.size
        horizon = self.camera.horizon
        zenith, haze = np.array(setting.zenith), np.array(setting.light.haze)
        down = np.clip(np.arange(height) / max(horizon, 1.0), 0, 1)[:, None] ** 1.3
        column = zenith + (haze - zenith) * down
        sky = np.repeat(column[:, None].astype(np.uint8), width, 1)
        if setting.place == "track":
            return sky
        if not setting.night and style.random() < 0.7:
            clouds = np.zeros((height // 4 + 1, width // 4 + 1), np.uint8)
            for _ in range(style.randint(3, 9)):
                x, y = style.random() * width / 4, style.random() * horizon / 4.6
                for _ in range(6):
                    w = style.uniform(0.02, 0.07) * width / 4
                    centre = (round(x + style.uniform(-1, 1) * 2 * w), round(y - 0.2 * w))
                    axes = (max(1, round(1.6 * w)), max(1, round(0.5 * w)))
                    cv2.ellipse(clouds, centre, axes, 0, 0, 360, 255, -1)
            soft = cv2.GaussianBlur(clouds, (0, 0), max(width / 250, 0.5))
            cover = cv2.resize(soft, (width, height)).astype(np.float32)[..., None] / 255
            bright = np.minimum(haze * 1.08, 255)
            sky = (sky + (bright - sky) * cover * 0.6).astype(np.uint8)
        for layer in range(2):
            base = np.array(setting.verge) * np.array(setting.light.tint)
            mix = 0.75 - 0.25 * layer
            colour = (base + (haze - base) * mix).tolist()
            tall = height * style.uniform(0.02, 0.09)
            xs = np.linspace(0, width, 40)
            a, b = style.uniform(0, 6), style.uniform(0, 6)
            wave = 0.6 + 0.25 * np.sin(xs / width * 7 + a) + 0.15 * np.sin(xs / width * 23 + b)
            ridge = horizon - tall * wave
            outline = [*zip(xs.tolist(), ridge.tolist(), strict=True)]
            outline += [(width, horizon + 12), (0, horizon + 12)]
            cv2.fillPoly(sky, [np.array(outline).astype(np.int32)], colour, cv2.LINE_AA)
        return sky

    def _expose(self, image: Image, seconds: float) -> Image:
        """Add the lens's blur and the sensor's noise."""
        setting = self.setting
        width, height = self.size
        sigma = setting.blur * width / 640
        if sigma > 0.25:
            image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8, copy=False)
        if setting.noise < 0.5:
            return image
        shift = Random(f"{self.seed} noise {seconds!r}")
        x, y = shift.randrange(32), shift.randrange(32)
        grain = self._grain[y : y + height, x : x + width]
        noisy: Image = np.clip(image + grain, 0, 255).astype(np.uint8, copy=False)
        return noisy


def _visible_boxes(
    owners: NDArray[np.uint8], drawn: Sequence[tuple[int, str, Limits, int]]
) -> tuple[Floats, list[str]]:
    """Find what is left to see of each object.

    Args:
        owners: (H, W) number of the object each pixel shows.
        drawn: Number, name, pixel limits and pixel count of each object before anything hid it,
            farthest first.

    Returns:
        (N, 4) float32 boxes xyxy in pixels, and N names, nearest first.
    """
    boxes, names = [], []
    for owner, name, (x0, y0, x1, y1), pixels in reversed(drawn):
        mine = owners[y0:y1, x0:x1] == owner
        if np.count_nonzero(mine) < max(1.0, MIN_VISIBLE * pixels):
            continue
        rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
        left, top = int(columns[0]), int(rows[0])
        right, bottom = int(columns[-1]) + 1, int(rows[-1]) + 1
        if right - left >= MIN_SIDE and bottom - top >= MIN_SIDE:
            boxes.append((x0 + left, y0 + top, x0 + right, y0 + bottom))
            names.append(name)
    return np.array(boxes, np.float32).reshape(-1, 4), names
