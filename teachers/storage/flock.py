"""The kernel's lock on an open file: one process at a time on this machine, and on all that share the file system.

Some shared file systems have none (NFS without its lock daemon, Lustre without `-o flock`, many over FUSE): each refuses
in its own way, and what a lock would have saved is double work. So whoever asks learns that there is none, goes on, and
leaves alone what only one process may do.
"""

import fcntl
import os

NO_LOCK = (
    "this storage has no locks (flock), so nobody can tell whether another process works on it; copy it to one that has, "
    "or mount it with locks"
)


def try_lock(file: int) -> bool:
    """Lock an open file until it is closed; False when somebody else has. Raises NotImplementedError where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, PermissionError):  # SMB answers EACCES
        return False
    except OSError as error:
        raise _none(error) from error


def await_lock(file: int) -> None:
    """The same, however long it takes."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        raise _none(error) from error


def _none(error: OSError) -> NotImplementedError:
    return NotImplementedError(os.strerror(error.errno or 0))
