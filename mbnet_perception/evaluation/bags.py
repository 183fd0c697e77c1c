"""Bags of camera pictures, read and written without ROS (by the `rosbags` and `mcap` libraries).

Bags of ROS 1 are read as if they were of ROS 2: messages have its type names and serialisation.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import (
    CompressionFormat,
    CompressionMode,
    StoragePlugin,
    Writer,
    WriterError,
)
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from mbnet_perception.core.images import (
    ImageFormatError,
    Picture,
    picture_from_compressed,
    picture_from_raw,
)
from mbnet_perception.evaluation.bag_storage import (
    SUFFIXES,
    Storage,
    cut_short,
    open_storage,
    why_broken,
)
from mbnet_perception.evaluation.dataset import read_coco, read_yaml

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DETECTIONS = "vision_msgs/msg/Detection2DArray"
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)

IMAGE_TOPIC = "/camera/image_raw/compressed"
CAMERA_INFO_TOPIC = "/camera/camera_info"
GROUND_TRUTH_TOPIC = "/camera/ground_truth"
FRAME_ID = "camera"

START = 1_750_000_000 * 10**9
"""Time in ns since the epoch at which written bags begin: fixed, so that equal seeds give equal
bags."""

_SECOND = 10**9

# A serialised message begins with four bytes about the encoding, the second of which is odd for
# little endian (RTPS 2.5, section 10.2); std_msgs/Header begins with the stamp.
_HEADER_START = 4
_HEADER_END = 12

# `rosbags` knows the messages of a plain ROS 2 installation; vision_msgs (4.1) is not among them.
_VISION_MSGS = {
    "Point2D": "float64 x\nfloat64 y",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
        "vision_msgs/BoundingBox2D bbox\nstring id"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
}


class BagError(RuntimeError):
    """A bag that cannot be read or written; the message names the bag and says what is wrong."""


@dataclass(frozen=True)
class Message:
    """A recorded message.

    Attributes:
        topic: Topic it was recorded from.
        type: Its type, such as ``sensor_msgs/msg/Image``.
        log_time: When it was recorded, ns since the epoch.
        data: The message, CDR-serialised.
    """

    topic: str
    type: str
    log_time: int
    data: bytes


class Bag:
    """A bag: a ROS 2 folder, a bare ``.mcap`` or ``.db3`` file, or a ``.bag`` of ROS 1.

    To be used in a ``with`` statement. A bag whose recording or copying was interrupted is read up
    to the break; no more of it is in memory than a part of a file.

    Attributes:
        path: Where it lies.
        topics: Type of each topic, such as ``{"/image_raw": "sensor_msgs/msg/Image"}``. A type of
            ROS 1 that is another one in ROS 2 keeps the name that it has in ROS 1, without
            ``msg``.
        counts: Messages of each topic; an estimate where the bag is broken.
        broken: In words, why reading ends before the bag's end: known from opening, or met while
            reading; empty as long as it does not.
    """

    def __init__(self, path: Path | str) -> None:
        """Open a bag.

        Raises:
            BagError: If it is missing, is no bag, or nothing can be read of it.
        """
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"bag '{path}' does not exist")
        self.broken = ""
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._files, compressed = _data_files(self.path)
        self._storages: list[Storage] = []
        for file in [self.path] if compressed else self._files:
            # A damaged file makes the libraries fail in many ways, up to struct.error.
            try:
                if not compressed and not file.is_file():
                    raise FileNotFoundError(file)
                storage = open_storage(file, _typestore())
            except Exception as error:
                self._break(file, error, something_read=bool(self._storages))
                break
            self._storages.append(storage)
            self.topics |= storage.topics
            self.counts += storage.counts
            if storage.broken:
                self.broken = f"{file.name} {storage.broken}"
                break

    def image_topics(self, wanted: Sequence[str] = ()) -> dict[str, str]:
        """Return the type of each topic with images, or of those wanted.

        Raises:
            BagError: If there is none, or one of those wanted is not there or holds no images; the
                message lists what there is.
        """
        images = {name: kind for name, kind in self.topics.items() if kind in IMAGE_TYPES}
        for topic in wanted:
            if topic not in images:
                have = ", ".join(f"{name} ({kind})" for name, kind in sorted(images.items()))
                raise BagError(
                    f"bag '{self.path}' has no image topic '{topic}'; it has: "
                    f"{have or self._all_topics()}"
                )
        if not images:
            raise BagError(f"bag '{self.path}' has no image topic; it has: {self._all_topics()}")
        return {name: images[name] for name in wanted} if wanted else images

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of some topics in the order in which they were recorded.

        Of a ROS 1 bag, there are none whose types ROS 2 has not or has otherwise, and a damaged
        one comes without data.

        Raises:
            BagError: If the bag is so damaged that there is not even a first one. Having yielded
                some, it ends, and says why in `broken`.
        """
        something_read = False
        for storage, file in zip(self._storages, self._files, strict=False):
            try:
                for record in storage.records(topics):
                    something_read = True
                    yield Message(*record)
            except Exception as error:
                self._break(file, error, something_read)
                return

    def fingerprint(self) -> str:
        """Hash of the bytes of the bag's data files: 32 hexadecimal digits.

        Raises:
            BagError: If one cannot be read.
        """
        digest = blake2b(digest_size=16)
        for file in self._files:
            try:
                with file.open("rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
            except (FileNotFoundError, IsADirectoryError):
                continue  # `broken` tells of it
            except OSError as error:
                raise BagError(f"{file} cannot be read: {error.strerror}") from error
        return digest.hexdigest()

    def close(self) -> None:
        """Close the bag's files."""
        for storage in self._storages:
            storage.close()

    def __enter__(self) -> Bag:
        """Return the bag itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bag's files."""
        self.close()

    def _all_topics(self) -> str:
        return ", ".join(f"{n} ({t})" for n, t in sorted(self.topics.items())) or "no topics"

    def _break(self, file: Path, error: Exception, something_read: bool) -> None:
        """Take note of a fault, or raise it where it leaves nothing to be read."""
        if isinstance(error, FileNotFoundError):
            fault = f"{file.name}, which its metadata.yaml lists, is missing"
        elif something_read or cut_short(file):
            fault = f"{file.name} {why_broken(file, error)}"
        else:
            fault = f"{file.name}: {str(error) or type(error).__name__}"
        if not something_read:
            advice = _ADVICE.get(file.suffix, "copy it again")
            raise BagError(f"bag '{self.path}' cannot be read: {fault}; {advice}") from error
        self.broken = fault


_ADVICE = {
    ".mcap": "copy it again, or repair it with `mcap recover`",
    ".db3": "copy it again, or repair it with `.recover` of sqlite3",
    ".bag": "copy it again, or repair it with `rosbag reindex` of ROS 1",
}


def _data_files(path: Path) -> tuple[list[Path], bool]:
    """The files with a bag's messages, in order, and whether only metadata.yaml can unpack them.

    Raises:
        BagError: If there are none.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise BagError(
                f"'{path}' is no bag: expected a folder with metadata.yaml, or an .mcap, .db3 or "
                f".bag file"
            )
        return [path], False
    with suppress(Exception):  # whatever it holds: without it, the files tell
        about = read_yaml(path / "metadata.yaml")["rosbag2_bagfile_information"]
        # Only the names: files lie in the bag's own folder, whatever folder was written down.
        files = [path / PurePath(name).name for name in about["relative_file_paths"]]
        if files:
            return files, str(about.get("compression_mode") or "none").lower() != "none"
    files = sorted((f for f in path.iterdir() if f.suffix in (".mcap", ".db3")), key=_by_number)
    if len({file.suffix for file in files}) > 1:
        raise BagError(
            f"folder '{path}' has no usable metadata.yaml, and both .mcap and .db3 files; name one"
        )
    if not files:
        packed = ", but packed files: unpack them with `zstd -d`" if [*path.glob("*.zstd")] else ""
        raise BagError(
            f"folder '{path}' is no ROS 2 bag: it has neither a usable metadata.yaml nor .mcap or "
            f".db3 files{packed}"
        )
    return files, False


def _by_number(file: Path) -> list[tuple[int, str]]:
    """Sorts drive_2 before drive_10, as they were recorded."""
    parts = re.split(r"(\d+)", file.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def decode(data: bytes, message_type: str) -> Any:
    """Deserialise a CDR message of a type that comes with ROS 2 or vision_msgs.

    Raises:
        BagError: If the type is unknown or the data is not of that type.
    """
    try:
        return _typestore().deserialize_cdr(data, message_type)
    except Exception as error:  # older releases of `rosbags` raise assertion and other errors
        raise BagError(f"cannot decode a message of type {message_type}: {error}") from error


def stamp(data: bytes) -> int:
    """Return the header's stamp, ns since the epoch, of a CDR message that begins with a header.

    Raises:
        BagError: If the message is too short to have one.
    """
    if len(data) < _HEADER_END:
        raise BagError(f"a message of {len(data)} bytes is too short for a header")
    seconds, nanoseconds = struct.unpack_from(_time_format(data), data, _HEADER_START)
    return int(seconds) * _SECOND + int(nanoseconds)


def with_stamp(message: Message, time: int) -> bytes:
    """Return a message that begins with a header, CDR-serialised, with another stamp.

    Args:
        message: As read; not changed. In ground truth, the stamp of each object changes too.
        time: ns since the epoch.

    Raises:
        BagError: If the data is not of the message's type.
    """
    if message.type == DETECTIONS:
        truth = decode(message.data, DETECTIONS)
        for part in (truth, *truth.detections):
            part.header.stamp.sec, part.header.stamp.nanosec = divmod(time, _SECOND)
        return bytes(_typestore().serialize_cdr(truth, DETECTIONS))
    stamp(message.data)  # refuses what is too short
    new = struct.pack(_time_format(message.data), *divmod(time, _SECOND))
    return message.data[:_HEADER_START] + new + message.data[_HEADER_END:]


def _time_format(data: bytes) -> str:
    return "<iI" if data[1] & 1 else ">iI"


def picture_of(message: Message, long_side: int = 0) -> Picture:
    """The picture in a message of `IMAGE_TYPES`.

    Args:
        message: As `Bag.messages` yields it.
        long_side: As in `picture_from_compressed`; raw images are taken whole.

    Raises:
        ImageFormatError: If the message is damaged or its picture is none that can be read without
            cv_bridge.
    """
    if message.type not in IMAGE_TYPES:
        raise ImageFormatError(f"expected {' or '.join(IMAGE_TYPES)}, got {message.type}")
    try:
        image = decode(message.data, message.type)
    except BagError as error:
        raise ImageFormatError(str(error)) from error
    if message.type == COMPRESSED_IMAGE:
        return picture_from_compressed(image.data, image.format, long_side)
    return picture_from_raw(image.data, image.height, image.width, image.encoding, image.step)


def raw_image(picture: NDArray[np.uint8], header: Any) -> bytes:
    """Serialise a picture as ``sensor_msgs/msg/Image``.

    Args:
        picture: (H, W, 3) uint8 BGR.
        header: Header as `decode` gives it.

    Returns:
        The message, CDR-serialised, encoding ``bgr8``.
    """
    store = _typestore()
    height, width = picture.shape[:2]
    image = store.types[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(picture).reshape(-1),
    )
    return bytes(store.serialize_cdr(image, IMAGE))


@cache
def _typestore() -> Typestore:
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, definition in _VISION_MSGS.items():
        store.register(get_types_from_msg(definition, f"vision_msgs/msg/{name}"))
    return store


class CameraBagWriter:
    """Writes a bag of one camera: compressed images, ground truth, and CameraInfo if known.

    To be used in a ``with`` statement. An MCAP bag is a folder; it must not exist yet.
    """

    def __init__(self, path: Path | str, intrinsics: NDArray[np.float64] | None = None) -> None:
        """Create the bag.

        Args:
            path: Folder to make.
            intrinsics: (3, 3) float64 pinhole matrix in pixels, as K of CameraInfo.

        Raises:
            BagError: If the folder exists or cannot be made.
        """
        self._intrinsics = intrinsics
        self._types = _typestore().types
        try:
            self._writer = Writer(
                Path(path), version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
            )
            # Ground truth is mostly zeros: it shrinks to a tenth.
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
            self._writer.open()
        except WriterError as error:
            raise BagError(f"cannot write bag '{path}': {error}") from error
        except OSError as error:
            raise BagError(f"cannot write bag '{path}': {error.strerror}") from error
        topics = {IMAGE_TOPIC: COMPRESSED_IMAGE, GROUND_TRUTH_TOPIC: DETECTIONS}
        if intrinsics is not None:
            topics[CAMERA_INFO_TOPIC] = CAMERA_INFO
        self._connections = {
            topic: self._writer.add_connection(topic, kind, typestore=_typestore())
            for topic, kind in topics.items()
        }

    def add(
        self,
        time: int,
        encoded: NDArray[np.uint8],
        codec: str,
        size: tuple[int, int],
        boxes: NDArray[np.float32],
        names: Sequence[str],
    ) -> None:
        """Add a picture with what is known to be in it.

        Args:
            time: ns since the epoch; the stamp, and the time of recording.
            encoded: (bytes,) uint8: the picture's file.
            codec: ``jpeg`` or ``png``.
            size: Width and height in pixels.
            boxes: (N, 4) float32 xyxy, pixels.
            names: N class names.
        """
        header = self._header(time)
        image = self._types[COMPRESSED_IMAGE](
            header=header, format=f"bgr8; {codec} compressed bgr8", data=encoded
        )
        self._write(IMAGE_TOPIC, time, image)
        if self._intrinsics is not None:
            self._write(CAMERA_INFO_TOPIC, time, self._camera_info(header, size))
        truth = self._types[DETECTIONS](
            header=header,
            detections=[
                self._detection(header, box, name)
                for box, name in zip(boxes.tolist(), names, strict=True)
            ],
        )
        self._write(GROUND_TRUTH_TOPIC, time, truth)

    def __enter__(self) -> CameraBagWriter:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the bag, or leave it incomplete after an error."""
        self._writer.__exit__(kind, error, trace)

    def _write(self, topic: str, time: int, message: object) -> None:
        connection = self._connections[topic]
        data = _typestore().serialize_cdr(message, connection.msgtype)
        self._writer.write(connection, time, data)

    def _header(self, time: int) -> Any:
        stamp = self._types["builtin_interfaces/msg/Time"](
            sec=time // _SECOND, nanosec=time % _SECOND
        )
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=FRAME_ID)

    def _camera_info(self, header: Any, size: tuple[int, int]) -> Any:
        assert self._intrinsics is not None
        none = self._types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._types[CAMERA_INFO](
            header=header,
            height=size[1],
            width=size[0],
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=self._intrinsics.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=np.hstack([self._intrinsics, np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=none,
        )

    def _detection(self, header: Any, box: Sequence[float], name: str) -> Any:
        types = self._types
        x1, y1, x2, y2 = box
        nowhere = types["geometry_msgs/msg/PoseWithCovariance"](
            pose=types["geometry_msgs/msg/Pose"](
                position=types["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
                orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
            ),
            covariance=np.zeros(36),
        )
        hypothesis = types["vision_msgs/msg/ObjectHypothesis"](class_id=name, score=1.0)
        middle = types["vision_msgs/msg/Point2D"](x=(x1 + x2) / 2, y=(y1 + y2) / 2)
        return types["vision_msgs/msg/Detection2D"](
            header=header,
            results=[
                types["vision_msgs/msg/ObjectHypothesisWithPose"](
                    hypothesis=hypothesis, pose=nowhere
                )
            ],
            bbox=types["vision_msgs/msg/BoundingBox2D"](
                center=types["vision_msgs/msg/Pose2D"](position=middle, theta=0.0),
                size_x=x2 - x1,
                size_y=y2 - y1,
            ),
            id="",
        )


def write_pictures(
    path: Path | str, labels: Path, rate: float = 5.0, limit: int | None = None
) -> int:
    """Write a bag of a data set's pictures, JPEG or PNG, with their boxes as ground truth.

    The files' bytes go into the bag as they are.

    Args:
        path: Folder to make.
        labels: COCO JSON.
        rate: Pictures a second.
        limit: Take the first so many pictures; None takes all.

    Returns:
        The number of pictures.

    Raises:
        BagError: If the folder exists, or a picture is missing or is neither JPEG nor PNG.
        DatasetError: If the labels cannot be used.
    """
    dataset = read_coco(labels)
    pictures = dataset.pictures[:limit]
    with CameraBagWriter(path) as bag:
        for number, picture in enumerate(pictures):
            try:
                encoded = np.fromfile(picture.path, np.uint8)
            except OSError as error:
                raise BagError(f"picture {picture.path} cannot be read: {error}") from error
            start = encoded[:4].tobytes()
            if not start.startswith((b"\xff\xd8", b"\x89PNG")):
                raise BagError(f"picture {picture.path} is neither JPEG nor PNG")
            bag.add(
                START + round(number * _SECOND / rate),
                encoded,
                "png" if start == b"\x89PNG" else "jpeg",
                (picture.width, picture.height),
                picture.boxes,
                [dataset.classes[i] for i in picture.classes],
            )
    return len(pictures)
