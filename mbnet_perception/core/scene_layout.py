"""Layout of a synthetic street: what stands where, what moves how, decided by a seed.

All in the road coordinates of `scene_setting`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from mbnet_perception.core import scene_furniture as furniture
from mbnet_perception.core import scene_people as people
from mbnet_perception.core import scene_vehicles as vehicles
from mbnet_perception.core.scene_canvas import Mesh, MeshBuilder
from mbnet_perception.core.scene_setting import Setting

SIGHT = 120.0
"""Units ahead of the camera up to which a street is furnished; see `Setting.unit`."""

_BEHIND = 14.0  # units behind the camera that are still furnished
_CELL = 11.0  # units of road that are furnished together
_PERIOD = 180.0  # units after which a row of vehicles repeats


@dataclass
class Item:
    """Something that stands or moves at a constant velocity.

    Attributes:
        name: Class, or "" for scenery.
        s: Where it is along the road at the time `since`, metres.
        q: Where it is across the road then, metres.
        build: Makes the mesh of a pose.
        poses: Number of poses, which follow each other in turn.
        cadence: How many times a second all poses pass.
        phase: Share of the poses that have passed at time 0.
        speed_s: Velocity along the road, m/s.
        speed_q: Velocity across the road, m/s.
        since: Time at which it is at (s, q), seconds.
        behind: Metres to add to its distance where drawing order is decided.
        reach: Radius in metres of a circle on the ground that holds it.
    """

    name: str
    s: float
    q: float
    build: Callable[[int], Mesh]
    poses: int = 1
    cadence: float = 0.0
    phase: float = 0.0
    speed_s: float = 0.0
    speed_q: float = 0.0
    since: float = 0.0
    behind: float = 0.0
    reach: float = 2.5
    _meshes: dict[int, Mesh] = field(default_factory=dict)

    def mesh(self, seconds: float) -> Mesh:
        """Return the mesh of the pose at that time."""
        pose = int((seconds * self.cadence + self.phase) % 1.0 * self.poses) % self.poses
        if pose not in self._meshes:
            self._meshes[pose] = self.build(pose)
        return self._meshes[pose]

    def at(self, seconds: float) -> tuple[float, float]:
        """Return (s, q) at that time."""
        age = seconds - self.since
        return self.s + self.speed_s * age, self.q + self.speed_q * age


@dataclass(frozen=True)
class Flow:
    """A row of vehicles or people with one speed, which repeats when it is left behind.

    Attributes:
        kinds: What moves here, drawn by chance for every place in the row.
        q: Where it moves, metres.
        spread: Largest distance from q, metres.
        speed: Along s in m/s, negative against the camera's direction.
        start: First place in the row, metres ahead of the camera.
        spacing: Distance between places, metres.
        places: Number of places.
        period: Length after which the row repeats, metres.
        presence: Share of the places that are taken.
    """

    kinds: tuple[str, ...]
    q: float
    spread: float
    speed: float
    start: float
    spacing: float
    places: int
    period: float
    presence: float


@dataclass(frozen=True)
class Junction:
    """A crossing road, or just a pedestrian crossing.

    Attributes:
        number: Counts along the road.
        s: Its middle, metres.
        kind: lights, stop or zebra.
        road: Width of the crossing road, metres; 0 where there is none.
        zebra: Whether there are stripes before it.
        half: Half the length along which nothing is built, metres.
    """

    number: int
    s: float
    kind: str
    road: float
    zebra: bool
    half: float


class Street:
    """Everything that stands and moves along a road, made as far as the camera has come."""

    def __init__(self, seed: int, setting: Setting) -> None:
        self.seed = seed
        self.setting = setting
        self._cells: dict[int, list[Item]] = {}
        self._junctions: dict[int, Junction] = {}
        self._flowing: dict[tuple[int, int, int], list[Item]] = {}
        self._flows = tuple(self._make_flows(self._style("flows")))

    def _style(self, part: str) -> Random:
        """Source of chance for one part of the street."""
        return Random(f"{self.seed} {part}")

    def items(self, seconds: float, travelled: float) -> Iterator[Item]:
        """Yield all that may be in view when the camera has travelled so many metres."""
        unit = self.setting.unit
        first = math.floor((travelled - _BEHIND * unit) / (_CELL * unit))
        for cell in range(first, first + int((SIGHT + _BEHIND) / _CELL) + 2):
            if cell not in self._cells:
                self._cells[cell] = list(self._furnish(cell))
            yield from self._cells[cell]
        for number, flow in enumerate(self._flows):
            for place in range(flow.places):
                start = flow.start + flow.spacing * place
                ahead = start + flow.speed * seconds - travelled + _BEHIND * unit
                # Counts how often this place has gone round; it does so out of view.
                lap = math.floor(ahead / flow.period)
                key = (number, place, lap)
                if key not in self._flowing:
                    style = self._style(f"flow {key}")
                    self._flowing[key] = list(self._join(flow, start - lap * flow.period, style))
                yield from self._flowing[key]

    def junctions(self, start: float, end: float) -> list[Junction]:
        """Return the junctions whose middle lies between two distances along the road."""
        every = self.setting.junction_every
        numbers = range(max(0, int(start // every) - 1), max(0, int(end // every) + 2))
        found = [self._junction(number) for number in numbers]
        return [junction for junction in found if start <= junction.s < end]

    def _junction(self, number: int) -> Junction:
        if number not in self._junctions:
            setting = self.setting
            style = self._style(f"junction {number}")
            s = setting.junction_every * (number + 0.4 + style.uniform(-0.12, 0.12))
            lights = {"city": 0.65, "suburb": 0.35, "country": 0.15, "track": 0.5}[setting.place]
            kind = "lights" if style.random() < lights else style.choice(("stop", "zebra"))
            road = 0.0 if kind == "zebra" else style.uniform(6.0, 9.0) * setting.unit
            zebra = kind == "zebra" or style.random() < 0.7
            half = road / 2 + 5.0 * setting.unit
            self._junctions[number] = Junction(number, s, kind, road, zebra, half)
        return self._junctions[number]

    # --- what moves along the road ------------------------------------------------------------

    def _make_flows(self, style: Random) -> Iterator[Flow]:
        setting = self.setting
        unit = setting.unit
        kinds: tuple[str, ...] = ("car",) * 12 + (
            "truck",
            "truck",
            "bus",
            "motorcycle",
            "motorcycle",
            "bicycle",
        )
        if style.random() < 0.25:
            kinds = ("car",) * 5 + ("truck", "truck", "bus", "motorcycle", "bicycle")
        period = _PERIOD * unit
        for lane in range(-setting.other_lanes, setting.own_lanes):
            q = (lane + 0.5) * setting.lane
            spacing = style.uniform(16, 36) * unit
            oncoming, ego = lane < 0, abs(q - setting.camera_q) < 0.5 * setting.lane
            pace = style.uniform(0.6, 1.3)
            yield Flow(
                kinds,
                q,
                spread=0.15 * unit,
                speed=setting.speed * (-pace if oncoming else 1.0 if ego else pace),
                # Nothing may drive through the camera: its own row starts ahead of it.
                start=14.0 * unit + 0.2 * spacing if ego else 0.0,
                spacing=spacing,
                places=int((0.7 * period if ego else period) / spacing),
                period=period,
                presence=min(0.85, (0.5 if ego else 0.6) * setting.density),
            )
        if setting.place == "track":
            for q in (setting.edges[0] - 1.1, setting.edges[1] + 1.1):
                speed = style.choice((-1, 1)) * style.uniform(0.3, 1.2)
                yield Flow(("person",), q, 0.6, speed, 0.0, 7.0, 10, 70.0, 0.4 * setting.density)
            return
        riders = ("bicycle", "bicycle", "motorcycle")
        for q, speed in (
            (setting.edges[1] - setting.parking - 0.45, setting.speed * style.uniform(0.5, 0.8)),
            (setting.edges[0] + setting.parking + 0.45, -style.uniform(4, 6)),
        ):
            yield Flow(riders, q, 0.15, speed, 0.0, 36.0, 5, period, 0.35 * setting.density)
        if not setting.walk:
            return
        presence = {"city": 0.5, "suburb": 0.3, "country": 0.1}[setting.place] * setting.density
        for edge, out in zip(setting.edges, (-1, 1), strict=True):
            for direction in (-1, 1):
                q = edge + out * setting.walk * (0.55 + 0.12 * direction)
                speed = direction * style.uniform(1.0, 1.6)
                spread = 0.15 * setting.walk
                yield Flow(("person",), q, spread, speed, 0.0, 9.0, 15, 135.0, presence)

    def _join(self, flow: Flow, s: float, style: Random) -> Iterator[Item]:
        """Fill one place of a row."""
        if style.random() > flow.presence:
            return
        kind = style.choice(flow.kinds)
        q = flow.q + style.uniform(-flow.spread, flow.spread)
        s += style.uniform(-0.2, 0.2) * flow.spacing
        if kind == "person":
            yield self._person(s, q, style, speed_s=flow.speed)
        else:
            yield from self._vehicle(kind, s, q, style, speed_s=flow.speed)

    def _person(
        self,
        s: float,
        q: float,
        style: Random,
        *,
        speed_s: float = 0.0,
        speed_q: float = 0.0,
        since: float = 0.0,
    ) -> Item:
        speed = math.hypot(speed_s, speed_q)
        moving = speed > 0.2
        heading = math.atan2(self.setting.side * speed_q, speed_s)
        if not moving:
            heading = style.uniform(0, math.tau)
        looks, shadow, light = style.random(), self.setting.shadow(q), self.setting.light

        def build(pose: int) -> Mesh:
            mesh = MeshBuilder(heading)
            people.person(mesh, Random(looks), shadow, pose / 16, moving)
            return mesh.build(light)

        return Item(
            "person",
            s,
            q,
            build,
            poses=16 if moving else 1,
            cadence=0.62 * speed,
            phase=style.random(),
            speed_s=speed_s,
            speed_q=speed_q,
            since=since,
        )

    def _vehicle(
        self,
        kind: str,
        s: float,
        q: float,
        style: Random,
        *,
        speed_s: float = 0.0,
        speed_q: float = 0.0,
        since: float = 0.0,
        parked: float | None = None,
    ) -> Iterator[Item]:
        """Make a vehicle, and the rider of a two-wheeler unless it is parked at a heading."""
        setting = self.setting
        unit, light, shadow = setting.unit, setting.light, setting.shadow(q)
        heading = math.atan2(setting.side * speed_q, speed_s) if parked is None else parked
        eye = setting.camera_height / unit
        lamps = setting.night and parked is None
        looks = style.random()

        def build(pose: int) -> Mesh:
            del pose
            mesh, look = MeshBuilder(heading, unit), Random(looks)
            if kind == "bicycle":
                vehicles.bicycle(mesh, look, shadow)
            elif kind == "motorcycle":
                vehicles.motorcycle(mesh, look, shadow, lamps)
            elif kind == "bus":
                vehicles.bus(mesh, look, shadow, lamps)
            else:
                add = vehicles.car if kind == "car" else vehicles.truck
                add(mesh, look, shadow, eye, lamps)
            return mesh.build(light)

        def build_rider(pose: int) -> Mesh:
            mesh = MeshBuilder(heading, unit)
            people.rider(mesh, Random(looks), pose / 8, kind == "motorcycle")
            return mesh.build(light)

        move = partial(Item, s=s, q=q, speed_s=speed_s, speed_q=speed_q, since=since)
        yield move(kind, build=build, reach=7.0 * unit)
        if kind == "bicycle" and parked is None:
            yield move(
                "person",
                build=build_rider,
                poses=8,
                cadence=1.1,
                phase=style.random(),
                behind=-0.01,
            )
        elif kind == "motorcycle" and parked is None:
            yield move("person", build=build_rider, behind=-0.01)

    # --- what stands along the road -----------------------------------------------------------

    def _still(
        self,
        name: str,
        s: float,
        q: float,
        style: Random,
        add: Callable[[MeshBuilder, Random], None],
        *,
        heading: float = 0.0,
        scale: float | None = None,
        behind: float = 0.0,
        reach: float = 2.5,
    ) -> Item:
        """Make something that stands still and looks the same all the time."""
        looks, light = style.random(), self.setting.light
        size = self.setting.unit if scale is None else scale

        def build(pose: int) -> Mesh:
            del pose
            mesh = MeshBuilder(heading, size)
            add(mesh, Random(looks))
            return mesh.build(light)

        return Item(name, s, q, build, behind=behind, reach=reach)

    def _furnish(self, cell: int) -> Iterator[Item]:
        """Make what stands along one cell of the road, and the junctions that lie in it."""
        setting = self.setting
        style = self._style(f"cell {cell}")
        length = _CELL * setting.unit
        start = cell * length
        for junction in self.junctions(start, start + length):
            yield from self._furnish_junction(junction)
        around = self.junctions(start - 3 * length, start + 4 * length)

        def free(s: float, margin: float) -> bool:
            return all(abs(s - junction.s) > junction.half + margin for junction in around)

        middle = start + length / 2
        built_up = free(middle, 0.5 * length + 1.5 * setting.unit)
        for out, edge in zip((-1, 1), setting.edges, strict=True):
            if setting.place == "track":
                yield from self._furnish_track(start, length, edge, out, style)
            else:
                yield from self._furnish_back(start, edge, out, built_up, style, free)
                yield from self._furnish_kerb(start, edge, out, style, free)
                if cell % 3 == (0 if out > 0 else 1) and setting.place != "country":
                    lamp = partial(
                        furniture.street_lamp, toward=-out * setting.side, lit=setting.night
                    )
                    yield self._still("", start, edge + out * 0.5, style, lamp)
            if style.random() < (0.4 if out > 0 else 0.25) and free(middle, 0.0):
                kind = style.choice(
                    ("speed_limit", "speed_limit", "crosswalk", "stop_sign", "", "")
                )
                yield from self._sign(kind, middle, edge + out * 0.7 * setting.unit, style)

    def _furnish_track(
        self, start: float, length: float, edge: float, out: int, style: Random
    ) -> Iterator[Item]:
        """Make the cones, walls and bystanders of a small course."""
        setting = self.setting
        middle = start + length / 2
        if style.random() < 0.5 * setting.density:
            count = style.choice((1, 1, 2, 3, 4))
            for k in range(count):
                q = edge + out * style.uniform(-0.1, 0.15)
                yield self._cone(start + (k + 0.5) * length / count, q, style)
        if setting.walk > 0:
            wall = partial(furniture.hall_panel, length=length + 0.02, inward=-out * setting.side)
            q = edge + out * setting.walk
            yield self._still(
                "", middle, q, style, wall, scale=1.0, behind=length / 2, reach=length
            )
        if style.random() < 0.12 * setting.density:
            yield self._person(middle, edge + out * style.uniform(0.5, 1.6), style)

    def _furnish_back(
        self,
        start: float,
        edge: float,
        out: int,
        built_up: bool,
        style: Random,
        free: Callable[[float, float], bool],
    ) -> Iterator[Item]:
        """Make the buildings and plants behind the pavement."""
        setting = self.setting
        city = setting.place == "city"
        line = edge + out * setting.walk
        houses = {"city": 0.88, "suburb": 0.35, "country": 0.0}[setting.place]
        if built_up and style.random() < houses:
            front = line + out * (0.2 if city else style.uniform(3.0, 7.0))
            house = partial(
                furniture.building,
                length=_CELL - 0.3,
                depth=9.0,
                inward=-out * setting.side,
                night=setting.night,
            )
            yield self._still(
                "", start + _CELL / 2, front, style, house, behind=_CELL / 2, reach=14.0
            )
        for _ in range(style.choice((0, 0, 0, 0, 1) if city else (0, 1, 1, 2))):
            s = start + style.uniform(0, _CELL)
            q = edge + out * 0.9 if city else line + out * style.uniform(1.5, 9.0)
            if not free(s, 2.0):
                continue
            if city or style.random() < 0.7:
                tree = partial(furniture.tree, shadow=setting.shadow(q))
                yield self._still("", s, q, style, tree, reach=5.0)
            else:
                yield self._still("", s, q, style, furniture.bush)

    def _furnish_kerb(
        self,
        start: float,
        edge: float,
        out: int,
        style: Random,
        free: Callable[[float, float], bool],
    ) -> Iterator[Item]:
        """Make what is parked, stands about or is laid out beside the carriageway."""
        setting = self.setting
        density = setting.density
        if setting.parking:
            for s in (start + 0.25 * _CELL, start + 0.75 * _CELL):
                if style.random() < 0.65 and free(s, 4.0):
                    kind = style.choice(("car",) * 14 + ("truck", "motorcycle", "bicycle"))
                    q = edge - out * 0.5 * setting.parking
                    heading = 0.0 if out > 0 else math.pi
                    yield from self._vehicle(kind, s, q, style, parked=heading)
        if setting.walk:
            if style.random() < (0.3 if setting.place == "city" else 0.12) * density:
                s, q = start + style.uniform(0, _CELL), edge + out * style.uniform(0.6, 1.6)
                yield self._person(s, q, style)
            if style.random() < 0.2 * density:
                kind = style.choice(("bicycle", "bicycle", "motorcycle"))
                s, heading = start + style.uniform(0, _CELL), style.uniform(0, math.tau)
                yield from self._vehicle(kind, s, edge + out * 0.8, style, parked=heading)
            if style.random() < 0.15:
                s = start + style.uniform(0, _CELL)
                yield self._still("", s, edge + out * 1.2, style, furniture.bin_or_box)
        if style.random() < 0.05 * density:
            for k in range(style.choice((3, 4, 6))):
                inset = 0.1 if setting.parking else min(0.4 + 0.25 * k, 1.2)
                yield self._cone(start + 2.2 * k, edge - out * inset, style)

    def _cone(self, s: float, q: float, style: Random) -> Item:
        scale = style.uniform(0.35, 0.7) if self.setting.place == "track" else 1.0
        add = partial(furniture.cone, shadow=self.setting.shadow(q))
        return self._still("cone", s, q, style, add, scale=scale)

    def _sign(self, name: str, s: float, q: float, style: Random) -> Iterator[Item]:
        """Make a sign on its pole; the name "" gives a sign that is none of the classes."""
        low = style.uniform(0.3, 1.2) if self.setting.place == "track" else style.uniform(1.9, 2.5)
        add = {
            "stop_sign": furniture.stop_sign,
            "speed_limit": furniture.speed_limit,
            "crosswalk": furniture.crosswalk_sign,
            "": furniture.other_sign,
        }[name]
        pole = partial(furniture.post, height=low + 0.5)
        turn = style.uniform(-0.25, 0.25)
        yield self._still("", s, q, style, pole, behind=0.01)
        yield self._still(name, s, q, style, partial(add, at=(0.0, low)), heading=turn)

    def _furnish_junction(self, junction: Junction) -> Iterator[Item]:
        setting = self.setting
        unit = setting.unit
        style = self._style(f"at junction {junction.number}")
        arrival = junction.s / setting.speed
        low, high = setting.edges
        left, right = low - 0.7 * unit, high + 0.7 * unit
        before, after = junction.s - junction.road / 2, junction.s + junction.road / 2
        if junction.kind == "lights":
            yield from self._traffic_lights(
                [(before - unit, right), (after + unit, right), (after + unit, left)],
                arrival,
                style,
            )
        elif junction.kind == "stop":
            yield from self._sign("stop_sign", before - 1.5 * unit, right, style)
            if style.random() < 0.4:
                yield from self._sign("stop_sign", before - 1.4 * unit, left, style)
        if junction.zebra:
            stripes = before - 3.0 * unit
            if junction.kind == "zebra" or style.random() < 0.35:
                for q in (right, left):
                    yield from self._sign("crosswalk", stripes + 1.2 * unit, q, style)
            walkers = 0 if setting.place == "track" else style.choice((0, 1, 2, 3, 4))
            for _ in range(walkers):
                yield self._person(
                    stripes + style.uniform(-1.3, 1.3),
                    style.uniform(0.6 * low, 0.6 * high),
                    style,
                    speed_q=style.choice((-1, 1)) * style.uniform(1.1, 1.6),
                    since=arrival - style.uniform(2.8, 6.5),
                )
        if junction.road and setting.place != "track":
            yield from self._crossing_traffic(junction, arrival, style)

    def _crossing_traffic(
        self, junction: Junction, arrival: float, style: Random
    ) -> Iterator[Item]:
        """Make vehicles that cross a few seconds before the camera arrives."""
        for direction in (-1, 1):
            lead = style.uniform(3.2, 4.2)
            for _ in range(style.choice((0, 1, 2, 3))):
                kind = style.choice(("car",) * 7 + ("truck", "bus", "motorcycle", "bicycle"))
                s = junction.s - self.setting.side * direction * 0.24 * junction.road
                speed = direction * 7.0
                yield from self._vehicle(kind, s, 0.0, style, speed_q=speed, since=arrival - lead)
                lead += style.uniform(2.4, 3.6)

    def _traffic_lights(
        self, places: list[tuple[float, float]], arrival: float, style: Random
    ) -> Iterator[Item]:
        """Make the lights of a junction; they are green when the camera comes.

        Args:
            places: (s, q) of the poles.
            arrival: When the camera comes, seconds.
            style: Decides their looks and timing.
        """
        setting = self.setting
        unit, light = setting.unit, setting.light
        shows = ["red"] * 11 + ["red amber"] + ["green"] * 11 + ["amber"] * 2
        period = style.uniform(14, 22)
        phase = (0.75 - (arrival - style.uniform(0.5, 3.0)) / period) % 1.0
        looks = style.random()
        poles = [(s, q, 2.5, 0.0) for s, q in places if style.random() < 0.88]
        if style.random() < 0.6:
            # One hangs over the camera's lanes.
            s, q = places[1]
            reach = 0.7 + (setting.parking + 0.6 * setting.lane) / unit
            poles.append((s + 0.2 * unit, q, 4.9, -setting.side * reach))
        for s, q, up, reach in poles:
            pole = partial(
                furniture.post, height=up + (1.0 if reach else 0.7), reach=reach, width=0.14
            )
            yield self._still("", s, q, style, pole, behind=0.02, reach=8.0)

            def build(pose: int, reach: float = reach, up: float = up) -> Mesh:
                mesh, lit = MeshBuilder(0.0, unit), frozenset(shows[pose].split())
                furniture.traffic_light(mesh, Random(looks), (reach, up), lit)
                return mesh.build(light)

            yield Item(
                "traffic_light",
                s,
                q,
                build,
                poses=len(shows),
                cadence=1 / period,
                phase=phase,
                reach=8.0,
            )
