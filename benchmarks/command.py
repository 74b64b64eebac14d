"""What it costs to start the command: `collegium --help` beside an interpreter that does nothing.

    python benchmarks/command.py [--rounds 15]

Each side is a new process, in turns; a figure is the median over rounds, CPU seconds so that neighbours on the machine do not
count. The last line printed is one JSON object:

    help_cpu_s      CPU seconds of `collegium --help` over those of `python -c pass`
    help_s          the same of the wall clock
    python_cpu_s    CPU seconds of `python -c pass`
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from statistics import median

from benchmarks.record import ROOT, finish, with_record

SIDES = {"help": ["-m", "orchestrator", "--help"], "python": ["-c", "pass"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    with_record(parser)
    arguments = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in SIDES}
    for _ in range(arguments.rounds):
        for name, given in SIDES.items():
            times[name].append(timed([sys.executable, *given]))
    (help_s, help_cpu_s), (python_s, python_cpu_s) = (
        tuple(median(column) for column in zip(*times[name][1:], strict=True)) for name in SIDES
    )
    figures = {
        "help_cpu_s": round(help_cpu_s - python_cpu_s, 3),
        "help_s": round(help_s - python_s, 3),
        "python_cpu_s": round(python_cpu_s, 3),
    }
    finish("command", figures, keep=arguments.record)


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a process that runs the code of this checkout."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cpu_s


if __name__ == "__main__":
    main()
