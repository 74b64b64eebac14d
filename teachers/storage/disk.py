"""Disks that are full or must not be written: the machine's fault, told as such wherever it is met."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EnvironmentUnfit

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNFIT = FULL | {errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}


def is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in FULL


def is_unfit(error: BaseException) -> bool:
    """Whether another try on this machine, as it is, would fail too."""
    return isinstance(error, OSError) and error.errno in UNFIT


def unfit(error: OSError, place: Path | None = None) -> EnvironmentUnfit:
    """What to tell the user; `place`: what was written, where the error itself does not say."""
    where = error.filename or place
    cure = "make room there" if is_full(error) else "mend that"
    return EnvironmentUnfit(
        f"{where or 'a disk'}: {error.strerror or error}; what is done is kept: {cure}, and run the same command again"
    )


@contextmanager
def told_if_unfit(place: Path | None = None) -> Iterator[None]:
    """Raise EnvironmentUnfit for a disk, that of `place`, which cannot be written any more; other errors stay as they are."""
    try:
        yield
    except OSError as error:
        if not is_unfit(error):
            raise
        raise unfit(error, place) from error
