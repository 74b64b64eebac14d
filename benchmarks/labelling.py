"""How fast labelling is: a real conv net beside plain loops, and a teacher that does nothing beside Ray Data.

    python benchmarks/labelling.py [--rounds 5] [--shards 16] [--rows 600000]

Both sides have the same rows and threads and take turns; figures are medians. The real conv net labels in steady state:
all processes are up and warm, and how long the actors took to start is told apart. The plain loops keep what the
network says in memory, ours writes it into a store. The teacher that does nothing is timed from nothing to everything
written, the start of the actors included on both sides. The last line is one JSON object.
"""

import argparse
import itertools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from benchmarks.record import finish, with_record
from benchmarks.turns import Side, in_turn, ratio
from orchestrator.cluster.environment import set_environment
from teachers.config.preprocess import Preprocess
from teachers.config.resources import Resources
from teachers.config.teacher import CallableTeacher, ModuleTeacher
from teachers.config.transfer_set import NumpySource, SplitConfig, TransferSetConfig
from teachers.labelling.shard import LabelTask, TeacherSpec
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from teachers.zoo import conv_net

NUM_REPLICAS = 2
BATCH_SIZE = 256
WIDTH = 16
REAL_ROWS_PER_SHARD = 512
NOOP_FILES, NOOP_BATCH_SIZE = 60, 4096
CLASSES = tuple("0123456789")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", type=int, default=16, help="of a replica of the conv net, 512 rows each")
    parser.add_argument("--rows", type=int, default=600_000, help="of the teacher that does nothing")
    with_record(parser)
    arguments = parser.parse_args()
    set_environment()  # before ray is imported, and so it is everywhere below
    import ray

    folder = Path(tempfile.mkdtemp(prefix="collegium-labelling-"))
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=8, object_store_memory=1 << 30, **quiet)
    try:
        figures = real(folder, arguments) | noop(folder, arguments)
    finally:
        ray.shutdown()
        shutil.rmtree(folder)
    finish("labelling", figures, keep=arguments.record)


def real(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A conv net on 28 x 28 images: our replicas, one plain process with all threads, one plain process a core."""
    import ray

    from teachers.labelling.replicas import replicas

    num_rows = NUM_REPLICAS * arguments.shards * REAL_ROWS_PER_SHARD
    transfer_set, rows = prepared(folder / "real", num_rows)
    torch.manual_seed(0)
    weights = folder / "conv_net.safetensors"
    save_file(conv_net(WIDTH, num_classes=10, input_shape=(1, 28, 28)).state_dict(), weights)
    one = PlainLoops(transfer_set, rows, weights, num_processes=1, num_threads=os.cpu_count() or 1)
    many = PlainLoops(transfer_set, rows, weights, num_processes=os.cpu_count() or 1, num_threads=1)
    config = ModuleTeacher(
        kind="module",
        model="teachers.zoo:conv_net",
        arguments={"width": WIDTH},
        weights=str(weights),
        preprocess=Preprocess(normalise="auto"),
        replicas=NUM_REPLICAS,
        batch_size=BATCH_SIZE,
        resources=Resources(cpus=1),
    )
    teacher = TeacherSpec("conv_net", config, None, (), folder)
    tasks = [store_for(transfer_set, folder / f"real-{n}", REAL_ROWS_PER_SHARD) for n in range(arguments.rounds + 1)]
    began = time.monotonic()
    with replicas(teacher, tasks, NUM_REPLICAS, wait_s=60) as actors:
        ray.get([actor.ready.remote() for actor in actors.handles.values()])
        actor_start_s = time.monotonic() - began
        turns = itertools.count()
        sides: dict[str, Side] = {
            "ours": lambda _: dispatch(teacher, tasks, actors, next(turns)),
            "one process": one,
            "many": many,
        }
        times = in_turn(sides, steps=rows, rounds=arguments.rounds)
    one.stop()
    many.stop()
    return {
        "real_over_plain_loop": round(ratio([*map(min, times["one process"], times["many"])], times["ours"]), 3),
        "actor_start_s": round(actor_start_s, 2),
        "real_rows_per_s": rate(times["ours"]),
        "plain_one_process_rows_per_s": rate(times["one process"]),
        "plain_process_per_core_rows_per_s": rate(times["many"]),
    }


def rate(times: Sequence[float]) -> int:
    """Rows a second, of seconds a row in every round."""
    return round(1 / median(times))


def dispatch(teacher: TeacherSpec, tasks: list[LabelTask], actors: Any, number: int) -> None:
    """Fill the store of one round by replicas that are up already."""
    from teachers.labelling.dispatch import Dispatcher
    from teachers.labelling.hands import Waiting

    store = SoftTargetStore.open(tasks[number].store)
    shards = Waiting({number: (store, store.missing())})
    for _ in Dispatcher(actors, shards, teacher, tasks, max_attempts=1, wait_s=60).run():
        pass
    assert not store.missing()


class PlainLoops:
    """Processes that wait for a word and then label their share of the rows, in memory, as anybody would write it."""

    def __init__(
        self, transfer_set: TransferSet, rows: int, weights: Path, *, num_processes: int, num_threads: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for number in range(num_processes):
            share = (rows * number // num_processes, rows * (number + 1) // num_processes)
            pipe, other = context.Pipe()
            arguments = (other, transfer_set.folder, share, weights, num_threads)
            self.processes.append(context.Process(target=plain_loop, args=arguments, daemon=True))
            self.processes[-1].start()
            self.pipes.append(pipe)

    def __call__(self, rows: int) -> None:
        for pipe in self.pipes:
            pipe.send("label")
        for pipe in self.pipes:
            pipe.recv()

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()


def plain_loop(pipe: Connection, folder: Path, share: tuple[int, int], weights: Path, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    transfer_set = TransferSet.open(folder)
    [column] = transfer_set.columns
    [segment] = transfer_set.of("train")
    images = np.array(transfer_set.inputs(segment, share[0], share[1] - share[0])["x"])
    network = conv_net(WIDTH, num_classes=10, input_shape=(1, 28, 28))
    network.load_state_dict(load_file(weights))
    network.eval()
    mean, std = torch.tensor(column.mean), torch.tensor(column.std)
    logits = torch.empty(len(images), 10)
    while word := pipe.recv():
        with torch.inference_mode():
            for first in range(0, len(images), BATCH_SIZE):
                batch = torch.from_numpy(images[first : first + BATCH_SIZE]).permute(0, 3, 1, 2).float()
                logits[first : first + BATCH_SIZE] = network((batch / 255 - mean) / std)
        pipe.send(word)


def noop(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A teacher that does nothing: what the machinery itself costs, from nothing to everything written."""
    from teachers.labelling.label import label

    transfer_set, rows = prepared(folder / "noop", arguments.rows)
    source = folder / "parquet"
    write_parquet(transfer_set, source)
    (folder / "noop_teacher.py").write_text(
        "import numpy as np\ndef say(batch):\n    return np.zeros((len(batch['x']), 10), np.float32)\n"
    )
    config = CallableTeacher(
        kind="callable",
        function="noop_teacher:say",
        output="logits",
        replicas=NUM_REPLICAS,
        batch_size=NOOP_BATCH_SIZE,
        resources=Resources(cpus=1),
    )
    teacher = TeacherSpec("noop", config, None, (), folder)
    tasks = iter([store_for(transfer_set, folder / f"noop-{n}", -(-rows // 64)) for n in range(arguments.rounds + 1)])
    reports = []

    def ours(_: int) -> None:
        reports.append(label(teacher, [next(tasks)]))

    def ray_data(_: int) -> None:
        label_with_ray_data(source, Path(tempfile.mkdtemp(dir=folder)), rows)

    times = in_turn({"ours": ours, "Ray Data": ray_data}, steps=rows, rounds=arguments.rounds)
    return {
        "noop_over_ray_data": round(ratio(times["Ray Data"], times["ours"]), 2),
        "noop_rows_per_s": rate(times["ours"]),
        "noop_rows_per_s_after_start": round(median(report.rows_per_s for report in reports[1:])),
        "ray_data_rows_per_s": rate(times["Ray Data"]),
    }


class Nothing:
    def __call__(self, batch: pa.Table) -> pa.Table:
        logits = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(10 * len(batch), np.float16)), 10)
        return pa.table({"sample_key": batch["sample_key"], "logits": logits})


def label_with_ray_data(source: Path, target: Path, rows: int) -> None:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.read_parquet(str(source)).map_batches(
        Nothing,
        batch_format="pyarrow",
        batch_size=NOOP_BATCH_SIZE,
        zero_copy_batch=True,
        compute=ray.data.ActorPoolStrategy(size=NUM_REPLICAS),
    ).write_parquet(str(target))
    assert sum(pq.read_metadata(path).num_rows for path in target.glob("*.parquet")) == rows


def write_parquet(transfer_set: TransferSet, folder: Path) -> None:
    """The same rows as files of the kind that Ray Data reads."""
    folder.mkdir()
    [segment] = transfer_set.of("train")
    keys, images = transfer_set.keys(segment), transfer_set.inputs(segment)["x"]
    for number, rows in enumerate(np.array_split(np.arange(len(keys)), NOOP_FILES)):
        part = pa.FixedSizeListArray.from_arrays(pa.array(images[rows].reshape(-1)), 28 * 28)
        pq.write_table(pa.table({"sample_key": keys[rows], "x": part}), folder / f"{number:03d}.parquet")


def prepared(folder: Path, num_rows: int) -> tuple[TransferSet, int]:
    """About so many random images in a training split, and how many they are."""
    source = folder / "source"
    source.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (int(num_rows / 0.98), 28, 28, 1), dtype=np.uint8)
    np.save(source / "x.npy", images)
    config = TransferSetConfig(
        source=NumpySource(kind="numpy", path=str(source)),
        inputs="x",
        label=None,
        classes=list(CLASSES),
        split=SplitConfig(validation=0.01, test=0.01),
    )
    transfer_set = prepare(config, folder / "prepared")
    shutil.rmtree(source)
    return transfer_set, transfer_set.of("train")[0].num_rows


def store_for(transfer_set: TransferSet, folder: Path, rows_per_shard: int) -> LabelTask:
    [segment] = transfer_set.of("train")
    spec = Spec(
        teacher="benchmark",
        teacher_digest="0" * 64,
        segment=segment.name,
        segment_digest=segment.digest,
        encoding="dense",
        names=transfer_set.classes,
        num_rows=segment.num_rows,
        rows_per_shard=rows_per_shard,
    )
    SoftTargetStore.create(folder, spec)
    return LabelTask(transfer_set.folder, segment.name, folder)


if __name__ == "__main__":
    main()
