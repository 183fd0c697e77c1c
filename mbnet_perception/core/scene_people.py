"""Meshes of people on foot and on two wheels, as stick figures with thick limbs, facing +z."""

import math
from random import Random

from mbnet_perception.core.scene_canvas import BLACK, Colour, MeshBuilder, Point, shaded
from mbnet_perception.core.scene_vehicles import PAINTS

CLOTHES: tuple[Colour, ...] = (
    (40, 38, 36), (60, 45, 40), (95, 60, 35), (140, 80, 40), (45, 45, 120), (40, 40, 180),
    (120, 125, 128), (190, 190, 195), (225, 228, 230), (60, 95, 60), (60, 110, 150),
    (150, 140, 190), (90, 150, 190), (50, 170, 215), (120, 60, 90),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (40, 36, 34), (80, 55, 40), (105, 75, 55), (130, 105, 85), (90, 110, 130), (70, 70, 72),
    (150, 165, 175),
)  # fmt: skip
SKINS: tuple[Colour, ...] = (
    (165, 190, 230), (140, 170, 215), (110, 145, 195), (70, 100, 150), (45, 65, 105)
)  # fmt: skip
HAIR: tuple[Colour, ...] = (
    (25, 25, 28), (30, 40, 60), (45, 70, 105), (90, 140, 175), (150, 150, 155)
)  # fmt: skip


def _limbs(mesh: MeshBuilder, limbs: list[tuple[list[Point], float, Colour]], *, far: bool) -> None:
    """Draw the limbs on the far or on the near side of the body, farthest first."""

    def depth(limb: tuple[list[Point], float, Colour]) -> float:
        return sum(mesh.depth(point) for point in limb[0]) / len(limb[0])

    for points, width, colour in sorted(limbs, key=depth, reverse=True):
        if (depth((points, width, colour)) > 0) == far:
            mesh.line(points, width, colour)


def _head(
    mesh: MeshBuilder, at: Point, size: float, skin: Colour, hair: Colour, cap: Colour | None
) -> None:
    """Add a head with hair, or with a cap or helmet, that looks along +z."""
    x, y, z = at
    away = math.cos(mesh.heading)
    mesh.line([(x, y - 0.8 * size, z - 0.1 * size), at], 0.5 * size, shaded(skin, 0.85))
    face = (x, y - 0.06 * size, z + 0.1 * size)
    back = (x, y + 0.1 * size, z - 0.16 * size)
    cover = cap or hair
    if away > 0.3:
        mesh.line([(x, y - 0.1 * size, z), (x, y + 0.08 * size, z)], size, skin)
        mesh.line([(x, y - 0.08 * size, z), back], 1.04 * size, cover)
    else:
        mesh.dot(back, 1.08 * size, cover)
        mesh.line([(x, y - 0.2 * size, z + 0.08 * size), face], 0.84 * size, skin)
        if cap is not None:
            mesh.line([(x, y + 0.34 * size, z - 0.1 * size), (x, y + 0.34 * size, z + 0.2 * size)],
                      0.7 * size, cap)  # fmt: skip


def person(mesh: MeshBuilder, style: Random, shadow: Colour, stride: float, moving: bool) -> None:
    """Add a person on foot.

    Args:
        mesh: Where to add it.
        style: Decides build and clothes; the same seed for all poses of one person.
        shadow: Colour of the ground in the person's shadow.
        stride: Phase of the gait, 0-1.
        moving: Whether the person walks or stands.
    """
    tall = style.uniform(1.52, 1.9) if style.random() < 0.88 else style.uniform(1.0, 1.35)
    build = style.uniform(0.9, 1.15) * tall / 1.75
    top = shaded(style.choice(CLOTHES), style.uniform(0.85, 1.15))
    if style.random() < 0.06:
        top = style.choice(((40, 140, 250), (60, 235, 220)))  # a high-visibility vest
    bottom = style.choice(TROUSERS)
    skin, hair = style.choice(SKINS), style.choice(HAIR)
    cap = style.choice(CLOTHES) if style.random() < 0.2 else None
    outfit = style.choice(("short", "short", "coat", "skirt", "bare arms"))
    bag = style.choice(("none", "none", "none", "backpack", "handbag"))
    bag_colour = style.choice(CLOTHES)
    mesh.shadow(0.28 * build, 0.24 * build, shadow)

    angle = math.tau * stride
    reach = 0.5 if moving else 0.04
    hip, shoulder = 0.52 * tall, 0.815 * tall
    thigh = 0.25 * tall
    limbs: list[tuple[list[Point], float, Colour]] = []
    lowest = math.inf
    legs = []
    for side in (-1, 1):
        swing = reach * math.sin(angle) * side
        bend = max(0.0, math.cos(angle) * side) * 0.9 * reach + 0.05
        knee_z, knee_y = thigh * math.sin(swing), hip - thigh * math.cos(swing)
        foot_z = knee_z + thigh * math.sin(swing - bend)
        foot_y = knee_y - thigh * math.cos(swing - bend)
        x = side * 0.085 * build
        legs.append([(x, hip, 0.0), (x, knee_y, knee_z), (x, foot_y, foot_z)])
        lowest = min(lowest, foot_y)
    drop = lowest - 0.06
    hip, shoulder = hip - drop, shoulder - drop
    for leg in legs:
        points: list[Point] = [(x, y - drop, z) for x, y, z in leg]
        bare = outfit == "skirt"
        limbs.append((points, 0.115 * build if bare else 0.15 * build, skin if bare else bottom))
        x, y, z = points[2]
        limbs.append(([(x, y - 0.01, z - 0.02), (x, y - 0.02, z + 0.14)], 0.09, BLACK))
    arm = 0.165 * tall
    for side in (-1, 1):
        swing = -0.8 * reach * math.sin(angle) * side
        x = side * 0.225 * build
        elbow: Point = (x * 1.06, shoulder - arm * math.cos(swing), arm * math.sin(swing))
        y, z = arm * math.cos(swing + 0.35), arm * math.sin(swing + 0.35)
        hand: Point = (x * 1.02, elbow[1] - y, elbow[2] + z)
        sleeve = skin if outfit == "bare arms" else shaded(top, 0.88)
        limbs.append(([hand, hand], 0.09, skin))
        limbs.append(([(x * 0.95, shoulder - 0.03, 0.0), elbow, hand], 0.1 * build, sleeve))

    _limbs(mesh, limbs, far=True)
    behind = math.cos(mesh.heading) > 0.2
    pack: list[Point] = [(0.0, shoulder - 0.1, -0.17), (0.0, hip + 0.2, -0.19)]
    if bag == "backpack" and not behind:
        mesh.line(pack, 0.3 * build, bag_colour)
    s, h = 0.155 * build, 0.105 * build
    torso: list[Point] = [(-s, shoulder - 0.05, 0), (s, shoulder - 0.05, 0), (h, hip, 0),
                          (-h, hip, 0)]  # fmt: skip
    if outfit in ("coat", "skirt"):
        hem = hip - (0.17 if outfit == "coat" else 0.22) * tall
        cloth = top if outfit == "coat" else bottom
        skirt: list[Point] = [(-h, hip, 0), (h, hip, 0), (1.6 * h, hem, 0), (-1.6 * h, hem, 0)]
        mesh.fill(skirt, cloth)
        mesh.line(skirt, 0.16 * build, cloth, closed=True)
    mesh.fill(torso, top)
    mesh.line(torso, 0.17 * build, top, closed=True)
    if bag == "backpack" and behind:
        mesh.line(pack, 0.32 * build, bag_colour)
    _head(mesh, (0.0, 0.925 * tall - drop, 0.02), 0.135 * tall, skin, hair, cap)
    _limbs(mesh, limbs, far=False)
    if bag == "handbag":
        mesh.line([(0.3 * build, hip, 0), (0.3 * build, hip - 0.14, 0)], 0.22, bag_colour)


def rider(mesh: MeshBuilder, style: Random, stride: float, motor: bool) -> None:
    """Add a person on a bicycle or motorcycle; arguments as for `person`."""
    top = shaded(style.choice(CLOTHES), style.uniform(0.85, 1.15))
    bottom = style.choice(TROUSERS)
    skin, hair = style.choice(SKINS), style.choice(HAIR)
    helmet = style.choice(PAINTS) if motor or style.random() < 0.55 else None
    seat, lean = (0.95, 0.25) if motor else (1.0, 0.36)
    shoulder = (seat + 0.5, -0.22 + lean)
    limbs: list[tuple[list[Point], float, Colour]] = []
    for side in (-1, 1):
        x = side * 0.11
        if motor:
            foot: Point = (side * 0.2, 0.36, -0.05)
            knee: Point = (side * 0.24, 0.78, 0.2)
        else:
            angle = math.tau * stride + (math.pi if side > 0 else 0.0)
            foot = (x, 0.3 + 0.17 * math.sin(angle), -0.08 + 0.17 * math.cos(angle))
            knee = (x * 1.2, 0.5 * (seat + foot[1]) + 0.06, 0.5 * foot[2] + 0.13)
        limbs.append(([(x, seat, -0.22), knee, foot], 0.15, bottom))
        limbs.append(([foot, (foot[0], foot[1], foot[2] + 0.12)], 0.1, BLACK))
        hand: Point = (side * 0.3, 1.07, 0.3)
        elbow: Point = (side * 0.3, 1.2, 0.12)
        limbs.append(([hand, hand], 0.1, skin))
        limbs.append(([(side * 0.2, shoulder[0] - 0.05, shoulder[1]), elbow, hand], 0.1,
                      shaded(top, 0.88)))  # fmt: skip
    _limbs(mesh, limbs, far=True)
    y, z = shoulder
    torso: list[Point] = [(-0.15, y - 0.06, z), (0.15, y - 0.06, z), (0.11, seat, -0.22),
                          (-0.11, seat, -0.22)]  # fmt: skip
    mesh.fill(torso, top)
    mesh.line(torso, 0.19, top, closed=True)
    _head(mesh, (0.0, y + 0.2, z + 0.08), 0.27 if motor else 0.23, skin, hair, helmet)
    _limbs(mesh, limbs, far=False)
