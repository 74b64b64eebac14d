"""Runs to train in tests: tiny networks, and stores of teachers that know the labels roughly.

As a script it trains one run in a process of its own, to be killed: TRANSFER_SET STORE OUT [DEVICE].
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from students.config.terms import Term
from students.fitting.fit import fit
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from teachers.config.preprocess import Preprocess
from teachers.config.training import TrainConfig
from teachers.soft_targets.combine.rules import COMBINE
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.transfer_set import TransferSet

TERM = TypeAdapter(Term)
SOFT = {"loss": "soft", "weight": 0.9}
HARD = {"loss": "hard", "weight": 0.1}


class Leaky(torch.nn.Sequential):
    """A student that draws random numbers while it trains."""

    def __init__(self, num_classes, input_shape):
        width = int(np.prod(input_shape))
        layers = [torch.nn.Flatten(), torch.nn.Linear(width, 32), torch.nn.ReLU(), torch.nn.Dropout(0.3)]
        super().__init__(*layers, torch.nn.Linear(32, num_classes))


class WithASpareHead(torch.nn.Sequential):
    """A head that the forward does not use, as a network for pretraining has."""

    def __init__(self, num_classes, input_shape):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(input_shape)), num_classes))
        self.spare = torch.nn.Linear(3, 7)

    def forward(self, inputs):
        return self[1](self[0](inputs))


def make_store(folder, transfer_set, *, name="wide", encoding="dense", seed=0, classes=None, noise=1.0):
    """What a teacher that knows the true class, with noise, says of the training rows; `classes` orders its columns."""
    (segment,) = transfer_set.of("train")
    classes = classes or transfer_set.classes
    spec = Spec(name, f"digest-{seed}", segment.name, segment.digest, encoding, tuple(classes), segment.num_rows, 256)
    store = SoftTargetStore.create(folder, spec)
    truth = true_labels(transfer_set, segment)
    column = np.array([classes.index(c) if c in classes else -1 for c in transfer_set.classes])[truth]
    logits = noise * np.random.default_rng(seed).standard_normal((segment.num_rows, len(classes))).astype(np.float32)
    rows = np.flatnonzero(column >= 0)
    logits[rows, column[rows]] += 4
    keys = transfer_set.keys(segment)
    for number in range(store.num_shards):
        first, num = store.shard_rows(number)
        store.commit(number, keys[first : first + num], {"logits": logits[first : first + num]})
    store.seal()
    return folder


def true_labels(transfer_set, segment):
    """Of every row: `labelled: N` only says whose label may be used."""
    labels = transfer_set.labels(segment)
    assert (labels >= 0).all()
    return labels


def make_run(
    folder,
    transfer_set,
    *sources,
    objective=(SOFT, HARD),
    seed=0,
    labelled_only=False,
    model=None,
    name="student",
    **train,
):
    arguments = {} if model else {"hidden": 16}
    return Run(
        name=f"{name}/seed-{seed}",
        folder=folder / name / f"seed-{seed}",
        stage=folder,
        stage_name="distill/small",
        model=model or "students.models:mlp",
        arguments=arguments,
        preprocess=Preprocess(),
        objective=tuple(TERM.validate_python(term) for term in objective),
        train=TrainConfig(**({"steps": 40, "batch_size": 32} | train)),
        seed=seed,
        transfer_set=transfer_set.folder,
        sources=tuple(sources),
        labelled_only=labelled_only,
        user_path=Path(__file__).parent,
    )


def source(store, name="wide", **options):
    return Source(name=name, stores={"train-0": store}, **options)


def outputs(run):
    """The bytes of everything that a sealed run consists of."""
    return {name: (run.folder / name).read_bytes() for name in ("config.json", "model.safetensors", "result.json")}


def run_to_kill(folder, transfer_set, store):
    """Long enough to be killed in the middle; with dropout, augmentation, momentum and early stopping."""
    return make_run(
        folder,
        transfer_set,
        source(store),
        model="training_runs:Leaky",
        steps=1500,
        evaluate_every=20,
        early_stopping={"patience": 100},
        augment="affine",
    )


def jittered(inputs, generator):
    """An augmentation of the user's, which draws for many rows at once."""
    return inputs + torch.rand(inputs.shape, generator=generator)


def own_mean(logits, *, temperature, known, labels=None):
    """A rule of the user's, so it is asked in every step."""
    assert len(labels) == logits.shape[1]
    return COMBINE["class_axis"]["mean_probability"](logits, temperature=temperature, known=known)


def combine_alone(logits, *, temperature, known, labels=None):
    return logits.mean(0)


def combine_transposed(logits, *, temperature, known, labels=None):
    target, weights = COMBINE["class_axis"]["mean_probability"](logits, temperature=temperature, known=known)
    return target.T, weights


def combine_whole_numbers(logits, *, temperature, known, labels=None):
    return logits[0], torch.ones(logits.shape[:2], dtype=torch.int64)


def combine_minus_infinity(logits, *, temperature, known, labels=None):
    target, weights = COMBINE["class_axis"]["mean_probability"](logits, temperature=temperature, known=known)
    return target.masked_fill(target < target.amax(-1, keepdim=True), -torch.inf), weights


def combine_unnormalised(logits, *, temperature, known, labels=None):
    return logits.mean(0), torch.ones(logits.shape[:2])


def combine_beyond(logits, *, temperature, known, labels=None):
    return 2 * logits[0] - logits[1], torch.tensor([2.0, -1.0])[:, None].expand(logits.shape[:2])


def combine_first_rows(logits, *, temperature, known, labels=None, calls=[0]):  # noqa: B006 (it counts)
    calls[0] += 1
    weights = torch.zeros(logits.shape[:2])
    weights[0, :5] = 1 if calls[0] == 1 else 7
    return logits[0], weights


def own_loss(student, target, *, temperature, factor):
    return factor * (student / temperature - target / temperature).square().mean(-1)


def nan_from_step_3(student, target, *, temperature, counter=[0]):  # noqa: B006 (it counts)
    counter[0] += 1
    return student.sum(-1) * (math.nan if counter[0] >= 3 else 1)


def mean_loss(student, target, *, temperature):
    return (student - target).square().mean()


if __name__ == "__main__":
    torch.set_num_threads(1)
    prepared, store, out = map(Path, sys.argv[1:4])
    fit([run_to_kill(out, TransferSet.open(prepared), store)], PlainSession(*sys.argv[4:]), checkpoint_every_s=0)
