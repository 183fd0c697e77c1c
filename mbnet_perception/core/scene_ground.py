"""The ground of a synthetic street: road, marks, pavements, verges, their texture and haze."""

from collections.abc import Iterator
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

from mbnet_perception.core.scene_canvas import NEAR, WHITE, Camera, Canvas, Floats, Image, shaded
from mbnet_perception.core.scene_layout import SIGHT, Street
from mbnet_perception.core.scene_setting import Setting

_TEXELS = 256  # texels along each side of the ground's texture, which repeats
_PER_UNIT = 32.0  # texels in a metre, or in `Setting.unit` metres


class Ground:
    """Draws the ground of one scene."""

    def __init__(self, setting: Setting, camera: Camera, size: tuple[int, int], seed: int) -> None:
        self.setting = setting
        width, self._height = size
        self._seed = seed
        below = np.arange(1, max(self._height - camera.horizon, 1.0) + 8)
        distance = camera.focal * camera.height / below
        # Share of haze in each row from the horizon downwards, to where it ends.
        amount = 1 - np.exp(-distance / setting.light.haze_distance)
        self._haze = amount[amount > 0.03].astype(np.float32)[:, None, None]

        # For each row whose ground can be resolved: how far away it is, where its pixels lie
        # across the road, and how much of the texture is left there.
        rows = np.arange(self._height)[:, None]
        distance = camera.focal * camera.height / np.maximum(rows - camera.horizon, 1e-3)
        footprint = distance**2 / (camera.focal * camera.height) * _PER_UNIT / setting.unit
        strength = np.minimum(1.0, 1.5 / footprint)
        resolved = strength[:, 0] > 0.08
        self._first = int(np.argmax(resolved)) if resolved.any() else self._height
        self._distance = distance[self._first :].astype(np.float32)
        across = (np.arange(width) - camera.centre) / camera.focal
        self._across = (self._distance * across).astype(np.float32)
        strength = np.rint(strength[self._first :] * 256).astype(np.int16)
        self._strength = np.repeat(np.repeat(strength, width, 1)[..., None], 3, 2)
        self._texture = _make_texture(np.random.default_rng([abs(seed), 1]))

    def _add_texture(self, image: Image, travelled: float, bend: float) -> None:
        """Roughen the flat colours, fixed to the ground."""
        if self._first >= self._height:
            return
        setting = self.setting
        scale = np.float32(_PER_UNIT / setting.unit)
        z = self._distance
        start = travelled % (_TEXELS / float(scale))
        shift = setting.side * setting.camera_q - 0.5 * bend * z * z
        across = (self._across + shift) * scale
        along = np.repeat((z + np.float32(start)) * scale, across.shape[1], 1)
        rough = cv2.remap(
            self._texture, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
        rough = cv2.multiply(rough, self._strength, scale=1 / 256)
        part = image[self._first :]
        cv2.add(part, rough, dst=part, dtype=cv2.CV_8U)

    def _repairs(self, travelled: float) -> Iterator[tuple[float, float, float, float]]:
        """Yield mended places of the road as q, width, distance and depth in metres."""
        unit = self.setting.unit
        low, high = self.setting.edges
        length = 8.0 * unit
        first = int(travelled // length)
        for cell in range(first, first + 7):
            style = Random(f"{self._seed} repair {cell}")
            q = style.uniform(low, high - 1.5 * unit)
            z = (cell + style.random()) * length - travelled
            yield q, style.uniform(0.3, 1.5) * unit, z, style.uniform(0.3, 4.0) * unit

    def draw(self, canvas: Canvas, street: Street, travelled: float, bend: float) -> None:
        """Draw everything below the horizon.

        Args:
            canvas: Where to draw it, and with which camera.
            street: Where the junctions are.
            travelled: Metres that the camera has come along the road.
            bend: Curvature of the road, 1/m, positive to the right.
        """
        setting = self.setting
        camera, unit, side = canvas.camera, setting.unit, setting.side
        near = max(
            NEAR, 0.9 * camera.focal * camera.height / max(self._height - camera.horizon, 1.0)
        )
        sight = SIGHT * unit
        top = min(max(round(camera.horizon), 0), self._height)
        canvas.image[top:] = np.clip(np.multiply(setting.verge, setting.light.tint), 0, 255)

        def strip(q0: float, q1: float, z0: float = near, z1: float = 7 * sight) -> Floats:
            """Outline of what lies between q0 and q1, following the bend."""
            z0, z1 = max(z0, near), max(z1, near)
            zs = np.geomspace(z0, z1, 22 if z1 > 4 * z0 else 3)
            shift = 0.5 * bend * zs * zs - side * setting.camera_q
            there = np.stack([side * q0 + shift, zs], 1)
            back = np.stack([side * q1 + shift, zs], 1)[::-1]
            return np.concatenate([there, back]).astype(np.float32)

        low, high = setting.edges
        kerb = 0.18 * unit
        if setting.walk:
            walks = [strip(low - setting.walk, low), strip(high, high + setting.walk)]
            canvas.ground(walks, setting.pavement)
        canvas.ground([strip(low, high)], setting.asphalt)
        if setting.walk:
            kerbs = [strip(low - kerb, low), strip(high, high + kerb)]
            canvas.ground(kerbs, shaded(setting.pavement, 1.15))
        repairs = [
            strip(q, q + width, z, z + depth)
            for q, width, z, depth in self._repairs(travelled)
            if z > near
        ]
        canvas.ground(repairs, shaded(setting.asphalt, 0.85))

        mark = 0.06 * unit
        dash, period = 3.0 * unit, 9.0 * unit
        starts = np.arange(-(travelled % period), 0.7 * sight, period).tolist()
        lines = [strip(q - mark, q + mark) for q in (low + setting.parking, high - setting.parking)]
        for lane in range(1 - setting.other_lanes, setting.own_lanes):
            q = lane * setting.lane
            if lane == 0 and setting.own_lanes > 1:
                lines += [strip(q - 2.5 * mark, q - mark), strip(q + mark, q + 2.5 * mark)]
            else:
                lines += [strip(q - mark, q + mark, z, z + dash) for z in starts if z + dash > near]
        canvas.ground(lines, setting.paint)

        roads, stripes = [], []
        for junction in street.junctions(travelled - 10 * unit, travelled + sight):
            z, half = junction.s - travelled, junction.road / 2
            if half and z + half > near:
                roads.append(strip(-90 * unit, 90 * unit, z - half, z + half))
            z0, z1 = z - half - 4.5 * unit, z - half - 1.5 * unit
            if junction.zebra and z1 > near and z0 < 0.6 * sight:
                count = int((high - low) / unit)
                pitch = (high - low) / count
                for k in range(count):
                    q = low + (k + 0.25) * pitch
                    stripes.append(strip(q, q + 0.5 * pitch, z0, z1))
            if half and z0 - 0.9 * unit > near:
                stop = z0 - 0.9 * unit
                stripes.append(strip(0.1, high - setting.parking, stop, stop + 0.4 * unit))
        canvas.ground(roads, setting.asphalt)
        canvas.ground(stripes, WHITE)

        self._add_texture(canvas.image, travelled, bend)
        rows = canvas.image[top : top + len(self._haze)]
        haze = np.array(setting.light.haze, np.float32)
        rows[:] = np.clip(rows + (haze - rows) * self._haze[: len(rows)], 0, 255)


def _make_texture(chance: np.random.Generator) -> NDArray[np.int16]:
    """Make differences of brightness in grey levels, (256, 256, 3), that repeat seamlessly."""
    total = np.zeros((_TEXELS, _TEXELS), np.float32)
    for sigma, strength in ((0.8, 5.0), (4.0, 4.0), (20.0, 5.0)):
        white = chance.standard_normal((_TEXELS, _TEXELS), np.float32)
        pad = 3 * int(sigma + 1)
        soft = cv2.GaussianBlur(np.pad(white, pad, mode="wrap"), (0, 0), sigma)[pad:-pad, pad:-pad]
        total += np.float32(strength / max(float(soft.std()), 1e-6)) * soft
    return np.repeat(np.rint(total).astype(np.int16)[..., None], 3, 2)
