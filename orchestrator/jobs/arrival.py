"""What a submitted job looks at first: is this the Collegium that was submitted, and is there all that it needs?

Imports nothing that might be missing.
"""

import importlib.metadata
import os
import re
import sys

EXPECTED = "COLLEGIUM_VERSION"
"""The submitter's version; set in submitted jobs only."""


def check_arrival() -> None:
    """End with exit code 4 in an environment that is unfit for the job."""
    expected = os.environ.get(EXPECTED)
    if expected is None:
        return
    found = importlib.metadata.version("collegium")
    if found != expected:
        _leave(f"the cluster has Collegium {found}, the job was submitted by {expected}; submit without --installed")
    missing = [name for name in _needed() if not _is_there(name)]
    if "ray" in missing:
        _leave(
            f"jobs start the `python` that is first on the PATH of the cluster's head: {sys.executable}, which has no "
            f"Ray, so it is not the cluster's own; start the head with that one's folder first: "
            f"`PATH=/its/environment/bin:$PATH ray start --head ...`"
        )
    if missing:
        _leave(
            f"the cluster's environment lacks {', '.join(missing)}; install what Collegium needs on every node "
            f"(`pip install collegium` or its image): a job ships only Collegium itself"
        )


def _needed() -> list[str]:
    """Names of the distributions that Collegium requires."""
    requires = [line for line in importlib.metadata.requires("collegium") or () if "extra ==" not in line]
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires]


def _is_there(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _leave(said: str) -> None:
    sys.stderr.write(f"error: {said}\n")
    sys.exit(4)
