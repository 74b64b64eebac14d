"""Which process this is among all machines. A pid means something on one machine, until that starts anew, in one container."""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> dict[str, Any]:
    """For a record that others read, with `goes_on`."""
    return {
        "host": socket.gethostname(),
        "processes": neighbours(),
        "pid": os.getpid(),
        "process_start": _started(os.getpid()),
    }


def neighbours() -> str:
    """Stands for all processes among which a pid means something. Hosts may share a name, containers of one host too."""
    with suppress(OSError):
        return f"{BOOT.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def is_process(pid: int, start: float) -> bool:
    """Whether a very process still runs, not another that got its number."""
    try:
        return abs(_started(pid) - start) < 1.0
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return False
    except (psutil.AccessDenied, PermissionError):  # another user's, where those are hidden: taken for alive
        return True


def _started(pid: int) -> float:
    """When a process began; on Linux in seconds since the machine did: what a clock that is set anew does not change."""
    if not BOOT.exists():
        return float(psutil.Process(pid).create_time())
    after_its_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_its_name[19]) / os.sysconf("SC_CLK_TCK")
