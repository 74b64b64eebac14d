"""Small tables to train on in tests: several classes a row, and numbers; teachers that know them roughly."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from teachers.config.transfer_set import TransferSetConfig
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore

ROWS, FEATURES = 480, 6
LABELS = {"multilabel": ["red", "round", "rare"], "regression": ["price", "weight"]}


def truth(task, features):
    """f64 `[rows, width]`: logits, or numbers of very different sizes."""
    weights = np.random.default_rng(7).standard_normal((FEATURES, len(LABELS[task])))
    linear = features @ weights
    return 3 * linear - [0, 0, 4] if task == "multilabel" else linear * [1000, 0.5] + [250_000, -3]


def table(task, *, factor=1.0, unknown=0.1):
    """Features, and a label of which a share is null."""
    draw = np.random.default_rng(0)
    features = draw.standard_normal((ROWS, FEATURES)).astype(np.float32)
    said = truth(task, features.astype(np.float64))
    found = (
        (said > 0).astype(float)
        if task == "multilabel"
        else (said + 0.05 * said.std(0) * draw.standard_normal(said.shape)) * factor
    )
    gaps = draw.random(found.shape) < unknown
    columns = {f"x{number}": features[:, number] for number in range(FEATURES)}
    kind = pa.int8() if task == "multilabel" else pa.float64()
    columns |= {
        name: pa.array(found[:, number], mask=gaps[:, number]).cast(kind) for number, name in enumerate(LABELS[task])
    }
    return pa.table(columns)


def prepared(folder, task, *, labelled=None, **options):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(task, **options), folder / "rows.parquet")
    config = TransferSetConfig.model_validate(
        {
            "source": {"kind": "parquet", "path": str(folder / "rows.parquet")},
            "inputs": [f"x{number}" for number in range(FEATURES)],
            "label": LABELS[task],
            "labelled": labelled,
            "task": task,
        }
    )
    return prepare(config, folder / "prepared")


def said_by_a_teacher(transfer_set, segment, *, seed=0, noise=0.3, factor=1.0):
    """f32 `[rows, width]`: the truth with noise; numbers in the units of the label."""
    task = transfer_set.space.task
    features = transfer_set.inputs(segment)["features"].astype(np.float64)
    said = truth(task, features) * factor
    drawn = np.random.default_rng(seed).standard_normal(said.shape)
    return (said + noise * said.std(0) * drawn).astype(np.float32)


def make_store(folder, transfer_set, *, split="train", name="wide", order=None, **options):
    """A store of what such a teacher says of a split; `order`: its own order of names, or some of them."""
    (segment,) = transfer_set.of(split)
    space = transfer_set.space
    names = tuple(order or space.names)
    said = said_by_a_teacher(transfer_set, segment, **options)[:, [space.names.index(each) for each in names]]
    spec = Spec(name, name, segment.name, segment.digest, "dense", names, segment.num_rows, 256, space.answer)
    store = SoftTargetStore.create(folder, spec)
    keys = transfer_set.keys(segment)
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {spec.named[0]: said[first : first + num]})
    store.seal()
    return folder
