"""Figures that are kept: `docs/measured/<name>.json`, each set with its command, commit, day and machine.

    python benchmarks/training.py --record                    # what a benchmark found
    python -m benchmarks.record make "make run" run_s=45      # what somebody timed: name, command, figures

A file is a list of sets, the newest last; nothing is written over, so a page can show what a figure was before. `make docs`
makes the pages of `docs/measured/` from these files.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "docs" / "measured"


def with_record(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--record", action="store_true", help="keep the figures in docs/measured, with commit and machine"
    )


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a benchmark was told to do, for those that show it with their figures."""
    return {name: value for name, value in vars(arguments).items() if name != "record"}


def finish(name: str, figures: Mapping[str, Any], *, keep: bool) -> None:
    """Print the last line of a benchmark, one JSON object; with `keep` add it to docs/measured/<name>.json."""
    print(json.dumps(figures))
    if keep:
        print(f"kept in {add(name, command(), figures).relative_to(ROOT)}", file=sys.stderr)


def add(name: str, told: str, figures: Mapping[str, Any], folder: Path = MEASURED) -> Path:
    """Add a set, which the command `told` gave, to a file, which is made where there is none. Returns the file."""
    file = folder / f"{name}.json"
    kept = json.loads(file.read_text()) if file.exists() else []
    found = {
        "command": told,
        "commit": commit(),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": machine(),
    }
    file.write_text(json.dumps([*kept, {**found, "figures": figures}], indent=1, ensure_ascii=False) + "\n")
    return file


def command() -> str:
    """That started this process, without what keeps its figures."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", module.name] if module else [Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()]
    return shlex.join(["python", *program, *(given for given in sys.argv[1:] if given != "--record")])


def commit() -> str | None:
    """Of the checkout, with `+` where files beside the records were changed since; None where there is no git."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        return name + "+" * bool(_git("diff", "--name-only", "HEAD", "--", ".", ":(exclude)docs/measured"))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def machine() -> dict[str, Any]:
    """What a figure depends on, neighbours (the load of the last minute) too; not the machine's name."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "gpu": _gpu(),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("torch", "ray")},
    }


def _cpu() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the file in docs/measured")
    parser.add_argument("command", help="that gave the figures")
    parser.add_argument("figures", nargs="+", metavar="NAME=NUMBER")
    given = parser.parse_args()
    parts = [figure.partition("=") for figure in given.figures]
    if wrong := [name for name, equals, _ in parts if not equals]:
        parser.error(f"{wrong[0]}: expected NAME=NUMBER")
    print(add(given.name, given.command, {name: json.loads(value) for name, _, value in parts}).relative_to(ROOT))


if __name__ == "__main__":
    main()
