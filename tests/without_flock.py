"""Runs Python in a process whose kernel refuses flock, as some shared file systems do: a seccomp filter, no stand-in."""

import ctypes
import platform
import struct
import subprocess
import sys
from pathlib import Path

FLOCK = {"x86_64": 73, "aarch64": 32}
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ERRNO, ALLOW = 0x00050000, 0x7FFF0000


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(errno: int) -> None:
    """From here on flock fails with `errno` in this process and its children."""
    number = FLOCK[platform.machine()]
    steps = [
        (LOAD_NUMBER, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, number),
        (RETURN, 0, 0, ERRNO | errno),
        (RETURN, 0, 0, ALLOW),
    ]
    program = Program(len(steps), b"".join(struct.pack("HBBI", *step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program)) == 0, ctypes.get_errno()


def run(errno: int, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`code`, with sys.argv[1:] as given."""
    start = f"from tests.without_flock import refuse\nrefuse({errno})\n"
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
