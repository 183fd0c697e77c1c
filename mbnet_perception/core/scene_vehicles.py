"""Meshes of the vehicles of a synthetic street.

Every function adds one vehicle to a `MeshBuilder`, in metres, about its point on the ground, with
its front towards +z.
"""

import math
from collections.abc import Sequence
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

PAINTS: tuple[Colour, ...] = (
    (235, 235, 232), (215, 213, 210), (120, 120, 118), (75, 74, 72), (38, 36, 36), (30, 28, 140),
    (40, 40, 185), (140, 70, 30), (170, 100, 40), (95, 60, 35), (60, 95, 50), (150, 170, 190),
    (40, 120, 190), (60, 190, 225), (200, 190, 120),
)  # fmt: skip
GLASS: Colour = (92, 78, 66)
TYRE: Colour = (32, 31, 30)
CHROME: Colour = (190, 190, 192)
HEADLIGHT: Colour = (225, 245, 255)
TAIL_LIGHT: Colour = (35, 30, 190)


def _wheel_ring(y: float, z: float, radius: float, corners: int = 14) -> list[Point]:
    """Corners of a regular polygon in the plane x = 0."""
    angles = (math.tau * k / corners for k in range(corners))
    return [(0.0, y + radius * math.sin(a), z + radius * math.cos(a)) for a in angles]


def _wheels(
    mesh: MeshBuilder, half_width: float, axles: Sequence[float], radius: float, rim: Colour
) -> None:
    for side in (-1, 1):
        x = side * (half_width + 0.01)
        for z in axles:
            ring = [(x, y, w) for _, y, w in _wheel_ring(radius, z, radius)]
            mesh.fill(ring, TYRE, (0.0, radius, z))
            hub = [(x, y, w) for _, y, w in _wheel_ring(radius, z, 0.62 * radius, 9)]
            mesh.fill(hub, rim, (0.0, radius, z))


def _tyres_end_on(
    mesh: MeshBuilder, half_width: float, length: float, clearance: float, width: float
) -> None:
    """Add what shows of the tyres and the underside below the front and the rear."""
    for z in (length / 2 - 0.25, 0.25 - length / 2):
        x = half_width - 0.05
        mesh.fill([(-x, 0.16, z), (x, 0.16, z), (x, 1.4 * clearance, z), (-x, 1.4 * clearance, z)],
                  (22, 21, 20))  # fmt: skip
        for side in (-1, 1):
            a, b = side * x, side * (x - width)
            mesh.fill([(a, 0, z), (b, 0, z), (b, 1.2 * clearance, z), (a, 1.2 * clearance, z)],
                      TYRE)  # fmt: skip


def _plate(mesh: MeshBuilder, face: Sequence[Point], at: float, core: Point) -> None:
    mesh.quads([panel(face, 0.36, 0.64, at - 0.07, at + 0.07)], (225, 228, 226), core)


def car(mesh: MeshBuilder, style: Random, shadow: Colour, eye: float, lamps: bool) -> None:
    """Add a hatchback, saloon, estate, off-roader or van.

    Args:
        mesh: Where to add it.
        style: Decides shape and colours.
        shadow: Colour of the ground below it.
        eye: Height of the camera in metres, which decides what hides what.
        lamps: Whether its lights are on.
    """
    shape = style.choice(("hatch", "saloon", "saloon", "estate", "suv", "suv", "van"))
    paint = style.choice(PAINTS)
    paint = shaded(paint, style.uniform(0.85, 1.1))
    length = {"hatch": 3.9, "saloon": 4.6, "estate": 4.6, "suv": 4.5, "van": 4.9}[shape]
    tall = {"hatch": 1.48, "saloon": 1.43, "estate": 1.48, "suv": 1.68, "van": 1.95}[shape]
    length *= style.uniform(0.94, 1.06)
    tall *= style.uniform(0.97, 1.04)
    half = style.uniform(0.84, 0.93) * (1.06 if shape in ("suv", "van") else 1.0)
    low = 0.27 if shape in ("suv", "van") else 0.21
    belt = tall * style.uniform(0.6, 0.64)
    rear, front = -length / 2, length / 2
    mesh.shadow(half + 0.12, front + 0.12, shadow)
    _tyres_end_on(mesh, half, length, low, 0.2)

    boot = {"hatch": 0.1, "saloon": 0.85, "estate": 0.05, "suv": 0.08, "van": 0.02}[shape]
    slope = {"hatch": 0.4, "saloon": 0.65, "estate": 0.3, "suv": 0.25, "van": 0.08}[shape]
    hood = {"hatch": 0.95, "saloon": 1.15, "estate": 1.15, "suv": 1.1, "van": 0.75}[shape]
    rake = {"hatch": 0.65, "saloon": 0.75, "estate": 0.7, "suv": 0.55, "van": 0.6}[shape]

    for x in (-half - 0.02, half + 0.02):
        mesh.dot((x, belt + 0.05, front - hood - 0.35), 0.17, shaded(paint, 0.8))

    def body() -> None:
        nose = belt * style.uniform(0.78, 0.86)
        faces, left, right, core = mesh.prism(
            [(rear + 0.06, low), (rear, 0.55), (rear + 0.05, belt), (front - hood, belt),
             (front - 0.05, nose), (front, 0.5), (front - 0.1, low)],
            [half - 0.04, half, half - 0.04, half - 0.03, half - 0.1, half - 0.03, half - 0.06],
            [shaded(paint, 0.6), paint, paint, shaded(paint, 1.08), paint, shaded(paint, 0.7),
             None],
            paint,
        )  # fmt: skip
        # The rear.
        tail: Colour = (60, 50, 255) if lamps else TAIL_LIGHT
        span = style.choice((0.16, 0.2, 0.26))
        for u in (0.02, 0.98 - span):
            mesh.quads([panel(faces[1], u, u + span, 0.45, 0.9)], tail, core, glows=lamps)
        _plate(mesh, faces[1], 0.4, core)
        mesh.quads([panel(faces[0], 0.08, 0.92, 0.1, 0.55)], BLACK, core)
        # The front.
        lit: Colour = (235, 250, 255) if lamps else HEADLIGHT
        span = style.choice((0.18, 0.22, 0.26))
        grille = style.uniform(0.3, 0.5)
        mesh.quads(
            [panel(faces[4], 0.5 - grille / 2, 0.5 + grille / 2, 0.2, 0.95)], (40, 38, 36), core
        )
        for u in (0.03, 0.97 - span):
            mesh.quads([panel(faces[4], u, u + span, 0.1, 0.75)], lit, core, glows=lamps)
        mesh.quads([panel(faces[5], 0.15, 0.85, 0.45, 0.85)], BLACK, core)
        _plate(mesh, faces[5], 0.22, core)
        # The sides.
        for side in (left, right):
            x = side[0][0] * 1.02
            joint: Colour = shaded(paint, 0.55)
            for z in (0.0, 0.28 * length - 0.35, -0.22 * length):
                mesh.fill([(x, low + 0.08, z), (x, belt, z), (x, belt, z + 0.03),
                           (x, low + 0.08, z + 0.03)], joint, core, solid=False)  # fmt: skip
        _wheels(mesh, half, (rear + 0.19 * length, front - 0.19 * length), 0.31, CHROME)

    def cabin() -> None:
        base, roof = half - 0.06, half - 0.22
        faces, left, right, core = mesh.prism(
            [(rear + boot, belt - 0.02), (rear + boot + slope, tall), (front - hood - rake, tall),
             (front - hood, belt - 0.02)],
            [base, roof, roof, base],
            [paint, shaded(paint, 1.05), paint, None],
            paint,
        )  # fmt: skip
        glass = shaded(GLASS, style.uniform(0.6, 1.2))
        rear_top = 0.92 if shape != "van" else 0.88
        mesh.fill(panel(faces[0], 0.08, 0.92, 0.15, rear_top), glass, core, solid=False)
        mesh.fill(panel(faces[2], 0.06, 0.94, 0.08, 0.96), glass, core, solid=False)
        mesh.quads([panel(faces[2], 0.1, 0.45, 0.15, 0.5)], shaded(glass, 1.35), core)
        if shape == "van" and style.random() < 0.5:
            panes: tuple[tuple[float, float], ...] = ((0.68, 0.95),)
        else:
            panes = ((0.05, 0.28), (0.31, 0.62), (0.65, 0.95))
        for side in (left, right):
            # Corners: rear base, rear roof, front roof, front base.
            quad = [side[0], side[3], side[2], side[1]]
            mesh.quads([panel(quad, u, v, 0.12, 0.86) for u, v in panes], glass, core)

    if eye > belt:
        body()
        cabin()
    else:
        cabin()
        body()


def bus(mesh: MeshBuilder, style: Random, shadow: Colour, lamps: bool) -> None:
    """Add a city bus or coach; arguments as for `car`."""
    length = style.uniform(9.5, 12.2)
    half, tall, low = 1.26, style.uniform(2.95, 3.3), 0.32
    paint = style.choice(
        ((45, 45, 190), (60, 190, 230), (150, 90, 40), (230, 230, 228), (80, 140, 60),
         (200, 160, 90), (40, 110, 220))
    )  # fmt: skip
    band = style.choice((paint, WHITE, shaded(paint, 0.6)))
    rear, front = -length / 2, length / 2
    mesh.shadow(half + 0.15, front + 0.15, shadow)
    _tyres_end_on(mesh, half, length, low, 0.28)
    faces, _, _, core = mesh.prism(
        [(rear, low), (rear, tall - 0.1), (rear + 0.15, tall), (front - 0.2, tall),
         (front, tall - 0.15), (front, low)],
        [half, half, half - 0.08, half - 0.08, half, half],
        [paint, shaded(paint, 0.9), WHITE, shaded(paint, 0.9), paint, None],
        paint,
    )  # fmt: skip
    glass = shaded(GLASS, style.uniform(0.6, 1.1))
    tail: Colour = (60, 50, 255) if lamps else TAIL_LIGHT
    mesh.quads([panel(faces[0], 0.0, 1.0, 0.0, 0.16)], shaded(band, 0.7), core)
    mesh.fill(panel(faces[0], 0.1, 0.9, 0.55, 0.88), glass, core, solid=False)
    mesh.quads([panel(faces[0], 0.25, 0.75, 0.12, 0.38)], shaded(paint, 0.6), core)
    mesh.quads([panel(faces[0], u, u + 0.08, 0.1, 0.32) for u in (0.03, 0.89)], tail, core,
               glows=lamps)  # fmt: skip
    _plate(mesh, faces[0], 0.45, core)
    # The front face runs from the top down.
    mesh.fill(panel(faces[4], 0.04, 0.96, 0.14, 0.66), glass, core, solid=False)
    mesh.quads([panel(faces[4], 0.12, 0.55, 0.2, 0.5)], shaded(glass, 1.3), core)
    mesh.quads([panel(faces[4], 0.12, 0.88, 0.02, 0.12)], (20, 20, 20), core)
    mesh.quads(
        [panel(faces[4], u, u + 0.1, 0.045, 0.095) for u in (0.2, 0.32, 0.48, 0.6, 0.72)],
        (40, 170, 250), core, glows=True,
    )  # fmt: skip
    lit: Colour = (235, 250, 255) if lamps else HEADLIGHT
    mesh.quads([panel(faces[4], u, u + 0.13, 0.78, 0.87) for u in (0.04, 0.83)], lit, core,
               glows=lamps)  # fmt: skip
    mesh.quads([panel(faces[4], 0.0, 1.0, 0.92, 1.0)], shaded(band, 0.6), core)
    windows = max(5, int(length / 1.5))
    for x in (-half - 0.005, half + 0.005):
        edge = (length - 0.7) / windows
        starts = [rear + 0.3 + k * edge for k in range(windows)]
        mesh.quads(
            [[(x, low, rear), (x, low, front), (x, low + 0.45, front), (x, low + 0.45, rear)]],
            band, core,
        )  # fmt: skip
        mesh.quads(
            [[(x, 1.35, z + 0.06), (x, 1.35, z + edge - 0.06), (x, tall - 0.5, z + edge - 0.06),
              (x, tall - 0.5, z + 0.06)] for z in starts],
            glass, core,
        )  # fmt: skip
        doors = (front - 1.6, 0.2)
        mesh.quads(
            [[(x, 0.4, z), (x, 0.4, z + 1.1), (x, 2.5, z + 1.1), (x, 2.5, z)] for z in doors],
            shaded(glass, 0.8), core,
        )  # fmt: skip
    _wheels(mesh, half, (rear + 2.3, front - 2.5), 0.46, (130, 130, 132))
    for mirror in (-half - 0.2, half + 0.2):
        mesh.line([(mirror, 2.1, front + 0.1), (mirror, 2.5, front + 0.1)], 0.14, BLACK)


def truck(mesh: MeshBuilder, style: Random, shadow: Colour, eye: float, lamps: bool) -> None:
    """Add a box, tarpaulin or tipper lorry or a pickup; arguments as for `car`."""
    kind = style.choice(("box", "box", "box", "tipper", "light", "pickup"))
    paint = style.choice(PAINTS)
    lit: Colour = (235, 250, 255) if lamps else HEADLIGHT
    tail: Colour = (60, 50, 255) if lamps else TAIL_LIGHT
    if kind == "pickup":
        half, tall, low, length, cab = 0.96, 1.8, 0.35, 5.3, 3.2
    elif kind == "light":
        half, tall, low, length, cab = 1.0, 2.2, 0.35, style.uniform(5.4, 6.5), 1.7
    else:
        half, tall, low, length, cab = 1.24, 2.75, 0.45, style.uniform(7.0, 9.8), 2.0
    rear, front = -length / 2, length / 2
    joint = front - cab
    mesh.shadow(half + 0.15, front + 0.15, shadow)
    _tyres_end_on(mesh, half, length, low + 0.1, 0.3 if half > 1.1 else 0.22)
    glass = shaded(GLASS, style.uniform(0.6, 1.1))

    def pickup_cab() -> None:
        base, roof, belt = half - 0.08, half - 0.2, 1.12
        faces, left, right, core = mesh.prism(
            [(joint - 0.4, belt), (joint - 0.25, tall), (front - 2.2, tall), (front - 1.5, belt)],
            [base, roof, roof, base], [paint, paint, paint, None], paint,
        )  # fmt: skip
        for face in (faces[0], faces[2]):
            mesh.fill(panel(face, 0.07, 0.93, 0.1, 0.9), glass, core, solid=False)
        for side in (left, right):
            quad = [side[0], side[3], side[2], side[1]]
            mesh.quads([panel(quad, u, v, 0.1, 0.85) for u, v in ((0.08, 0.45), (0.5, 0.92))],
                       glass, core)  # fmt: skip

    def pickup_body() -> None:
        faces, _, _, core = mesh.prism(
            [(rear, low), (rear, 1.08), (front - 1.4, 1.12), (front, 1.02), (front, low)],
            [half, half, half, half - 0.04, half - 0.02], [paint, (60, 58, 56), paint, paint, None],
            paint,
        )  # fmt: skip
        mesh.quads([panel(faces[0], u, u + 0.09, 0.5, 0.95) for u in (0.01, 0.9)], tail, core,
                   glows=lamps)  # fmt: skip
        mesh.quads([panel(faces[0], 0.02, 0.98, 0.02, 0.2)], (150, 150, 152), core)
        _plate(mesh, faces[0], 0.34, core)
        mesh.quads([panel(faces[3], 0.27, 0.73, 0.1, 0.55)], (40, 38, 36), core)
        mesh.quads([panel(faces[3], u, u + 0.22, 0.1, 0.45) for u in (0.03, 0.75)], lit, core,
                   glows=lamps)  # fmt: skip
        mesh.quads([panel(faces[3], 0.05, 0.95, 0.7, 0.95)], (60, 60, 62), core)
        _wheels(mesh, half, (rear + 1.1, front - 0.95), 0.38, CHROME)

    if kind == "pickup":
        parts = (pickup_body, pickup_cab) if eye > 1.12 else (pickup_cab, pickup_body)
        for part in parts:
            part()
        return

    load_colour = style.choice((WHITE, (225, 222, 218), (190, 190, 188), (60, 60, 180),
                                (170, 110, 50), (70, 150, 190), (90, 120, 60)))  # fmt: skip
    top = style.uniform(3.2, 3.8) if half > 1.1 else style.uniform(2.6, 3.0)
    if kind == "tipper":
        load_colour, top = style.choice(((50, 150, 220), (60, 90, 160), (110, 110, 112))), 2.3

    def cab_part() -> None:
        faces, _, _, core = mesh.prism(
            [(joint + 0.1, low), (joint + 0.1, tall), (front - 0.25, tall), (front, 1.5),
             (front, low)],
            [half - 0.05] * 5, [paint, paint, paint, paint, None], paint,
        )  # fmt: skip
        mesh.fill(panel(faces[2], 0.06, 0.94, 0.18, 0.95), glass, core, solid=False)
        mesh.quads([panel(faces[2], 0.12, 0.5, 0.25, 0.6)], shaded(glass, 1.3), core)
        mesh.quads([panel(faces[3], 0.2, 0.8, 0.1, 0.5)], (45, 44, 42), core)
        mesh.quads([panel(faces[3], u, u + 0.15, 0.6, 0.8) for u in (0.04, 0.81)], lit, core,
                   glows=lamps)  # fmt: skip
        mesh.quads([panel(faces[3], 0.0, 1.0, 0.86, 1.0)], (50, 50, 52), core)
        for x in (-half + 0.04, half - 0.04):
            mesh.quads([[(x, 1.55, front - 1.2), (x, 1.55, front - 0.35), (x, tall - 0.3,
                       front - 0.45), (x, tall - 0.3, front - 1.2)]], glass, core)  # fmt: skip
            mesh.line([(x * 1.15, 1.7, front), (x * 1.15, 2.1, front)], 0.15, BLACK)

    def load_part() -> None:
        bed = low + 0.45
        mesh.fill([(-half + 0.2, low, rear + 0.1), (half - 0.2, low, rear + 0.1),
                   (half - 0.2, bed, rear + 0.1), (-half + 0.2, bed, rear + 0.1)],
                  (35, 35, 36))  # fmt: skip
        for x in (-half + 0.1, half - 0.1):
            mesh.fill([(x, low, rear + 0.1), (x, low, joint), (x, bed, joint),
                       (x, bed, rear + 0.1)], (45, 45, 46), (0, low, 0))  # fmt: skip
        faces, _, _, core = mesh.prism(
            [(rear, bed), (rear, top), (joint, top), (joint, bed)],
            [half, half, half, half],
            [load_colour, load_colour, load_colour, None], load_colour,
        )  # fmt: skip
        seam = shaded(load_colour, 0.7)
        mesh.quads([panel(faces[0], 0.49, 0.51, 0, 1), panel(faces[0], 0, 1, 0.0, 0.05),
                    panel(faces[0], 0, 0.03, 0, 1), panel(faces[0], 0.97, 1, 0, 1)],
                   seam, core)  # fmt: skip
        stripe = style.choice((None, (60, 60, 190), (180, 110, 50), (70, 140, 70)))
        for x in (-half, half):
            if stripe is not None:
                mid = (bed + top) / 2
                mesh.quads([[(x, mid - 0.4, rear + 0.6), (x, mid - 0.4, joint - 0.6),
                             (x, mid + 0.3, joint - 0.6), (x, mid + 0.3, rear + 0.6)]],
                           stripe, core)  # fmt: skip
        z = rear + 0.02
        mesh.quads([[(-half + 0.1, low, z), (half - 0.1, low, z), (half - 0.1, low + 0.18, z),
                     (-half + 0.1, low + 0.18, z)]], (120, 120, 122), (0, low, 0))  # fmt: skip
        mesh.quads([[(x, low + 0.02, z), (x + 0.32, low + 0.02, z), (x + 0.32, low + 0.16, z),
                     (x, low + 0.16, z)] for x in (-half + 0.12, half - 0.44)], tail, (0, low, 0),
                   glows=lamps)  # fmt: skip

    parts = (cab_part, load_part) if math.cos(mesh.heading) > 0 else (load_part, cab_part)
    for part in parts:
        part()
    radius = 0.5 if half > 1.1 else 0.38
    _wheels(mesh, half - 0.03, (rear + 1.4, front - 1.1), radius, (120, 120, 122))


def bicycle(mesh: MeshBuilder, style: Random, shadow: Colour) -> None:
    """Add a bicycle without its rider."""
    paint = style.choice(PAINTS)
    mesh.shadow(0.2, 0.85, shadow)
    radius = 0.34
    for z in (-0.52, 0.52):
        mesh.line(_wheel_ring(radius, z, radius - 0.02), 0.05, TYRE, closed=True)
        for k in range(3):
            y, w = 0.3 * math.sin(k * math.pi / 3), 0.3 * math.cos(k * math.pi / 3)
            mesh.line([(0, radius - y, z - w), (0, radius + y, z + w)], 0.012, (150, 150, 152),
                      solid=False)  # fmt: skip
        mesh.line([(0, 0.55, z), (0, 0.71, z - 0.16 * math.copysign(1, z))], 0.05, BLACK)
    crank, saddle, head, rear = (0.0, 0.3, -0.08), (0.0, 0.92, -0.24), (0.0, 0.9, 0.38), -0.52
    mesh.line([(0, radius, rear), crank, head, (0, 0.78, -0.2), (0, radius, rear)], 0.045, paint)
    mesh.line([crank, saddle], 0.045, paint)
    mesh.line([(0, radius, 0.52), head, (0, 1.02, 0.36)], 0.045, shaded(paint, 0.8))
    mesh.line([(-0.29, 1.04, 0.3), (0, 1.02, 0.38), (0.29, 1.04, 0.3)], 0.045, BLACK)
    mesh.line([(0, 0.95, -0.36), (0, 0.95, -0.14)], 0.1, BLACK)
    mesh.line([(-0.12, 0.3, -0.08), (0.12, 0.3, -0.08)], 0.04, BLACK)
    mesh.dot((0, 0.72, -0.45), 0.08, TAIL_LIGHT)
    mesh.dot((0, 0.86, 0.46), 0.08, HEADLIGHT)
    if style.random() < 0.3:
        mesh.line([(0, 0.78, -0.3), (0, 0.76, -0.72)], 0.14, (60, 80, 110))


def motorcycle(mesh: MeshBuilder, style: Random, shadow: Colour, lamps: bool) -> None:
    """Add a motorcycle or scooter without its rider."""
    paint = style.choice(PAINTS)
    mesh.shadow(0.35, 1.1, shadow)
    radius = 0.31
    wheels = [(-0.66, 0.17), (0.7, 0.13)]
    parts: list[tuple[list[Point], float, Colour]] = [
        ([(0, 0.45, -0.2), (0, 0.42, 0.2)], 0.34, (60, 60, 62)),
        ([(0, 0.78, -0.72), (0, 0.72, -0.3), (0, 0.72, -0.05)], 0.24, paint),
        ([(0, 0.83, 0.02), (0, 0.86, 0.3)], 0.33, paint),
        ([(0, radius, 0.7), (0, 0.9, 0.46)], 0.14, (90, 90, 92)),
        ([(0, 0.92, 0.45), (0, 1.02, 0.42)], 0.3, shaded(paint, 0.9)),
    ]
    fairing = style.random() < 0.5
    for z, thick in sorted(wheels, key=lambda wheel: -mesh.depth((0, 0, wheel[0]))):
        mesh.line(_wheel_ring(radius, z, radius - thick / 2), thick, TYRE, closed=True)
        mesh.dot((0, radius, z), 0.16, (120, 120, 122))
    # The parts run from rear to front.
    for points, width, colour in parts if math.cos(mesh.heading) < -0.3 else parts[::-1]:
        mesh.line(points, width, colour)
    mesh.line([(0, 0.85, -0.5), (0, 0.84, -0.1)], 0.16, BLACK)
    mesh.line([(0, 0.36, -0.75), (0.16, 0.36, -0.3)], 0.11, CHROME)
    mesh.line([(-0.37, 1.05, 0.3), (0, 1.04, 0.42), (0.37, 1.05, 0.3)], 0.06, BLACK)
    for x in (-0.4, 0.4):
        mesh.line([(x * 0.8, 1.06, 0.34), (x, 1.24, 0.34)], 0.03, BLACK)
        mesh.dot((x, 1.26, 0.34), 0.12, (70, 68, 66))
    if fairing:
        mesh.line([(0, 1.0, 0.55), (0, 1.25, 0.4)], 0.2, shaded(GLASS, 1.2))
    if math.cos(mesh.heading) < 0.1:
        mesh.dot((0, 0.96, 0.62), 0.2, (235, 250, 255), glows=lamps)
    if math.cos(mesh.heading) > -0.1:
        mesh.line([(-0.06, 0.8, -0.86), (0.06, 0.8, -0.86)], 0.09, (60, 50, 255), glows=lamps)
        mesh.fill([(-0.1, 0.55, -0.9), (0.1, 0.55, -0.9), (0.1, 0.68, -0.9), (-0.1, 0.68, -0.9)],
                  (220, 222, 220))  # fmt: skip
