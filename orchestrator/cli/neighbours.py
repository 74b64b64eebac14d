"""Imported first by the command: ends it where `teachers` or `students` would come from anywhere but this distribution.

PYTHONPATH can do that. Any import from such a package would end in a traceback, and `teachers.users_code.imports` could not tell.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]

for name in ("teachers", "students"):
    spec = find_spec(name)
    found = Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
    if found != HOME / name:
        sys.stderr.write(
            f"error: package {name!r} would come from {found}, Collegium's own is in {HOME / name}; "
            f"rename that folder, or take the folder above it out of PYTHONPATH\n"
        )
        sys.exit(4)
