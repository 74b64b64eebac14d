"""What preparing many small rows takes, over reading and writing the same bytes once, and how much memory its processes have.

    python -m benchmarks.prepare [--rows 20000000] [--rounds 3] [--workers 2] [--record]

The source is one Parquet file: an id, a list of 20 float32 and a class, 100 bytes a row. `copy` reads it with pyarrow and writes it
again, batch by batch, by pyarrow's defaults; `prepare` makes a transfer set of it, whose files are synced, in processes as Ray would
have them. They take turns, each in a process of its own, and a figure is the median over rounds. TMPDIR says where the files lie: four
times the source finds room there. The last line printed is one JSON object:

    prepare_over_copy  time of preparing over that of copying (goal 4)
    driver_rss_mb      the largest memory of the process that asks for it, Python and Arrow included, and the pages that it has mapped
    worker_rss_mb      the same of the largest of its workers
    prepare_s, copy_s  the times
    source_mb          of the source
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import ROOT, finish, with_record

WIDTH, CLASSES, AT_ONCE = 20, 10, 1 << 17
GOAL, GOAL_MB = 4, 1000


def write_source(path: Path, num_rows: int) -> None:
    random = np.random.default_rng(0)
    kinds = {"id": pa.string(), "x": pa.list_(pa.float32(), WIDTH), "y": pa.int32()}
    with pq.ParquetWriter(path, pa.schema([*kinds.items()])) as writer:
        for first in range(0, num_rows, AT_ONCE):
            rows = min(AT_ONCE, num_rows - first)
            values = pa.array(random.random(rows * WIDTH, np.float32))
            columns = [
                pa.array(np.arange(first, first + rows)).cast(pa.string()),
                pa.FixedSizeListArray.from_arrays(values, WIDTH),
                pa.array(random.integers(0, CLASSES, rows, dtype=np.int32)),
            ]
            writer.write_table(pa.table(columns, names=[*kinds]), row_group_size=AT_ONCE)


def copy(source: Path, target: Path, workers: int) -> None:
    target.mkdir()
    with pq.ParquetFile(source) as file, pq.ParquetWriter(target / "copy.parquet", file.schema_arrow) as writer:
        for batch in file.iter_batches(AT_ONCE):
            writer.write_batch(batch)


def prepare(source: Path, target: Path, workers: int) -> None:
    from teachers.config.transfer_set import TransferSetConfig
    from teachers.preparing.prepare import prepare as prepare_transfer_set

    told = {"source": {"kind": "parquet", "path": str(source)}, "inputs": "x", "label": "y", "id": "id"}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        prepare_transfer_set(TransferSetConfig.model_validate(told), target, run=pool.map)


STEPS: dict[str, Callable[[Path, Path, int], None]] = {"copy": copy, "prepare": prepare}


def measured(step: str, source: Path, workers: int) -> tuple[float, float, float]:
    """(seconds, MB of the process, MB of the largest that it started) of one step."""
    target = source.parent / "target"
    command = [sys.executable, "-m", "benchmarks.prepare", "--step", step, "--folder", str(source.parent)]
    done = subprocess.run([*command, "--workers", str(workers)], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    shutil.rmtree(target)
    seconds, mb, of_workers = json.loads(done.stdout)
    print(f"{step}: {seconds:.1f} s, {mb:.0f} MB, workers {of_workers:.0f} MB", flush=True)
    return seconds, mb, of_workers


def here(step: str, folder: Path, workers: int) -> None:
    begun = time.perf_counter()
    STEPS[step](folder / "rows.parquet", folder / "target", workers)
    taken = time.perf_counter() - begun
    used = [resource.getrusage(who).ru_maxrss / 1000 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([taken, *used]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    with_record(parser)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        here(arguments.step, arguments.folder, arguments.workers)
        return
    with tempfile.TemporaryDirectory(prefix="collegium-prepare-") as scratch:
        source = Path(scratch) / "rows.parquet"
        write_source(source, arguments.rows)
        size = source.stat().st_size / 1e6
        ask = partial(measured, source=source, workers=arguments.workers)
        found: dict[str, list[tuple[float, float, float]]] = {step: [] for step in STEPS}
        for _ in range(arguments.rounds):
            for step, measurements in found.items():
                measurements.append(ask(step))
    seconds = {step: median(each[0] for each in measurements) for step, measurements in found.items()}
    figures = {
        "rows": arguments.rows,
        "source_mb": round(size),
        "copy_s": round(seconds["copy"], 1),
        "prepare_s": round(seconds["prepare"], 1),
        "prepare_over_copy": round(seconds["prepare"] / seconds["copy"], 3),
        "driver_rss_mb": round(max(each[1] for each in found["prepare"])),
        "worker_rss_mb": round(max(each[2] for each in found["prepare"])),
    }
    print(f"prepare over copy {figures['prepare_over_copy']} (goal {GOAL}); no process over {GOAL_MB} MB is the goal")
    finish("prepare", figures, keep=arguments.record)


if __name__ == "__main__":
    main()
