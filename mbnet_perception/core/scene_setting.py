"""Settings of a synthetic street: place, road, camera and light, decided by a seed.

Road coordinates, in metres: s along the road from where the camera starts, q across it from the
line between the two directions of traffic, positive on the side on which the camera drives.
"""

import math
from dataclasses import dataclass
from random import Random

from mbnet_perception.core.scene_canvas import Colour, Light, shaded


@dataclass(frozen=True)
class Setting:
    """What the seed decides about a scene, in road coordinates.

    Attributes:
        place: city, suburb, country, or track: a small course for robot cars.
        unit: Size of the street's things; 1 but on a track, where only people keep their size.
        side: 1 where traffic keeps right, -1 where it keeps left.
        own_lanes: Number of lanes in the camera's direction.
        other_lanes: Number of lanes against it.
        lane: Width of a lane, metres.
        parking: Width of the parking strip on either side, metres; 0 for none.
        walk: Width of the pavement on either side, metres; 0 for none.
        camera_q: Where the camera is across the road, metres.
        camera_height: Its height, metres.
        focal: Focal length as a share of the image width.
        horizon: Row of the horizon as a share of the image height.
        speed: Of the camera, m/s.
        bend: Largest curvature of the road, 1/m.
        bend_phase: Where in its bends the road starts, radians.
        density: How crowded the street is, about 0.5-1.5.
        night: Whether lamps are lit.
        light: Illumination and haze.
        zenith: Colour of the sky above, BGR as all colours.
        asphalt: Colour of the road.
        paint: Colour of its marks.
        pavement: Colour of the pavement.
        verge: Colour of the ground beside the road.
        junction_every: Mean distance between junctions, metres.
        bonnet: Whether the own car's bonnet is in the picture.
        noise: Standard deviation of the sensor's noise in grey levels.
        blur: Of the lens: standard deviation in pixels of an image 640 wide.
    """

    place: str
    unit: float
    side: int
    own_lanes: int
    other_lanes: int
    lane: float
    parking: float
    walk: float
    camera_q: float
    camera_height: float
    focal: float
    horizon: float
    speed: float
    bend: float
    bend_phase: float
    density: float
    night: bool
    light: Light
    zenith: Colour
    asphalt: Colour
    paint: Colour
    pavement: Colour
    verge: Colour
    junction_every: float
    bonnet: bool
    noise: float
    blur: float

    @property
    def edges(self) -> tuple[float, float]:
        """Where the carriageway ends on the other and on the own side, as q in metres."""
        return (
            -(self.other_lanes * self.lane + self.parking),
            self.own_lanes * self.lane + self.parking,
        )

    def shadow(self, q: float) -> Colour:
        """Colour of a shadow on the ground at q."""
        low, high = self.edges
        if low < q < high:
            ground = self.asphalt
        elif low - self.walk < q < high + self.walk:
            ground = self.pavement
        else:
            ground = self.verge
        return shaded(ground, 0.7 - 0.25 * self.light.contrast)


@dataclass(frozen=True)
class _Sky:
    """Light of a time of day."""

    zenith: Colour
    haze: Colour
    tint: Colour
    contrast: float
    share: int
    night: bool = False


_SKIES = (
    _Sky((225, 160, 95), (235, 225, 210), (1.0, 1.0, 1.0), 0.5, share=3),
    _Sky((235, 185, 130), (240, 232, 222), (1.0, 1.02, 1.04), 0.55, share=3),
    _Sky((195, 190, 185), (215, 213, 210), (0.86, 0.85, 0.84), 0.25, share=3),
    _Sky((165, 160, 155), (190, 188, 186), (0.72, 0.7, 0.68), 0.2, share=2),
    _Sky((190, 150, 120), (150, 195, 235), (0.72, 0.86, 1.0), 0.6, share=2),
    _Sky((120, 75, 60), (135, 130, 165), (0.66, 0.58, 0.56), 0.3, share=1),
    _Sky((38, 24, 18), (58, 47, 44), (0.46, 0.42, 0.4), 0.35, share=1, night=True),
)
_HALL = _Sky((150, 160, 168), (185, 195, 200), (0.92, 0.96, 1.0), 0.3, share=0)


def draw_setting(style: Random) -> Setting:
    """Draw the kind of street, the camera and the light."""
    place = style.choice(("city",) * 8 + ("suburb",) * 5 + ("country",) * 4 + ("track",) * 3)
    track = place == "track"
    unit = style.uniform(0.22, 0.4) if track else 1.0
    own = 1 if track else style.choice((1, 1, 2))
    other = 0 if place == "city" and style.random() < 0.2 else own
    lane = style.uniform(2.9, 3.6) * unit
    sky = style.choice([sky for sky in _SKIES for _ in range(sky.share)])
    if track:
        sky = _HALL
    exposure = style.uniform(0.82, 1.12)
    grey = style.uniform(75, 125)
    asphalt: Colour = (grey * 1.02, grey, grey * 0.98)
    verge: Colour = style.choice(((60, 110, 95), (55, 95, 70), (90, 135, 145), (75, 125, 105)))
    if place == "city":
        verge = (135, 140, 145)
    if track:
        asphalt = style.choice(((60, 60, 60), (140, 145, 150), (110, 130, 150), (95, 110, 95)))
        verge = style.choice((asphalt, shaded(asphalt, 1.2), (120, 140, 160)))
    angle = style.uniform(0, math.tau)
    return Setting(
        place=place,
        unit=unit,
        side=style.choice((1, 1, 1, 1, -1)),
        own_lanes=own,
        other_lanes=other,
        lane=lane,
        parking=2.3 if place in ("city", "suburb") and style.random() < 0.55 else 0.0,
        walk={
            "city": style.uniform(2.4, 4.5),
            "suburb": style.uniform(1.5, 2.5),
            "country": style.choice((0.0, 0.0, 1.5)),
            "track": style.choice((0.0, 3.2, 4.5)),
        }[place],
        camera_q=(style.randrange(own) + 0.5) * lane + style.uniform(-0.3, 0.3) * unit,
        camera_height=style.choice((style.uniform(1.1, 1.5), style.uniform(1.3, 2.2))) * unit,
        focal=style.uniform(0.7, 1.15),
        horizon=style.uniform(0.4, 0.56),
        speed=style.uniform(5, 13) * (1.3 if place == "country" else 1.0) * unit,
        bend=style.choice((0.0004, 0.001, 0.002)) / unit,
        bend_phase=style.uniform(0, math.tau),
        density=style.uniform(0.5, 1.4),
        night=sky.night,
        light=Light(
            tint=shaded(sky.tint, exposure),
            sun=(0.6 * math.cos(angle), 0.7, 0.6 * math.sin(angle)),
            contrast=sky.contrast,
            haze=shaded(sky.haze, min(exposure, 1.05)),
            haze_distance=style.uniform(140, 500),
        ),
        zenith=shaded(sky.zenith, min(exposure, 1.05)),
        asphalt=asphalt,
        paint=style.choice(((225, 228, 228), (225, 228, 228), (60, 190, 235))),
        pavement=shaded((150, 154, 156), style.uniform(0.85, 1.15)),
        verge=verge,
        junction_every=style.uniform(45, 80) * unit * (2.0 if place == "country" else 1.0),
        bonnet=style.random() < 0.2 and not track,
        noise=style.uniform(0, 5),
        blur=style.uniform(0, 0.9),
    )
