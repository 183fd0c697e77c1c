"""The weather kernels as albumentations transforms, and the library's own beside them, by name."""

from __future__ import annotations

import os
from inspect import isabstract
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from mbnet_perception.core.weather import SEVERITIES, apply_weather

# Importing albumentations asks the network for updates unless this is set.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations
from albumentations import ImageOnlyTransform
from albumentations.core.pydantic import check_range_bounds, nondecreasing
from albumentations.core.transforms_interface import BaseTransformInitSchema


class Weather(ImageOnlyTransform):
    """One condition of ``core.weather`` at a random severity; boxes stay as they are.

    Takes and gives (H, W, 3) uint8 RGB. As the library's other transforms it draws from its own
    generators alone, and goes through ``albumentations.to_dict`` and ``from_dict``.

    Args:
        severity: Lowest and highest, within 1-5; drawn evenly between them, fractions included.
        p: Probability that the transform does anything.
    """

    condition: ClassVar[str]

    class InitSchema(BaseTransformInitSchema):
        """What the arguments must be; albumentations checks them against it."""

        severity: Annotated[
            tuple[float, float],
            AfterValidator(check_range_bounds(SEVERITIES[0], SEVERITIES[-1])),
            AfterValidator(nondecreasing),
        ]

    def __init__(
        self,
        severity: tuple[float, float] = (SEVERITIES[0], SEVERITIES[-1]),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.severity = severity

    def get_params(self) -> dict[str, Any]:
        """Draw what makes this picture's weather."""
        return {
            "severity": self.py_random.uniform(*self.severity),
            "seed": self.py_random.getrandbits(32),
        }

    def apply(
        self, img: NDArray[np.uint8], severity: float, seed: int, **_: Any
    ) -> NDArray[np.uint8]:
        """Put the weather that was drawn into a picture, which is not written to."""
        return apply_weather(img, self.condition, severity, seed)


class Fog(Weather):
    """Fog, by visibility."""

    condition = "fog"


class Rain(Weather):
    """Rain in daylight, by rain rate."""

    condition = "rain"


class Night(Weather):
    """A dry night, by exposure."""

    condition = "night"


class RainNight(Weather):
    """Rain at night."""

    condition = "rain_night"


class FogNight(Weather):
    """Fog at night."""

    condition = "fog_night"


def _image_only_transforms() -> dict[str, type[ImageOnlyTransform]]:
    """Whatever changes pixels and no geometry: the library's, and ours, by the class's name."""
    library = {
        name: value
        for name, value in vars(albumentations).items()
        if isinstance(value, type)
        and issubclass(value, ImageOnlyTransform)
        and value is not ImageOnlyTransform
        and not isabstract(value)
    }
    return library | {kind.__name__: kind for kind in (Fog, Rain, Night, RainNight, FogNight)}


TRANSFORMS = _image_only_transforms()
