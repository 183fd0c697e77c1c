"""The data files of bags, read as far as they go: MCAP, SQLite and ROS 1.

`rosbags` reads what is whole. What an interrupted recording or copy has left behind, without the
index that is written last, is read from the beginning instead, up to the break.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol, TypeAlias

from mcap.reader import make_reader
from mcap.records import Channel, DataEnd, McapRecord, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import Nodetype
from rosbags.interfaces.typing import Typesdict
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

Record: TypeAlias = tuple[str, str, int, bytes]
"""Topic, type, time of recording in ns since the epoch, and the message, CDR-serialised."""

SUFFIXES = (".mcap", ".db3", ".bag")
CUT_SHORT = (
    "is cut short: its end is missing, probably because its recording or copying was interrupted"
)
_MANY = (Nodetype.ARRAY, Nodetype.SEQUENCE)
_MCAP_MAGIC = b"\x89MCAP0\r\n"  # MCAP specification, "Magic"
_SQLITE_MAGIC = b"SQLite format 3\0"  # SQLite file format, 1.3


class StorageError(RuntimeError):
    """A file that holds no messages that can be read; says why."""


class Storage(Protocol):
    """An open file with messages.

    Attributes:
        topics: Type of each topic.
        counts: Messages of each topic; an estimate where the file is broken.
        broken: Why not all messages can be read, known from opening; empty where they can.
    """

    topics: dict[str, str]
    counts: Counter[str]
    broken: str

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        """Yield messages; ends at a break that `broken` tells of, raises anything at another."""

    def close(self) -> None:
        """Close the file."""


def open_storage(path: Path, store: Typestore) -> Storage:
    """Open a data file.

    Args:
        path: It, or a folder with metadata.yaml, which tells how its files are compressed.
        store: Types of ROS 2 that messages of ROS 1 become.

    Raises:
        Exception: Of any kind, if nothing can be read of it.
    """
    if path.is_dir():
        return _Whole(rosbag2.Reader(path))
    if path.suffix == ".bag":
        return _Ros1(rosbag1.Reader(path), store)
    return _open_mcap(path) if path.suffix == ".mcap" else _open_sqlite(path)


def cut_short(path: Path) -> bool:
    """Tell whether a file is shorter than it says, or lacks what its end must be."""
    with suppress(OSError), path.open("rb") as stream:
        start, size = stream.read(100), path.stat().st_size
        if start.startswith(_MCAP_MAGIC):
            stream.seek(max(8, size - 8))
            return stream.read() != _MCAP_MAGIC
        if start.startswith(_SQLITE_MAGIC):
            page = int.from_bytes(start[16:18], "big")
            return (65536 if page == 1 else page) * int.from_bytes(start[28:32], "big") > size
    return False


def why_broken(path: Path, error: Exception) -> str:
    """What to say of a file of which a part was read before an error."""
    if cut_short(path):
        return CUT_SHORT
    return f"cannot be read to its end: {str(error) or type(error).__name__}"


class _Whole:
    """What `rosbags` reads."""

    broken = ""

    def __init__(self, reader: rosbag1.Reader | rosbag2.Reader) -> None:
        self._reader = reader
        reader.open()
        self.topics = {c.topic: c.msgtype for c in reader.connections}
        self.counts: Counter[str] = Counter()
        for connection in reader.connections:
            self.counts[connection.topic] += connection.msgcount

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        wanted = [c for c in self._reader.connections if c.topic in topics]
        if not wanted:  # to the library, an empty list means all
            return
        for connection, time, data in self._reader.messages(wanted):
            yield connection.topic, connection.msgtype, time, data

    def close(self) -> None:
        self._reader.close()


class _Ros1(_Whole):
    """Gives messages as those of ROS 2 with the same name, where they have the same fields."""

    def __init__(self, reader: rosbag1.Reader, store: Typestore) -> None:
        super().__init__(reader)
        self._store = store
        for connection in reader.connections:
            kind, definition = connection.msgtype, connection.msgdef.data
            if kind in store.fielddefs and not _alike(
                kind, store.fielddefs, get_types_from_msg(definition, kind)
            ):
                self.topics[connection.topic] = kind.replace("/msg/", "/")

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        known = [name for name in topics if self.topics.get(name) in self._store.fielddefs]
        for topic, kind, time, data in super().records(known):
            # Of a damaged message, older releases of `rosbags` raise assertion and other errors.
            try:
                converted = bytes(self._store.ros1_to_cdr(data, kind))
            except Exception:
                converted = b""
            yield topic, kind, time, converted


def _alike(kind: str, ours: Typesdict, theirs: Typesdict) -> bool:
    """Tell whether a message has fields of the same types in both, whatever their names are."""
    if kind == "std_msgs/msg/Header":  # without `seq` in ROS 2, which the conversion leaves out
        return True
    if kind not in ours or kind not in theirs:
        return False
    mine, others = ([field for _, field in each[kind][1]] for each in (ours, theirs))
    parts = [field[1][0] if field[0] in _MANY else field for field in mine]
    nested = [part[1] for part in parts if part[0] == Nodetype.NAME]
    return mine == others and all(_alike(str(name), ours, theirs) for name in nested)


def _open_mcap(path: Path) -> Storage:
    with suppress(Exception):
        with path.open("rb") as stream:
            summary = make_reader(stream).get_summary()
        # Without an index, `rosbags` asks for messages in the order of their times.
        if summary is not None and summary.chunk_indexes:
            return _Whole(rosbag2.Reader(path))
    return _McapFromTheStart(path)


class _McapFromTheStart:
    """An MCAP file read record by record, which needs nothing that is written last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.broken = ""
        self.topics: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        try:
            for topic, kind, _, _ in self._all():
                self.topics[topic] = kind
                self.counts[topic] += 1
        except Exception as error:
            if not self.counts:
                raise
            self.broken = why_broken(path, error)
        if not self.counts:
            raise StorageError("it holds no ROS 2 messages")

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        try:
            yield from (record for record in self._all() if record[0] in topics)
        except Exception:
            if not self.broken:
                raise

    def close(self) -> None:
        """Nothing stays open."""

    def _all(self) -> Iterator[Record]:
        schemas: dict[int, str] = {}
        channels: dict[int, Channel] = {}
        for record in self._mcap_records():
            if isinstance(record, Schema):
                schemas[record.id] = record.name
            elif isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, Message):
                channel = channels[record.channel_id]
                if channel.message_encoding == "cdr":
                    kind = schemas.get(channel.schema_id, "")
                    yield channel.topic, kind, record.log_time, record.data

    def _mcap_records(self) -> Iterator[McapRecord]:
        with self._path.open("rb") as stream:
            for record in StreamReader(stream, validate_crcs=True).records:
                if isinstance(record, DataEnd):
                    return
                yield record


def _open_sqlite(path: Path) -> Storage:
    storage: Storage
    try:
        storage = _Whole(rosbag2.Reader(path))
    except Exception:
        storage = _SqliteFromTheStart(path)
    journal = path.with_name(f"{path.name}-wal")
    if not storage.broken and journal.exists() and journal.stat().st_size:
        storage.broken = (
            f"may lack its last messages: an interrupted recording has left {journal.name}; "
            f"`sqlite3 {path.name} 'PRAGMA wal_checkpoint'` moves its content where it belongs"
        )
    return storage


class _SqliteFromTheStart:
    """A damaged SQLite file, read row by row until there is none that can be read."""

    def __init__(self, path: Path) -> None:
        self.broken = ""
        self.counts: Counter[str] = Counter()
        # Read-only, without looking at journals; from whatever thread, one at a time.
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}?immutable=1", uri=True, check_same_thread=False
        )
        try:
            # What lets SQLite open a file that is shorter than it says: `lockBtree` of its source.
            self._database.execute("PRAGMA writable_schema = ON")
            rows = self._database.execute(
                "SELECT id, name, type FROM topics WHERE serialization_format = 'cdr'"
            )
            self._topics = {number: (name, kind) for number, name, kind in rows}
            self.topics = dict(self._topics.values())
            self._count(path)
            if not self.counts:
                raise StorageError("it holds no ROS 2 messages")
        except BaseException:
            self.close()
            raise

    def _count(self, path: Path) -> None:
        try:
            with closing(
                self._database.execute("SELECT topic_id FROM messages ORDER BY id")
            ) as rows:
                for (number,) in rows:
                    if number in self._topics:
                        self.counts[self._topics[number][0]] += 1
        except sqlite3.Error as error:
            if not self.counts:
                raise
            self.broken = why_broken(path, error)

    def records(self, topics: Collection[str]) -> Iterator[Record]:
        query = "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
        try:
            with closing(self._database.execute(query)) as rows:
                for number, time, data in rows:
                    name, kind = self._topics.get(number, ("", ""))
                    if name in topics and isinstance(data, bytes):
                        yield name, kind, time, data
        except sqlite3.Error:
            if not self.broken:
                raise

    def close(self) -> None:
        self._database.close()
