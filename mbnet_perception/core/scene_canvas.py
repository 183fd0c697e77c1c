"""Solid shapes in metres, a pinhole camera, and a canvas that draws one through the other.

World frame of this module: x to the right, y up from the road surface, z forward, in metres, with
the origin on the ground below the camera. Colours are BGR, 0-255.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
Point = tuple[float, float, float]
Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

NEAR = 0.25
"""Distance in metres of the near plane: what lies closer is cut off."""

WHITE: Colour = (240, 240, 240)
BLACK: Colour = (24, 24, 24)

_SHIFT = 4  # fractional bits of the pixel coordinates handed to OpenCV
_SMALLEST = 0.9  # pixels; parts that project smaller are not drawn
_FAR_PIXEL = 30000.0  # OpenCV's drawing wraps coordinates that are much larger


def shaded(colour: Colour, factor: float) -> Colour:
    """Scale a colour's brightness."""
    b, g, r = (min(255.0, channel * factor) for channel in colour)
    return b, g, r


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with a level optical axis, pixel (0, 0) being the top left pixel's centre.

    Attributes:
        focal: Focal length in pixels.
        centre: Column of the optical axis in pixels.
        horizon: Row of the optical axis, and so of the horizon, in pixels.
        height: Height above the road in metres.
    """

    focal: float
    centre: float
    horizon: float
    height: float

    def project(self, points: Floats) -> Floats:
        """Map (N, 3) points in metres, all with z > 0, to (N, 2) pixel coordinates (u, v)."""
        scale = self.focal / points[:, 2]
        pixels = np.empty((len(points), 2), np.float32)
        pixels[:, 0] = self.centre + scale * points[:, 0]
        pixels[:, 1] = self.horizon + scale * (self.height - points[:, 1])
        return pixels


@dataclass(frozen=True)
class Light:
    """Illumination of a scene.

    Attributes:
        tint: Colour factor of everything that does not shine itself, BGR.
        sun: Unit vector towards the sun.
        contrast: Brightness between faces turned to the sun and away from it, 0-1.
        haze: BGR colour that distant things fade to.
        haze_distance: Distance in metres at which 63 % of a thing's colour is haze.
    """

    tint: Colour
    sun: Point
    contrast: float
    haze: Colour
    haze_distance: float


@dataclass(frozen=True)
class Mesh:
    """Polygons and thick lines of one object, in drawing order, about its point on the ground."""

    vertices: Floats  # (V, 3) metres
    first: tuple[int, ...]  # (P,) first vertex of each part
    stops: tuple[int, ...]  # (P,) one past its last
    widths: tuple[float, ...]  # metres; 0 for a filled convex polygon, < 0 for a set of quads
    closed: tuple[bool, ...]
    solid: tuple[bool, ...]  # belongs to the silhouette, unlike shadows
    glows: NDArray[np.bool_]  # (P,) colour does not depend on the light
    colours: Floats  # (P, 3)
    normals: Floats  # (P, 3); zero for parts that are seen from both sides
    offsets: Floats  # (P,) normal . vertex
    extents: Floats  # (P,) largest dimension in metres
    widest: float  # metres; the thickest line


class MeshBuilder:
    """Collects the parts of a `Mesh` in the object's own frame, which `build` turns and shades.

    The object's frame: x to its right, y up, z to its front, metres. With heading 0 the object
    faces away from the camera, with pi towards it.
    """

    def __init__(self, heading: float = 0.0, scale: float = 1.0) -> None:
        self.heading = heading
        self.scale = scale
        self._points: list[Point] = []
        self._starts: list[int] = []
        self._widths: list[float] = []
        self._closed: list[bool] = []
        self._solid: list[bool] = []
        self._glows: list[bool] = []
        self._colours: list[Colour] = []
        self._cores: list[Point | None] = []

    def _add(
        self,
        points: Iterable[Point],
        colour: Colour,
        *,
        width: float = 0.0,
        closed: bool = True,
        core: Point | None = None,
        solid: bool = True,
        glows: bool = False,
    ) -> None:
        self._starts.append(len(self._points))
        self._points.extend(points)
        self._widths.append(width)
        self._closed.append(closed)
        self._solid.append(solid)
        self._glows.append(glows)
        self._colours.append(colour)
        self._cores.append(core)

    def depth(self, point: Point) -> float:
        """How much farther than the object's origin a point lies from the viewer, in metres."""
        return point[2] * math.cos(self.heading) - point[0] * math.sin(self.heading)

    def fill(
        self,
        points: Iterable[Point],
        colour: Colour,
        core: Point | None = None,
        *,
        solid: bool = True,
        glows: bool = False,
    ) -> None:
        """Add a filled convex polygon; with `core`, it is seen only from the side away from it."""
        self._add(points, colour, core=core, solid=solid, glows=glows)

    def quads(
        self,
        corners: Iterable[Sequence[Point]],
        colour: Colour,
        core: Point | None = None,
        *,
        glows: bool = False,
    ) -> None:
        """Add quadrilaterals in one plane as a single part, never part of the silhouette."""
        points = [point for quad in corners for point in quad]
        if points:
            self._add(points, colour, width=-1.0, core=core, solid=False, glows=glows)

    def line(
        self,
        points: Iterable[Point],
        width: float,
        colour: Colour,
        *,
        closed: bool = False,
        solid: bool = True,
        glows: bool = False,
    ) -> None:
        """Add a line with round ends, `width` metres thick."""
        self._add(points, colour, width=width, closed=closed, solid=solid, glows=glows)

    def dot(
        self,
        centre: Point,
        diameter: float,
        colour: Colour,
        *,
        solid: bool = True,
        glows: bool = False,
    ) -> None:
        """Add a ball."""
        self._add((centre, centre), colour, width=diameter, closed=False, solid=solid, glows=glows)

    def shadow(self, half_width: float, half_length: float, colour: Colour) -> None:
        """Add a rounded shadow on the ground."""
        steps = [math.tau * k / 12 for k in range(12)]
        self._add(
            [
                (
                    half_width * math.copysign(abs(math.cos(a)) ** 0.6, math.cos(a)),
                    0.0,
                    half_length * math.copysign(abs(math.sin(a)) ** 0.6, math.sin(a)),
                )
                for a in steps
            ],
            colour,
            solid=False,
        )

    def prism(
        self,
        profile: Sequence[tuple[float, float]],
        half_widths: Sequence[float],
        colours: Sequence[Colour | None],
        side_colour: Colour,
    ) -> tuple[list[list[Point]], list[Point], list[Point], Point]:
        """Add a convex profile of (z, y) points spread over x.

        Args:
            profile: Corners of the profile, metres.
            half_widths: Half the width at each corner.
            colours: Colour of the face from each corner to the next; None leaves the face out.
            side_colour: Colour of the two sides.

        Returns:
            The face of each profile edge as (left start, right start, right end, left end); the
            left and the right side's corners; a point inside.
        """
        left = [(-w, y, z) for (z, y), w in zip(profile, half_widths, strict=True)]
        right = [(w, y, z) for (z, y), w in zip(profile, half_widths, strict=True)]
        count = len(profile)
        core = (0.0, sum(y for _, y in profile) / count, sum(z for z, _ in profile) / count)
        faces = []
        for k, colour in enumerate(colours):
            n = (k + 1) % count
            face: list[Point] = [left[k], right[k], right[n], left[n]]
            faces.append(face)
            if colour is not None:
                self.fill(face, colour, core)
        self.fill(left, side_colour, core)
        self.fill(right, side_colour, core)
        return faces, left, right, core

    def build(self, light: Light) -> Mesh:
        """Turn by the heading, scale, and shade the faces."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], np.float32)
        points = np.array(self._points, np.float32) * np.float32(self.scale)
        vertices: Floats = (points @ turn).astype(np.float32)
        starts = np.array(self._starts, np.intp)
        stops = (*self._starts[1:], len(self._points))
        one_sided = np.array([core is not None for core in self._cores])
        cores = np.array([core or (0, 0, 0) for core in self._cores], np.float32)
        cores = (cores * np.float32(self.scale) @ turn).astype(np.float32)
        # A face need not be quite flat: its normal is that of its area (Newell's method).
        counts = np.diff([*starts, len(vertices)])
        following = np.arange(1, len(vertices) + 1)
        following[starts + counts - 1] = starts
        u, v = vertices, vertices[following]
        areas = u[:, [1, 2, 0]] * v[:, [2, 0, 1]] - u[:, [2, 0, 1]] * v[:, [1, 2, 0]]
        centres = np.add.reduceat(vertices, starts) / counts[:, None].astype(np.float32)
        normals = np.add.reduceat(areas, starts)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.float32(1e-9))
        normals[((centres - cores) * normals).sum(1) < 0] *= -1
        colours = np.array(self._colours, np.float32).reshape(-1, 3)
        glows = np.array(self._glows)
        facing = normals @ np.array(light.sun, np.float32)
        shade = np.where(one_sided & ~glows, 1 - light.contrast * (0.5 - 0.5 * facing), 1.0)
        normals[~one_sided] = 0
        offsets = (normals * centres).sum(1)
        offsets[~one_sided] = -1
        widths = np.array(self._widths, np.float32) * np.float32(self.scale)
        spans = np.maximum.reduceat(vertices, starts) - np.minimum.reduceat(vertices, starts)
        return Mesh(
            vertices=vertices,
            stops=stops,
            first=tuple(self._starts),
            widths=tuple(widths.tolist()),
            closed=tuple(self._closed),
            solid=tuple(self._solid),
            glows=glows,
            colours=colours * shade[:, None].astype(np.float32),
            normals=normals,
            offsets=offsets,
            extents=spans.max(1) + np.maximum(widths, 0),
            widest=max(0.0, float(widths.max())),
        )


def panel(
    quad: Sequence[Point], left: float, right: float, start: float, end: float
) -> list[Point]:
    """Return the part of a `MeshBuilder.prism` face between fractions of its two directions."""

    def at(u: float, v: float) -> Point:
        a, b, c, d = quad
        x, y, z = (
            (1 - v) * ((1 - u) * a[k] + u * b[k]) + v * ((1 - u) * d[k] + u * c[k])
            for k in range(3)
        )
        return x, y, z

    return [at(left, start), at(right, start), at(right, end), at(left, end)]


class Canvas:
    """An image being drawn from far to near, with a map of which object each pixel shows.

    Attributes:
        image: (H, W, 3) uint8 BGR.
        owners: (H, W) uint8, number of the object that was drawn last on a pixel, 0 for none.
    """

    def __init__(self, image: Image, camera: Camera, light: Light) -> None:
        self.image = image
        self.owners: Image = np.zeros(image.shape[:2], np.uint8)
        self.camera = camera
        self.light = light
        self._tint = np.array(light.tint, np.float32)
        self._haze = np.array(light.haze, np.float32)

    def draw(self, mesh: Mesh, position: Point, owner: int = 0) -> tuple[int, int, int, int]:
        """Draw a mesh with its origin at `position` and claim its silhouette for `owner`.

        Returns:
            Pixel limits (x0, y0, x1, y1), x1 and y1 exclusive, that hold the silhouette; not
            clipped to the image, and empty (x1 <= x0) where nothing was drawn.
        """
        height, width = self.owners.shape[:2]
        vertices = mesh.vertices + np.array(position, np.float32)
        depths = vertices[:, 2]
        if float(depths.max()) <= NEAR:
            return 0, 0, 0, 0
        camera = self.camera
        cut = float(depths.min()) < NEAR
        pixels = camera.project(
            np.maximum(vertices, np.array((-1e9, -1e9, NEAR), np.float32)) if cut else vertices
        )
        scale = camera.focal / max(float(depths.mean()), NEAR)
        (u0, u1), (v0, v1) = ((float(k.min()), float(k.max())) for k in pixels.T)
        margin = 2.0 + 0.5 * mesh.widest * scale  # thick lines reach beyond their points
        if u1 < -margin or u0 > width + margin or v1 < -margin or v0 > height + margin:
            return 0, 0, 0, 0
        eye = np.array((-position[0], camera.height - position[1], -position[2]), np.float32)
        shown = (mesh.normals @ eye > mesh.offsets) & (mesh.extents * scale > _SMALLEST)
        haze = 1 - math.exp(-max(float(depths.mean()), 0.0) / self.light.haze_distance)
        colours = np.where(mesh.glows[:, None], mesh.colours, mesh.colours * self._tint)
        colours = colours * np.float32(1 - haze) + self._haze * np.float32(haze)
        palette = colours.tolist()
        fixed = np.rint(np.clip(pixels, -_FAR_PIXEL, _FAR_PIXEL) * (1 << _SHIFT)).astype(np.int32)

        x0, y0, x1, y1 = width * 9, height * 9, -width * 9, -height * 9
        image, owners = self.image, self.owners
        for k in np.flatnonzero(shown).tolist():
            first, stop = mesh.first[k], mesh.stops[k]
            part = fixed[first:stop]
            line_width, solid = mesh.widths[k], mesh.solid[k]
            if cut:
                part = self._cut(vertices[first:stop], part, line_width)
                if not len(part):
                    continue
            if line_width > 0:
                thickness = min(max(1, round(line_width * scale)), 2000)
                closed = mesh.closed[k]
                cv2.polylines(
                    image, [part], closed, palette[k], thickness, cv2.LINE_AA, shift=_SHIFT
                )
                if solid:
                    cv2.polylines(owners, [part], closed, owner, thickness, shift=_SHIFT)
            elif line_width < 0:
                thickness = 0
                cv2.fillPoly(
                    image, list(part.reshape(-1, 4, 2)), palette[k], cv2.LINE_AA, shift=_SHIFT
                )
            else:
                thickness = 0
                cv2.fillConvexPoly(image, part, palette[k], cv2.LINE_AA, shift=_SHIFT)
                if solid:
                    cv2.fillConvexPoly(owners, part, owner, cv2.LINE_8, shift=_SHIFT)
            if solid and owner:
                reach = thickness // 2 + 2
                (left, top), (right, bottom) = part.min(0).tolist(), part.max(0).tolist()
                x0 = min(x0, (left >> _SHIFT) - reach)
                y0 = min(y0, (top >> _SHIFT) - reach)
                x1 = max(x1, (right >> _SHIFT) + reach + 1)
                y1 = max(y1, (bottom >> _SHIFT) + reach + 1)
        return x0, y0, x1, y1

    def _cut(
        self, vertices: Floats, part: NDArray[np.int32], line_width: float
    ) -> NDArray[np.int32]:
        """Return the part without what lies before the near plane, in fixed-point pixels."""
        near = vertices[:, 2] < NEAR
        if not near.any():
            return part
        if line_width < 0:
            return part.reshape(-1, 4, 2)[~near.reshape(-1, 4).any(1)].reshape(-1, 2)
        if line_width > 0 or near.all():
            return part[:0]
        kept: list[Floats] = []
        for a, b in zip(vertices, np.roll(vertices, -1, 0), strict=True):
            if a[2] >= NEAR:
                kept.append(a)
            if (a[2] >= NEAR) != (b[2] >= NEAR):
                kept.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
        pixels = np.clip(self.camera.project(np.array(kept)), -_FAR_PIXEL, _FAR_PIXEL)
        return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)

    def ground(self, outlines: Sequence[Floats], colour: Colour) -> None:
        """Fill areas on the ground.

        Args:
            outlines: Polygons as (N, 2) arrays of x and z in metres, z >= NEAR.
            colour: Colour before the light's tint; haze is not applied.
        """
        if not outlines:
            return
        points = np.zeros((sum(map(len, outlines)), 3), np.float32)
        points[:, ::2] = np.concatenate(outlines)
        pixels = np.clip(self.camera.project(points), -_FAR_PIXEL, _FAR_PIXEL)
        fixed = np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
        shaded = (np.array(colour, np.float32) * self._tint).tolist()
        cv2.fillPoly(
            self.image,
            np.split(fixed, np.cumsum([len(outline) for outline in outlines])[:-1]),
            shaded,
            cv2.LINE_AA,
            shift=_SHIFT,
        )
