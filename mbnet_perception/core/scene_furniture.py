"""Meshes of what stands in a synthetic street: lights, signs, cones, trees, buildings.

Every function adds one object to a `MeshBuilder`, in metres, about its point on the ground, as it
is seen from -z.
"""

import math
from random import Random

from mbnet_perception.core.scene_canvas import (
    BLACK,
    WHITE,
    Colour,
    MeshBuilder,
    Point,
    panel,
    shaded,
)
from mbnet_perception.core.scene_vehicles import PAINTS

POLE: Colour = (140, 142, 142)


def _disc(
    x: float, y: float, z: float, radius: float, corners: int, turn: float = 0.0
) -> list[Point]:
    """Corners of a regular polygon that faces -z."""
    angles = (turn + math.tau * k / corners for k in range(corners))
    return [(x + radius * math.cos(a), y + radius * math.sin(a), z) for a in angles]


LAMPS: dict[str, Colour] = {
    "red": (40, 40, 255), "amber": (30, 190, 255), "green": (120, 240, 60)
}  # fmt: skip


def traffic_light(
    mesh: MeshBuilder, style: Random, at: tuple[float, float], lit: frozenset[str]
) -> None:
    """Add the housing of a traffic light with its lowest point at (x, y); the pole is scenery."""
    housing = style.choice(((32, 34, 30), (32, 34, 30), (45, 60, 35), (40, 175, 220)))
    plate = style.random() < 0.35
    lying = style.random() < 0.12
    visor = shaded(housing, 0.6)
    x, y = at
    size = 0.3
    if plate:
        mesh.fill(_board(x, y + 1.5 * size, 0.02, 1.15 * size, 1.85 * size, lying), WHITE)
        mesh.fill(_board(x, y + 1.5 * size, 0.01, 1.05 * size, 1.75 * size, lying), BLACK)
    mesh.fill(_board(x, y + 1.5 * size, 0.0, 0.62 * size, 1.6 * size, lying), housing)
    for k, (name, colour) in enumerate(LAMPS.items()):
        step = (1 - k) * size
        cx, cy = (x - step, y + 1.5 * size) if lying else (x, y + 1.5 * size + step)
        mesh.fill(_disc(cx, cy, -0.01, 0.46 * size, 12), visor, solid=False)
        on = name in lit
        lamp = colour if on else shaded(colour, 0.22)
        mesh.fill(_disc(cx, cy, -0.02, 0.4 * size, 12), lamp, solid=False, glows=on)
        if on:
            pale: Colour = tuple(0.45 * c + 140 for c in colour)  # type: ignore[assignment]
            mesh.fill(_disc(cx, cy, -0.03, 0.2 * size, 8), pale, solid=False, glows=True)


def _board(x: float, y: float, z: float, half_w: float, half_h: float, lying: bool) -> list[Point]:
    """Corners of an upright rectangle about (x, y) that faces -z."""
    if lying:
        half_w, half_h = half_h, half_w
    return [(x - half_w, y - half_h, z), (x + half_w, y - half_h, z), (x + half_w, y + half_h, z),
            (x - half_w, y + half_h, z)]  # fmt: skip


# Letters as lines in a unit square.
_GLYPHS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "S": (((1, 0.85), (0.75, 1), (0.25, 1), (0, 0.83), (0.1, 0.58), (0.9, 0.42), (1, 0.17),
           (0.75, 0), (0.25, 0), (0, 0.15)),),
    "T": (((0, 1), (1, 1)), ((0.5, 1), (0.5, 0))),
    "O": (((0.25, 1), (0.75, 1), (1, 0.75), (1, 0.25), (0.75, 0), (0.25, 0), (0, 0.25), (0, 0.75),
           (0.25, 1)),),
    "P": (((0, 0), (0, 1), (0.75, 1), (1, 0.85), (1, 0.6), (0.75, 0.45), (0, 0.45)),),
    "0": (((0.3, 1), (0.7, 1), (1, 0.7), (1, 0.3), (0.7, 0), (0.3, 0), (0, 0.3), (0, 0.7),
           (0.3, 1)),),
    "1": (((0.2, 0.8), (0.55, 1), (0.55, 0)),),
    "2": (((0, 0.8), (0.3, 1), (0.75, 1), (1, 0.75), (0.9, 0.5), (0, 0), (1, 0)),),
    "3": (((0, 0.9), (0.3, 1), (0.8, 1), (1, 0.75), (0.75, 0.53), (0.4, 0.53)),
          ((0.75, 0.53), (1, 0.28), (0.8, 0), (0.25, 0), (0, 0.12))),
    "4": (((0.8, 0), (0.8, 1), (0, 0.3), (1, 0.3)),),
    "5": (((0.95, 1), (0.15, 1), (0.05, 0.55), (0.7, 0.6), (1, 0.33), (0.75, 0), (0.25, 0),
           (0, 0.13)),),
    "6": (((0.8, 1), (0.35, 0.95), (0.03, 0.5), (0.03, 0.2), (0.3, 0), (0.7, 0), (1, 0.22),
           (0.9, 0.5), (0.5, 0.58), (0.05, 0.4)),),
    "7": (((0, 1), (1, 1), (0.4, 0)),),
    "8": (((0.5, 0.53), (0.1, 0.72), (0.25, 1), (0.75, 1), (0.9, 0.72), (0.5, 0.53), (0.03, 0.28),
           (0.2, 0), (0.8, 0), (0.97, 0.28), (0.5, 0.53)),),
}  # fmt: skip


def _write(
    mesh: MeshBuilder, text: str, centre: Point, width: float, height: float, colour: Colour
) -> None:
    """Write over a sign, `width` metres for all letters together."""
    x, y, z = centre
    pitch = width / len(text)
    for k, letter in enumerate(text):
        left = x - width / 2 + (k + 0.12) * pitch
        for stroke in _GLYPHS[letter]:
            mesh.line(
                [(left + 0.76 * pitch * u, y + height * (v - 0.5), z) for u, v in stroke],
                0.16 * height, colour, solid=False,
            )  # fmt: skip


def stop_sign(mesh: MeshBuilder, style: Random, at: tuple[float, float]) -> None:
    """Add the octagon of a stop sign with its lowest point at (x, y)."""
    radius = style.uniform(0.38, 0.48)
    red = shaded((45, 35, 195), style.uniform(0.8, 1.1))
    x, y = at[0], at[1] + radius
    turn = math.pi / 8
    mesh.fill(_disc(x, y, 0.0, radius / math.cos(turn), 8, turn), WHITE)
    mesh.fill(_disc(x, y, -0.01, 0.92 * radius / math.cos(turn), 8, turn), red, solid=False)
    _write(mesh, "STOP", (x, y, -0.02), 1.5 * radius, 0.58 * radius, WHITE)


def speed_limit(mesh: MeshBuilder, style: Random, at: tuple[float, float]) -> None:
    """Add a speed limit, a ringed disc or a white upright board, lowest point at (x, y)."""
    x, y = at
    if style.random() < 0.65:
        radius = style.uniform(0.3, 0.38)
        y += radius
        mesh.fill(_disc(x, y, 0.0, radius, 20), (40, 32, 200))
        mesh.fill(_disc(x, y, -0.01, 0.76 * radius, 18), WHITE, solid=False)
        figure = style.choice(("20", "30", "30", "40", "50", "50", "60", "70", "80", "100"))
        _write(mesh, figure, (x, y, -0.02), 1.12 * radius, 0.66 * radius, BLACK)
    else:
        half_w, half_h = 0.32, 0.4
        y += half_h
        mesh.fill(_board(x, y, 0.0, half_w, half_h, False), WHITE)
        mesh.line(_board(x, y, -0.01, half_w - 0.035, half_h - 0.035, False), 0.02, BLACK,
                  closed=True, solid=False)  # fmt: skip
        for row in (0.26, 0.15):  # stands for the words above the figure
            words = _board(x, y + row, -0.01, 0.2, 0.025, False)
            mesh.quads([words], (110, 110, 110))
        figure = style.choice(("15", "20", "25", "35", "45", "55"))
        _write(mesh, figure, (x, y - 0.13, -0.02), 0.42, 0.34, BLACK)


def _walker_symbol(mesh: MeshBuilder, x: float, y: float, size: float) -> None:
    """Draw the little walking figure of a sign, `size` metres tall."""

    def at(*points: tuple[float, float]) -> list[Point]:
        return [(x + u * size, y + v * size, -0.03) for u, v in points]

    mesh.line(at((0.02, 0.42), (0.02, 0.42)), 0.17 * size, BLACK, solid=False)
    mesh.line(at((0.0, 0.25), (-0.02, -0.02)), 0.14 * size, BLACK, solid=False)
    mesh.line(at((-0.02, -0.02), (0.14, -0.24), (0.18, -0.5)), 0.1 * size, BLACK, solid=False)
    mesh.line(at((-0.02, -0.02), (-0.12, -0.26), (-0.28, -0.48)), 0.1 * size, BLACK, solid=False)
    mesh.line(at((0.0, 0.25), (0.2, 0.04)), 0.08 * size, BLACK, solid=False)
    mesh.line(at((0.0, 0.25), (-0.2, 0.02)), 0.08 * size, BLACK, solid=False)


def crosswalk_sign(mesh: MeshBuilder, style: Random, at: tuple[float, float]) -> None:
    """Add the sign of a pedestrian crossing, a blue square or a yellow diamond, from (x, y) up."""
    x, y = at
    if style.random() < 0.6:
        half = style.uniform(0.34, 0.42)
        y += half
        blue = shaded((175, 90, 20), style.uniform(0.8, 1.15))
        mesh.fill(_board(x, y, 0.0, half, half, False), WHITE)
        mesh.fill(_board(x, y, -0.01, 0.94 * half, 0.94 * half, False), blue, solid=False)
        mesh.fill([(x - 0.78 * half, y - 0.68 * half, -0.02), (x + 0.78 * half, y - 0.68 * half,
                  -0.02), (x, y + 0.78 * half, -0.02)], WHITE, solid=False)  # fmt: skip
        _walker_symbol(mesh, x, y - 0.12 * half, 0.95 * half)
    else:
        half = style.uniform(0.45, 0.55)
        y += half
        yellow = style.choice(((40, 200, 245), (50, 235, 215), (30, 180, 250)))
        mesh.fill(_disc(x, y, 0.0, half, 4), BLACK)
        mesh.fill(_disc(x, y, -0.01, 0.95 * half, 4), yellow, solid=False)
        _walker_symbol(mesh, x, y, 0.85 * half)


def other_sign(mesh: MeshBuilder, style: Random, at: tuple[float, float]) -> None:
    """Add a sign of none of the classes: give way, keep right, no entry, a board, a sign's back."""
    x, y = at
    kind = style.choice(("give way", "keep right", "no entry", "board", "back"))
    if kind == "give way":
        corners: list[Point] = [(x - 0.45, y + 0.78, 0), (x + 0.45, y + 0.78, 0), (x, y, 0)]
        mesh.fill(corners, (45, 35, 195))
        mesh.fill([(x - 0.27, y + 0.68, -0.01), (x + 0.27, y + 0.68, -0.01), (x, y + 0.21, -0.01)],
                  WHITE)  # fmt: skip
    elif kind == "keep right":
        mesh.fill(_disc(x, y + 0.35, 0.0, 0.35, 18), (175, 90, 20))
        mesh.line([(x - 0.15, y + 0.5, -0.01), (x + 0.15, y + 0.2, -0.01)], 0.09, WHITE)
        mesh.line([(x + 0.15, y + 0.36, -0.01), (x + 0.15, y + 0.2, -0.01),
                   (x - 0.02, y + 0.2, -0.01)], 0.09, WHITE)  # fmt: skip
    elif kind == "no entry":
        mesh.fill(_disc(x, y + 0.35, 0.0, 0.35, 18), (45, 35, 195))
        mesh.fill(_board(x, y + 0.35, -0.01, 0.24, 0.06, False), WHITE)
    elif kind == "board":
        paint = style.choice(((120, 80, 30), (70, 110, 40), (225, 225, 225), (50, 190, 230)))
        mesh.fill(_board(x, y + 0.3, 0.0, 0.7, 0.3, False), paint)
        ink = BLACK if sum(paint) > 400 else WHITE
        for row in (0.4, 0.2):
            width = style.uniform(0.2, 0.55)
            mesh.fill(_board(x - 0.6 + width, y + row, -0.01, width, 0.05, False), ink)
    else:
        mesh.fill(_disc(x, y + 0.38, 0.0, 0.38, style.choice((4, 8, 18))), (135, 138, 138))


def post(
    mesh: MeshBuilder, style: Random, height: float, reach: float = 0.0, width: float = 0.07
) -> None:
    """Add a pole, with an arm of `reach` metres to the right when that is not zero."""
    paint = shaded(POLE, style.uniform(0.5, 1.1))
    mesh.line([(0, 0, 0.05), (0, height, 0.05)], width, paint)
    if reach:
        mesh.line([(0, height, 0.05), (reach, height + 0.15, 0.05)], 0.7 * width, paint)


def cone(mesh: MeshBuilder, style: Random, shadow: Colour) -> None:
    """Add a traffic cone."""
    tall = style.uniform(0.45, 0.8)
    orange = style.choice(((30, 95, 245), (20, 75, 235), (40, 120, 250)))
    half = 0.24 * tall
    base = style.choice((orange, BLACK))
    mesh.shadow(1.7 * half, 1.6 * half, shadow)
    mesh.prism(
        [(-1.45 * half, 0), (-1.45 * half, 0.05), (1.45 * half, 0.05), (1.45 * half, 0)],
        [1.45 * half] * 4, [base, base, base, None], base,
    )  # fmt: skip

    def ring(low: float, high: float, colour: Colour) -> None:
        a, b = half * (1 - 0.85 * low), half * (1 - 0.85 * high)
        y, w = 0.05 + low * (tall - 0.05), 0.05 + high * (tall - 0.05)
        mesh.fill([(-a, y, 0), (a, y, 0), (b, w, 0), (-b, w, 0)], colour)
        mesh.fill([(0.35 * a, y, 0), (a, y, 0), (b, w, 0), (0.35 * b, w, 0)],
                  shaded(colour, 0.82))  # fmt: skip

    ring(0.0, 1.0, orange)
    for low, high in style.choice((((0.35, 0.55), (0.68, 0.82)), ((0.42, 0.7),), ())):
        ring(low, high, WHITE)


def tree(mesh: MeshBuilder, style: Random, shadow: Colour) -> None:
    """Add a broad-leaved or a pointed tree."""
    tall = style.uniform(4.0, 9.0)
    green = style.choice(
        ((45, 95, 60), (40, 80, 70), (60, 110, 80), (50, 120, 110), (40, 100, 130))
    )
    mesh.shadow(0.25 * tall, 0.25 * tall, shadow)
    mesh.line([(0, 0, 0), (0, 0.5 * tall, 0)], 0.035 * tall + 0.05, (50, 65, 80))
    if style.random() < 0.25:
        green = style.choice(((45, 95, 60), (40, 80, 55), (60, 90, 60)))
        for k in range(4):
            low, half = (0.15 + 0.2 * k) * tall, (0.22 - 0.045 * k) * tall
            mesh.fill([(-half, low, 0), (half, low, 0), (0, low + 0.38 * tall, 0)],
                      shaded(green, 0.7 + 0.1 * k))  # fmt: skip
        return
    blobs = [
        (style.uniform(-0.2, 0.2), style.uniform(0.5, 0.85), style.uniform(0.25, 0.42))
        for _ in range(7)
    ]
    for k, (x, y, size) in enumerate(sorted(blobs, key=lambda blob: blob[1])):
        mesh.dot((x * tall, y * tall, 0), size * tall, shaded(green, 0.7 + 0.07 * k))


def bush(mesh: MeshBuilder, style: Random) -> None:
    """Add a bush."""
    green = style.choice(((45, 95, 60), (40, 80, 70), (60, 110, 80)))
    for _ in range(4):
        size = style.uniform(0.5, 1.1)
        mesh.dot((style.uniform(-0.6, 0.6), 0.4 * size, 0), size,
                 shaded(green, style.uniform(0.75, 1.1)))  # fmt: skip


def street_lamp(mesh: MeshBuilder, style: Random, toward: float, lit: bool) -> None:
    """Add a street lamp whose arm points to the side `toward` (-1 left, 1 right)."""
    tall = style.uniform(5.5, 7.5)
    reach = 1.4 * toward
    mesh.line([(0, 0, 0), (0, tall, 0), (reach, tall + 0.3, 0)], 0.13, (105, 105, 100))
    head: list[Point] = [(reach - 0.3, tall + 0.28, 0), (reach + 0.3, tall + 0.28, 0)]
    mesh.line(head, 0.14, (190, 230, 255) if lit else (150, 150, 150), glows=lit)


def bin_or_box(mesh: MeshBuilder, style: Random) -> None:
    """Add a dustbin, post box or cabinet, which no class names."""
    paint = style.choice(((50, 80, 45), (60, 60, 62), (40, 40, 170), (120, 90, 60)))
    half, tall = style.uniform(0.22, 0.4), style.uniform(0.8, 1.3)
    mesh.prism([(-half, 0), (-half, tall), (half, tall), (half, 0)], [half] * 4,
               [paint, shaded(paint, 1.2), paint, None], paint)  # fmt: skip


def building(
    mesh: MeshBuilder, style: Random, length: float, depth: float, inward: float, night: bool
) -> None:
    """Add a building whose street front lies at x = 0 and whose centre is at z = 0.

    Args:
        mesh: Where to add it.
        style: Decides height, colours and windows.
        length: Length along the street in metres.
        depth: Width across in metres.
        inward: 1 when the street lies to its right, -1 when to its left.
        night: Whether some windows are lit.
    """
    floors = style.choice((1, 2, 2, 3, 3, 4, 5, 7))
    tall = 3.1 * floors + style.uniform(0.5, 1.5)
    wall: Colour = style.choice(
        ((150, 175, 200), (120, 140, 175), (185, 195, 205), (95, 115, 165), (170, 170, 168),
         (140, 180, 205), (200, 205, 208), (110, 120, 125), (90, 100, 140))
    )  # fmt: skip
    wall = shaded(wall, style.uniform(0.8, 1.1))
    pane = style.choice(((95, 80, 70), (70, 62, 58), (125, 110, 95)))
    away = -inward * depth
    z0, z1 = -length / 2, length / 2
    core = (away / 2, tall / 2, 0.0)
    front: list[Point] = [(0, 0, z0), (0, 0, z1), (0, tall, z1), (0, tall, z0)]
    end: list[Point] = [(0, 0, z0), (away, 0, z0), (away, tall, z0), (0, tall, z0)]
    gable = floors <= 3 and style.random() < 0.6
    if gable:
        roof = style.choice(((60, 70, 130), (70, 70, 75), (60, 80, 110)))
        ridge = tall + style.uniform(1.5, 3.0)
        mesh.fill([(0, tall, z0), (0, tall, z1), (away / 2, ridge, z1), (away / 2, ridge, z0)],
                  roof, core)  # fmt: skip
        mesh.fill([*end[:3], (away / 2, ridge, z0), end[3]], wall, core)
    else:
        mesh.fill(end, wall, core)
    mesh.fill(front, wall, core)
    rows = [k / floors for k in range(floors)]
    dark: list[list[Point]] = []
    lit: list[list[Point]] = []
    for face, span in ((front, length), (end, depth)):
        columns = max(1, int(span / style.uniform(2.2, 3.2)))
        dark.clear()
        lit.clear()
        top = (tall - 0.6) / tall
        for row in rows:
            for column in range(columns):
                u, v = (column + 0.27) / columns, (row + 0.3 / floors) * top
                window = panel(face, u, u + 0.46 / columns, v, v + 0.48 * top / floors)
                (lit if night and style.random() < 0.35 else dark).append(window)
        mesh.quads(dark, pane, core)
        mesh.quads(lit, (120, 200, 240), core, glows=True)
    if style.random() < 0.5:
        sign = style.choice(((60, 60, 180), (150, 110, 50), (60, 130, 90), (60, 170, 210)))
        mesh.quads([panel(front, 0.05, 0.95, 2.75 / tall, 3.15 / tall)], sign, core)
        mesh.quads([panel(front, k / 8 + 0.01, k / 8 + 0.1, 0.3 / tall, 2.6 / tall)
                    for k in range(8)], shaded(pane, 0.8), core)  # fmt: skip


def hall_panel(mesh: MeshBuilder, style: Random, length: float, inward: float) -> None:
    """Add a stretch of an indoor wall along the track, its centre at z = 0; see `building`."""
    tall = 3.0
    wall = style.choice(((205, 210, 212), (190, 198, 205), (170, 190, 200)))
    z0, z1 = -length / 2, length / 2
    front: list[Point] = [(0, 0, z0), (0, 0, z1), (0, tall, z1), (0, tall, z0)]
    core = (-inward * 1.0, tall / 2, 0.0)
    mesh.fill(front, wall, core)
    mesh.quads([panel(front, 0, 1, 0, 0.04)], shaded(wall, 0.6), core)
    thing = style.choice(("door", "window", "poster", "none"))
    u = style.uniform(0.1, 0.6)
    if thing == "door":
        mesh.quads([panel(front, u, u + 1.0 / length, 0, 0.68)],
                   style.choice(((60, 90, 130), (140, 140, 150))), core)  # fmt: skip
    elif thing == "window":
        mesh.quads([panel(front, u, u + 0.3, 0.32, 0.75)], (225, 215, 200), core)
    elif thing == "poster":
        mesh.quads([panel(front, u, u + 0.12, 0.35, 0.6)], style.choice(PAINTS), core)
