"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write beside and rename, so that whatever goes wrong leaves the previous file whole.

    Raises:
        OSError: If it cannot be written, as when the disk is full; nothing is left beside it.
    """
    beside = path.with_name(f"{path.name}.partial")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with no content
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
