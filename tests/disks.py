"""Disks that get full: file systems in memory of a given size, which only root may mount."""

import subprocess
from pathlib import Path


class Disk:
    """A file system in memory, mounted on a folder. Raises OSError where none can be mounted."""

    def __init__(self, folder: Path, size: str) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
        )
        if mounted.returncode:
            raise OSError(f"no file system can be mounted here: {mounted.stderr.strip()}")

    def grow(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", self.folder], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)
