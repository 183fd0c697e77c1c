"""Which weather the pictures of a training run get, as a YAML file says it.

::

    clear: 0.5                # share of the pictures that stay as they are
    weather:                  # each of the others gets one of these, by weight
      - weight: 2
        apply:                # one after the other
          - Rain: {severity: [1, 5]}
      - weight: 1
        apply:
          - RandomGamma: {gamma_limit: [150, 300]}
          - RandomSunFlare: {src_radius: 60, p: 0.3}

Transforms are ours (``training.weather``) and albumentations' image-only ones: they leave the boxes
where they are. Each is applied whenever its turn comes unless ``p`` says otherwise.
"""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from mbnet_perception.training.weather import TRANSFORMS, ImageOnlyTransform

Image = NDArray[np.uint8]

# Sets a policy's draws apart from others that a caller makes from the same seed: otherwise the
# number that leaves a picture clear would be the one that has chosen its crop.
STREAM = 0x57656174
# A picture as small as training ever makes them: 160 pixels at 4:3.
TRIAL = (120, 160, 3)


@dataclass(frozen=True)
class Choice:
    """Transforms that come one after the other, and how often relative to the other choices."""

    weight: float
    transforms: tuple[ImageOnlyTransform, ...]


@dataclass(frozen=True)
class Policy:
    """What may happen to a picture; see the module for the file it is read from.

    Attributes:
        clear: Share of pictures that stay as they are.
        choices: One of them happens to each of the others.
    """

    clear: float
    choices: tuple[Choice, ...]

    def apply(self, image: Image, seed: Sequence[int]) -> Image:
        """Put random weather into a picture.

        What comes out follows from the arguments alone, whatever was drawn before, in whichever
        process. Not for several threads at once: the transforms hold their generators.

        Args:
            image: (H, W, 3) uint8 RGB, not written to.
            seed: Not negative. Numbers that the caller draws from the same seed are others.

        Returns:
            Same shape and dtype; the image itself if it stays clear.
        """
        rng = np.random.default_rng((*seed, STREAM))
        if rng.random() < self.clear:
            return image
        weights = np.array([choice.weight for choice in self.choices])
        choice = self.choices[int(rng.choice(len(weights), p=weights / weights.sum()))]
        py_random = random.Random(int(rng.integers(2**63)))
        for transform in choice.transforms:
            # One generator runs through the chain: with a seed for each, all would draw the same.
            transform.set_random_state(rng, py_random)
            image = transform(image=image)["image"]
        return image


def read_policy(path: Path) -> Policy:
    """Read a policy from a YAML file.

    Raises:
        ValueError: If the file cannot be read, is no YAML, or is no policy.
    """
    try:
        return policy_from(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: is no YAML: {error}") from error


def policy_from(content: object, origin: str) -> Policy:
    """Make a policy of what a YAML file holds.

    Raises:
        ValueError: Names ``origin``, the transform or key, what was expected and what came.
    """
    keys = _keys(content, ("clear", "weather"), origin)
    clear, weather = keys["clear"], keys["weather"]
    if type(clear) not in (int, float) or not 0 <= clear <= 1:
        raise ValueError(f"{origin}: clear must be a share in [0, 1], got {clear!r}")
    if not isinstance(weather, list) or not weather:
        raise ValueError(f"{origin}: weather must list at least one choice, got {weather!r}")
    return Policy(
        float(clear), tuple(_choice(c, f"{origin}: choice {n}") for n, c in enumerate(weather, 1))
    )


def _choice(content: object, origin: str) -> Choice:
    keys = _keys(content, ("weight", "apply"), origin)
    weight, chain = keys["weight"], keys["apply"]
    if type(weight) not in (int, float) or not 0 < weight <= 1e6:
        raise ValueError(f"{origin}: weight must be in (0, 1e6], got {weight!r}")
    if not isinstance(chain, list) or not chain:
        raise ValueError(f"{origin}: apply must list at least one transform, got {chain!r}")
    return Choice(float(weight), tuple(_transform(item, origin) for item in chain))


def _transform(content: object, origin: str) -> ImageOnlyTransform:
    if not isinstance(content, dict) or len(content) != 1:
        raise ValueError(
            f"{origin}: expected a transform with its arguments, such as "
            f"'Fog: {{severity: [1, 5]}}', got {content!r}"
        )
    ((name, arguments),) = content.items()
    if name not in TRANSFORMS:
        near = get_close_matches(str(name), TRANSFORMS, n=1)
        raise ValueError(
            f"{origin}: unknown transform {name!r}"
            + (f", did you mean {near[0]!r}?" if near else "")
            + f"; those that leave boxes where they are: {sorted(TRANSFORMS)}"
        )
    kind = TRANSFORMS[name]
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise ValueError(
            f"{origin}: {name}: expected its arguments as {{name: value}}, got {arguments!r}"
        )
    known = set(inspect.signature(kind).parameters)
    unknown = sorted(set(map(str, arguments)) - known)
    if unknown:
        raise ValueError(f"{origin}: {name}: unknown arguments {unknown}; known: {sorted(known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # some checks only warn, and go on with the defaults
            transform = kind(**{"p": 1.0} | arguments)
        # Tried on a picture, so that a run does not stop in its middle.
        trial = transform(image=np.full(TRIAL, 128, np.uint8), force_apply=True)["image"]
    except Exception as error:  # the library raises whatever it likes
        raise ValueError(f"{origin}: {name}: {_reason(error)}") from error
    if trial.shape != TRIAL or trial.dtype != np.uint8:
        raise ValueError(
            f"{origin}: {name} must give pictures as it takes them, "
            f"but uint8 {TRIAL} became {trial.dtype} {trial.shape}"
        )
    return transform


def _keys(content: object, known: Sequence[str], origin: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{origin}: expected keys {list(known)}, got {type(content).__name__}")
    unknown = sorted(set(map(str, content)) - set(known))
    if unknown:
        raise ValueError(f"{origin}: unknown keys {unknown}; known are {list(known)}")
    missing = [name for name in known if name not in content]
    if missing:
        raise ValueError(f"{origin}: missing keys {missing}")
    return content


def _reason(error: Exception) -> str:
    """What pydantic found, in one line; other errors as they are."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(map(str, found['loc']))}: {found['msg']}, got {found['input']!r}"
        for found in cause.errors()
    )
