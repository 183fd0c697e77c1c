"""Pictures with the detections drawn in, for people to watch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Condition, Thread
from time import monotonic

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mbnet_perception.core.detections import Detections
from mbnet_perception.core.drawing import draw_detections
from mbnet_perception.core.images import Picture
from mbnet_perception.nodes.cdr import ImageHeader
from mbnet_perception.nodes.messages import header_message

LOOK_AROUND = 0.2  # seconds; to ask for listeners costs more than all books of a frame


@dataclass(frozen=True)
class Overlay:
    """What is to be drawn; the picture may be a view of a message."""

    header: ImageHeader
    picture: Picture
    detections: Detections
    class_names: Sequence[str]


class OverlayPainter:
    """Draws the newest picture of a camera on a thread of its own, so that no frame waits for it.

    Args:
        raw, compressed: Where the pictures go.
        on_error: Told why a picture could not be drawn or published.
    """

    def __init__(
        self, raw: Publisher, compressed: Publisher, on_error: Callable[[Exception], None]
    ) -> None:
        self._raw = raw
        self._compressed = compressed
        self._on_error = on_error
        self._wake = Condition()
        self._waiting: Overlay | None = None
        self._closed = False
        self._due = 0.0
        self._thread = Thread(target=self._work, name="overlay", daemon=True)
        self._thread.start()

    def wants(self, rate: float) -> bool:
        """Whether a picture is to be offered: somebody listens, and the last is long enough ago.

        Args:
            rate: At most so many pictures a second; 0 means none.
        """
        now = monotonic()
        if rate <= 0 or now < self._due:
            return False
        if not self._listeners():
            self._due = now + LOOK_AROUND
            return False
        # A share of the period is forgiven, or 30 Hz of frames at 10 Hz would come out as 7.5.
        self._due = now + 0.9 / rate
        return True

    def offer(self, overlay: Overlay) -> None:
        """Have this one drawn."""
        with self._wake:
            self._waiting = overlay
            self._wake.notify()

    def close(self) -> None:
        """End the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _listeners(self) -> int:
        return self._raw.get_subscription_count() + self._compressed.get_subscription_count()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._waiting)
                if self._closed:
                    return
                overlay, self._waiting = self._waiting, None
            try:
                assert overlay is not None
                self._publish(overlay)
            except Exception as error:  # nobody's detections may end for the sake of a picture
                self._on_error(error)

    def _publish(self, overlay: Overlay) -> None:
        drawn = draw_overlay(overlay)
        header = header_message(overlay.header)
        if self._raw.get_subscription_count():
            self._raw.publish(image_message(drawn, header))
        if self._compressed.get_subscription_count():
            done, content = cv2.imencode(".jpg", drawn)
            if not done:
                raise RuntimeError(f"OpenCV cannot make a JPEG of a picture {drawn.shape}")
            data = array("B", content.tobytes())
            self._compressed.publish(CompressedImage(header=header, format="jpeg", data=data))


def draw_overlay(overlay: Overlay) -> NDArray[np.uint8]:
    """The picture, at the size it was decoded to, with its detections; (h, w, 3) uint8 BGR."""
    bgr = overlay.picture.bgr()
    height, width = bgr.shape[:2]
    scale = np.array(
        [width / overlay.picture.width, height / overlay.picture.height] * 2, np.float32
    )
    boxes = overlay.detections.boxes * scale
    return draw_detections(bgr, replace(overlay.detections, boxes=boxes), overlay.class_names)


def image_message(bgr: NDArray[np.uint8], header: Header) -> Image:
    """A (h, w, 3) uint8 BGR picture as a message."""
    height, width = bgr.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="bgr8",
        step=3 * width,
        # rclpy copies an array of bytes at once, and anything else value by value.
        data=array("B", bgr.tobytes()),
    )
