"""How much memory a Ray that is started here takes for objects. Knows nothing of clusters that are joined."""

import shutil
import sys
from pathlib import Path

import psutil

from ..recipe.model import Recipe

OBJECT_STORE_BYTES = 256 << 20
"""Only control messages and small batches pass through it; Ray's default would take a third of the machine."""
LIVE_OBJECT_STORE_BYTES = 8 << 30
"""At most, with live teachers: five float32 batches of 256 images of 224 pixels take 770 MB."""
MACS_OBJECT_STORE_BYTES = 2 << 30
"""On macOS Ray refuses more."""
SHARED_MEMORY = Path("/dev/shm")


def object_store_bytes(recipe: Recipe | None, *, platform: str = sys.platform, room: int | None = None) -> int:
    """Of a Ray that is started here: batches for live teachers lie in it, what does not fit goes over the disk.

    `room`: bytes that may be taken; None: as much as this machine has to spare.
    """
    if recipe is None or not any(recipe.live_teachers(student) for student in recipe.students):
        return OBJECT_STORE_BYTES
    most = MACS_OBJECT_STORE_BYTES if platform == "darwin" else LIVE_OBJECT_STORE_BYTES
    return max(OBJECT_STORE_BYTES, min(_to_spare() if room is None else room, most))


def _to_spare() -> int:
    room = int(psutil.virtual_memory().available) // 8
    return min(room, shutil.disk_usage(SHARED_MEMORY).free // 2) if SHARED_MEMORY.is_dir() else room
