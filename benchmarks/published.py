"""Labelling by a Hugging Face folder over a bare loop of the same batches. Run from the repository root:

    python benchmarks/published.py

The network is as large as MiniLM (six layers of 384), with weights of chance, and reads the texts of benchmarks/text.py. The last
line is JSON:

    labelling_over_bare   rows a second from the prepared set into a store, tokenised on the way, over those of a loop over the
                          same batches of token ids, which stand ready and whose answers are dropped
"""

import argparse
import logging
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.record import finish, with_record
from benchmarks.text import CLASSES, MINILM, table
from benchmarks.turns import CLOCKS, Clock, in_turn, ratio, repeated, with_clock
from teachers.config.published import HuggingFaceTeacher
from teachers.labelling.hands import IN_FLIGHT
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.models.huggingface import lengths_of
from teachers.models.torchvision_build import make_importable
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet
from teachers.users_code.installed import placed

BATCH_SIZE, SHARD_ROWS = 64, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2560)
    with_clock(parser)
    with_record(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder), arguments.rows)
        found = labelling(rows, a_folder(Path(folder) / "model"), arguments.rounds, CLOCKS[arguments.clock])
    about = {"clock": arguments.clock, "rounds": arguments.rounds, "rows": arguments.rows, "torch": torch.__version__}
    finish("published", found | about, keep=arguments.record)


def a_folder(folder: Path) -> Path:
    make_importable()
    import transformers

    shutil.copytree(placed(MINILM), folder, ignore=shutil.ignore_patterns("*.safetensors", "modules.json"))
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=CLASSES)
    config.id2label = {number: str(number) for number in range(CLASSES)}
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def labelling(rows: TransferSet, folder: Path, rounds: int, clock: Clock) -> dict[str, float]:
    [segment] = rows.of("train")
    classes = tuple(str(number) for number in range(CLASSES))
    about = Spec("bench", "0" * 64, segment.name, segment.digest, "dense", classes, segment.num_rows, SHARD_ROWS)
    config = HuggingFaceTeacher(kind="huggingface", path=str(folder), batch_size=BATCH_SIZE)
    first = LabelTask(rows.folder, segment.name, SoftTargetStore.create(rows.folder.parent / "store", about).folder)
    labeller, number = Labeller(TeacherSpec("bench", config, None, (), folder), [first], "cpu"), count()
    teacher: Any = labeller.questioner.teacher
    batches = []
    for shard in range(about.num_shards):
        ready, order = teacher.prepare(labeller.tasks[0].read(*about.shard_rows(shard)))
        tokens = ready["tokens"][order]
        batches += [tokens[at : at + BATCH_SIZE] for at in range(0, len(tokens), BATCH_SIZE)]
    fed = [torch.from_numpy(tokens[:, : lengths_of(tokens).max()].astype("int64")) for tokens in batches]

    def bare() -> None:
        with torch.inference_mode():
            for ids in fed:
                there = (ids >= 0).long()
                teacher.forward.network(input_ids=ids.clamp_min(0), attention_mask=there, token_type_ids=0 * ids)

    def label() -> None:
        store = SoftTargetStore.create(rows.folder.parent / f"store-{next(number)}", about)
        labeller.tasks = [type(labeller.tasks[0]).open(LabelTask(rows.folder, segment.name, store.folder))]
        with ThreadPoolExecutor(IN_FLIGHT) as callers:  # as a replica has them
            list(callers.map(lambda shard: labeller.label(0, shard), store.missing()))

    times = in_turn({"bare": repeated(bare), "label": repeated(label)}, steps=1, rounds=rounds, clock=clock)
    found = round(ratio(times["bare"], times["label"]), 4)
    speed = {side: segment.num_rows / median(each) for side, each in times.items()}
    print(f"bare {speed['bare']:,.0f} rows/s, labelling {speed['label']:,.0f} rows/s, ratio {found:.3f}")
    return {"labelling_over_bare": found}


if __name__ == "__main__":
    main()
