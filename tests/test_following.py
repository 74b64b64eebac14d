"""A student that follows its teachers: it learns from what is labelled while they go on labelling."""

import json
import math
import threading
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from students.data.passes import PACE, PASSES
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.errors import StoreError
from teachers.rows.rows import map_columns
from teachers.soft_targets.store import SoftTargetStore
from tests.rank_runs import on_ranks
from tests.training_runs import make_run, make_store, outputs, source
from tests.warm import process

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH, EPOCHS = 32, 4


class Labels:
    """A store that is whole, and a copy of it that is filled shard by shard."""

    def __init__(self, folder, transfer_set, **options):
        self.whole = SoftTargetStore.open(make_store(folder / "whole", transfer_set, **options))
        self.store = SoftTargetStore.create(folder / "growing", self.whole.spec)
        self.transfer_set = transfer_set

    def commit(self, *numbers):
        for number in numbers:
            part = map_columns(self.whole.shard_file(number))
            said = {name: torch.from_numpy(part[name].copy()) for name in self.whole.spec.fields}
            fields = {name.rpartition(".")[2]: value for name, value in said.items()}
            answered = self.whole.spec.answered
            logits = answered.encodes.decode(fields, answered.width, 1e-3)
            self.store.commit(number, part["sample_key"], {"logits": logits.numpy()})

    def commit_slowly(self, pause_s=0.3):
        def work():
            for number in range(self.store.num_shards):
                time.sleep(pause_s)
                self.commit(number)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def source(self, name="wide"):
        return source(self.store.folder, name)


def following(folder, transfer_set, *labels, **options):
    rows = sum(segment.num_rows for segment in transfer_set.of("train"))
    sources = [each.source(name) for each, name in zip(labels, ("wide", "deep"), strict=False)]
    given = {"steps": EPOCHS * (rows // BATCH), "batch_size": BATCH, **options}
    return replace(make_run(folder, transfer_set, *sources, **given), follow=True)


def numbered(run):
    """A training whose batches say which rows they are of, and the generator of its batches."""
    session = PlainSession()
    training = Training(run, session, SharedData().of([run], session)[0])
    training.data.rows.columns["number"] = torch.arange(len(training.data.rows.labelled))
    return training, training.batches()


def drawn(batches, steps):
    return [next(batches)["number"].numpy().copy() for _ in range(steps)]


@pytest.mark.parametrize("rule", ["mean_probability", "tests.training_runs:own_mean"])
def test_no_row_is_drawn_before_all_of_its_teachers_have_labelled_it_and_each_once_before_any_twice(
    digits, tmp_path, rule
):
    wide, deep = Labels(tmp_path / "wide", digits), Labels(tmp_path / "deep", digits, seed=1)
    term = {"loss": "soft", "combine": rule}
    training, batches = numbered(following(tmp_path, digits, wide, deep, objective=[term]))
    rows = len(training.data.rows.labelled)
    wide.commit(0, 1, 3)
    deep.commit(1, 2, 3, 4)
    both = {*range(256, 512), *range(768, 1024)}
    first = np.concatenate(drawn(batches, 512 // BATCH))
    assert {*first.tolist()} == both and len(first) == len(both)
    assert {*np.concatenate(drawn(batches, 3)).tolist()} <= both  # again, for nothing else is there
    wide.commit(2, 4)
    deep.commit(0)
    time.sleep(1)
    seen = np.concatenate(drawn(batches, rows // BATCH + 20))
    assert {*seen.tolist()} >= {*range(rows // BATCH * BATCH)} - both


def test_steps_on_rows_that_were_drawn_keep_the_pace_of_the_labels(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    run = following(tmp_path, digits, labels)
    training, batches = numbered(run)
    thread = labels.commit_slowly()
    taken = []
    while not (rows := training.data.rows.following).is_whole:
        next(batches)
        taken.append((len(taken) + 1, rows.share))
    thread.join()
    for step, share in taken:
        assert step <= max(PACE * share * run.train.steps, share * len(training.data.rows.labelled) / BATCH)


def test_batches_have_their_share_of_labelled_rows_from_the_first_labels_on(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    labels.commit(1)
    training, batches = numbered(following(tmp_path, digits, labels, labelled_fraction=0.25, steps=400))
    for rows in drawn(batches, 20):
        assert training.data.rows.labelled[rows].sum() == 8 and {*rows.tolist()} <= {*range(256, 512)}


def test_who_finds_all_labels_there_draws_as_any_other(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    labels.commit(*range(labels.store.num_shards))
    run = following(tmp_path, digits, labels)
    follows, sealed = (drawn(numbered(each)[1], 100) for each in (run, replace(run, follow=False)))
    assert all(np.array_equal(*each) for each in zip(follows, sealed, strict=True))


def test_a_resumed_follower_draws_what_it_would_have_drawn(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    run = following(tmp_path, digits, labels)
    labels.commit(0, 1)
    training, batches = numbered(run)
    for _ in range(10):
        training.advance(next(batches))
    training.save()
    expected = drawn(batches, 6)
    labels.commit(2, 3, 4)
    resumed, _ = numbered(run)
    resumed.resume()
    assert resumed.progress.step == 10
    assert all(np.array_equal(*each) for each in zip(drawn(resumed.batches(), 6), expected, strict=True))


def learn(run):
    """In a process of its own, to be killed."""
    torch.set_num_threads(1)
    fit([run], PlainSession(), checkpoint_every_s=0.3)


def checkpoints(run):
    return sorted(path.parent for path in run.folder.glob("attempts/*/*/SEAL.json"))


def begun(run):
    session = PlainSession()
    run.folder.mkdir(parents=True, exist_ok=True)
    return Training(run, session, SharedData().of([run], session)[0])


def test_who_waits_for_labels_has_a_checkpoint_of_its_last_step_and_killed_then_ends_like_an_undisturbed_one(
    digits, tmp_path
):
    labels = Labels(tmp_path, digits)
    labels.commit(0, 1, 2, 3)
    calm, run = (following(tmp_path / name, digits, labels, evaluate_every=50) for name in ("calm", "killed"))
    undisturbed = begun(calm)
    rows = len(undisturbed.data.rows.labelled)
    waits_at = int(PACE * run.train.steps * 4 * 256 / rows)
    for batch in islice(undisturbed.batches(), waits_at):
        undisturbed.advance(batch)
        if undisturbed.progress.step % 50 == 0:
            undisturbed.look()
    killed, end = process(learn, run), time.monotonic() + 300
    killed.start()
    while not (found := checkpoints(run)) or found[-1].name != f"step-{waits_at:06d}":
        assert killed.is_alive() and time.monotonic() < end, found
        time.sleep(0.05)
    time.sleep(1)
    assert killed.is_alive() and checkpoints(run) == found  # once: nothing has changed since
    killed.kill()
    killed.join()
    labels.commit(4)
    resumed = begun(run)
    resumed.resume()
    assert resumed.progress.step == waits_at and checkpoints(calm) == []
    for each in (resumed, undisturbed):
        each.train(math.inf)
        each.finish()
    assert outputs(run) == outputs(calm)
    assert (run.folder / PASSES).read_bytes() == (calm.folder / PASSES).read_bytes()


def test_a_follower_ends_sealed_with_its_passes_and_learns(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    thread = labels.commit_slowly()
    run = following(tmp_path, digits, labels)
    (result,) = fit([run], PlainSession())
    thread.join()
    passes = json.loads((run.folder / "passes.json").read_bytes())["passes"]
    assert result.steps == run.train.steps and result.validation["accuracy"] > 0.8
    assert [each["step"] for each in passes] == sorted(each["step"] for each in passes) and len(passes) > 1


def test_a_damaged_shard_is_refused_and_not_learnt_from(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    labels.commit(0)
    (file,) = (labels.store.folder / "shards").iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"xxh3_128 .* run the recipe again"):
        fit([following(tmp_path, digits, labels)], PlainSession())


def test_labels_of_other_rows_are_refused(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    part = map_columns(labels.whole.shard_file(0))
    labels.store.commit(0, part["sample_key"] + 1, {"logits": np.zeros((256, 10), np.float32)})
    with pytest.raises(StoreError, match="holds other rows than its segment"):
        fit([following(tmp_path, digits, labels)], PlainSession())


def test_ranks_agree_on_the_rows_that_are_there_and_none_waits_for_ever(digits, tmp_path):
    labels = Labels(tmp_path, digits)
    thread = labels.commit_slowly(0.5)
    run = following(tmp_path, digits, labels, steps=100)
    on_ranks(tmp_path / "two", [run], 2, checkpoint_every_s=0.1)
    thread.join()
    assert json.loads((run.folder / "result.json").read_bytes())["steps"] == 100
