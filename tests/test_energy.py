"""Unlabelled rows that a teacher finds unlike those that it knows: dropped, or weighed less, by the energy of its logits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import logsumexp

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.energy import about_energy
from orchestrator.stages import keys
from orchestrator.stages.trainings import training_stages
from students.config.energy import Energy
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.measuring.energy import by_energy
from students.measuring.hearing import hear
from students.measuring.labelled import Labelled
from students.objective.asks import COUNTS
from students.objective.energy import Reference, energies, weights_of
from students.runs.run import Run, Source
from students.runs.session import PlainSession
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from tests.training_runs import HARD, SOFT, make_run, outputs

SHARE = 0.9
ALL = Energy(quantile=SHARE, of="all")
FOREIGN = 60


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    """Digits, of which 100 have a label, and noise beside them."""
    folder = tmp_path_factory.mktemp("digits")
    np.savez(folder / "noise.npz", image=np.random.default_rng(0).integers(0, 17, (FOREIGN, 8, 8, 1), np.uint8))
    source = {"kind": "sklearn", "name": "digits"}
    more = {"extra": {"kind": "numpy", "path": str(folder / "noise.npz")}, "labelled": 100}
    config = TransferSetConfig.model_validate({"source": source, "inputs": "image", "label": "digit", **more})
    return prepare(config, folder / "rows")


def said_of(transfer_set: TransferSet, name: str, *, sure: bool = True) -> np.ndarray:
    """Logits that are large where the teacher knows the row: of digits; of a tenth of these and of noise they are small."""
    segment = transfer_set.segment(name)
    random = np.random.default_rng(len(name) + segment.num_rows)
    logits = random.normal(size=(segment.num_rows, 10)).astype(np.float32)
    labels = transfer_set.labels(segment)
    known = np.flatnonzero(labels >= 0)
    logits[known, labels[known]] += 10
    if sure:
        return logits
    return logits - logsumexp(logits, 1, keepdims=True).astype(np.float32)


def stored(folder: Path, transfer_set: TransferSet, *, sure: bool = True) -> Source:
    stores = {}
    for segment in transfer_set.segments:
        classes, number = tuple(transfer_set.classes), segment.num_rows
        spec = Spec("wide", "digest", segment.name, segment.digest, "dense", classes, number, 256)
        store = SoftTargetStore.create(folder / segment.name, spec)
        logits, keys_ = said_of(transfer_set, segment.name, sure=sure), transfer_set.keys(segment)
        for shard in range(store.num_shards):
            first, num = store.shard_rows(shard)
            store.commit(shard, keys_[first : first + num], {"logits": logits[first : first + num]})
        store.seal()
        stores[segment.name] = store.folder
    return Source("wide", stores)


@pytest.fixture(scope="module")
def wide(rows: TransferSet, tmp_path_factory: pytest.TempPathFactory) -> Source:
    return stored(tmp_path_factory.mktemp("store"), rows)


def run_of(folder: Path, rows: TransferSet, source: Source, energy: Energy | None, **more: Any) -> Run:
    return replace(make_run(folder, rows, source, **more), energy=energy)


def test_the_energy_is_minus_log_sum_exp_of_the_logits(rows: TransferSet, wide: Source) -> None:
    """The oracle: SciPy's, of what the store was given; float16 keeps a logit to its last digits."""
    for segment in rows.segments:
        np.testing.assert_allclose(energies(wide, rows, segment), -logsumexp(said_of(rows, segment.name), 1), atol=1e-2)


def test_the_threshold_is_the_quantile_of_validation_rows(rows: TransferSet, wide: Source) -> None:
    there = energies(wide, rows, rows.of("validation")[0])
    found = Reference.of(wide, rows, SHARE)
    assert found.threshold == np.quantile(there, SHARE, method="higher")
    assert 1 - SHARE - 1 / len(there) <= found.is_beyond(there).mean() <= 1 - SHARE
    assert not found.is_beyond(np.array([np.nan], np.float32)).any()


def test_weights_fall_from_one_and_never_reach_nothing(rows: TransferSet, wide: Source) -> None:
    found = Reference.of(wide, rows, SHARE)
    grid = np.linspace(found.energies[0] - 1, found.energies[-1] + 5, 500).astype(np.float32)
    weights = found.weights(grid)
    assert (np.diff(weights) <= 0).all() and weights[0] == 1 and weights.min() > 0
    assert (weights[grid <= found.threshold] == 1).all()
    above = found.energies[found.energies > found.threshold]
    assert weights[-1] == np.float32(1 / (1 + len(above)))
    assert found.weights(above[-1:])[0] == np.float32(2 / (1 + len(above)))


def test_dropped_rows_are_never_drawn_and_labelled_ones_stay(rows: TransferSet, wide: Source, tmp_path: Path) -> None:
    run = run_of(tmp_path, rows, wide, ALL)
    (data,) = SharedData().of([run], PlainSession("cpu"))
    train = MergedSplit(rows, "train")
    counts = weights_of(ALL, wide, train, train.labelled())
    assert {*np.unique(counts)} == {0.0, 1.0} and (counts[train.labelled()] == 1).all()
    assert len(data.rows.labelled) == int(counts.sum()) and int(data.rows.labelled.sum()) == 100
    noise = np.isin(train.keys(), rows.keys(rows.segment("extra-0")))
    assert (counts[noise] == 0).all()
    assert 0.05 < 1 - counts[~noise & ~train.labelled()].mean() < 0.15
    kept = train.labels()[counts > 0]
    mine = data.rows.columns["label"]
    assert torch.equal(torch.as_tensor(mine), torch.from_numpy(kept.clip(min=0).astype(np.int64)))


def test_unless_a_recipe_says_so_the_sources_own_rows_stay(rows: TransferSet, wide: Source) -> None:
    train = MergedSplit(rows, "train")
    counts = weights_of(Energy(quantile=SHARE), wide, train, train.labelled())
    noise = np.isin(train.keys(), rows.keys(rows.segment("extra-0")))
    assert np.array_equal(counts == 0, noise)
    found = by_energy(
        Energy(quantile=SHARE), {"wide": wide}, Labelled.of(rows, "test"), hear(Labelled.of(rows, "test"), [wide])
    )
    assert found["training"] == {"extra": {"rows": FOREIGN, "beyond": FOREIGN}}


@pytest.mark.usefixtures("one_thread")
def test_a_training_without_the_rows_is_the_one_that_drops_them(
    rows: TransferSet, wide: Source, tmp_path: Path
) -> None:
    """Of a quantile that leaves nothing out nothing changes; else another network is learnt, by as many steps."""
    runs = {
        name: run_of(tmp_path / name, rows, wide, energy)
        for name, energy in {"all": None, "none": Energy(quantile=1e-9, of="all"), "drop": ALL}.items()
    }
    for name in ("all", "drop"):
        fit([runs[name]], PlainSession("cpu"))
    assert outputs(runs["all"])["model.safetensors"] != outputs(runs["drop"])["model.safetensors"]
    steps = [json.loads((runs[name].folder / "result.json").read_bytes())["steps"] for name in ("all", "drop")]
    assert steps[0] == steps[1]
    (data,) = SharedData().of([runs["none"]], PlainSession("cpu"))
    assert len(data.rows.labelled) < MergedSplit(rows, "train").num_rows / 4


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("combine", ["mean_probability", "gradient"])
def test_weighed_rows_count_so_much_in_what_teachers_say(
    rows: TransferSet, wide: Source, tmp_path: Path, combine: str
) -> None:
    other = replace(wide, name="deep")
    soft = {**SOFT, "combine": combine}
    run = replace(
        make_run(tmp_path, rows, wide, other, objective=[soft, HARD]),
        energy=Energy(teacher="wide", rows="weigh", of="all"),
    )
    (data,) = SharedData().of([run], PlainSession("cpu"))
    train = MergedSplit(rows, "train")
    counts = weights_of(Energy(rows="weigh", of="all"), wide, train, train.labelled())
    assert np.array_equal(np.asarray(data.rows.columns[COUNTS]), counts) and 0 < counts.min() < 0.2
    batch = {
        name: torch.as_tensor(np.asarray(column[:64] if isinstance(column, torch.Tensor) else _first(column)))
        for name, column in data.rows.columns.items()
    }
    asked = data.rows.objective.terms[0].ask(batch)
    assert asked.weight is not None and torch.equal(asked.weight, torch.from_numpy(counts[:64]))
    labels = data.rows.objective.terms[1].ask(batch)
    assert labels.weight is not None and {*labels.weight.tolist()} <= {0.0, 1.0}
    run.stage.mkdir(parents=True, exist_ok=True)
    fit([run], PlainSession("cpu"))


def _first(column: Any) -> torch.Tensor:
    out = torch.empty((64, *column.shape), dtype=column.dtype)
    column.copy(0, out)
    return out


def test_the_report_says_how_many_and_what_teachers_are_worth_on_both_sides(rows: TransferSet, wide: Source) -> None:
    labelled = Labelled.of(rows, "test")
    found = by_energy(ALL, {"wide": wide}, labelled, hear(labelled, [wide]))
    assert found["training"]["extra"] == {"rows": FOREIGN, "beyond": FOREIGN}
    assert found["training"]["train"]["rows"] == rows.of("train")[0].num_rows - 100
    beyond = Reference.of(wide, rows, SHARE).is_beyond(energies(wide, rows, rows.of("test")[0]))
    right = said_of(rows, "test-0").argmax(1) == labelled.labels.numpy()
    for where, mask in {"below": ~beyond, "above": beyond}.items():
        assert found["tested"][where]["rows"] == mask.sum()
        assert found["tested"][where]["teachers"]["wide"] == pytest.approx(right[mask].mean())
    first, second = about_energy({"task": "classification", "students": ["small"]}, {"small": {"energy": found}})
    assert f"{FOREIGN} of {FOREIGN} rows of `transfer_set.extra`" in first and "left out" in first
    assert f"{int(beyond.sum())} above" in second and "accuracy there: wide" in second


def test_log_probabilities_have_no_energy(rows: TransferSet, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"every row has the energy 0 by teacher 'wide'") as error:
        Reference.of(stored(tmp_path, rows, sure=False), rows, SHARE)
    assert "\n" not in str(error.value)


def digits_recipe(energy: Any, **changes: Any) -> dict[str, Any]:
    document = load_recipe(find("digits"), []).model_dump(mode="json", exclude_defaults=True)
    document["students"]["small"]["energy"] = {"of": "all", **energy}
    for name, value in changes.items():
        teacher, key = name.split("__")
        document["teachers"][teacher][key] = value
    return document


@pytest.mark.parametrize(
    ("energy", "changes", "told"),
    [
        ({"teacher": "trees"}, {}, "energy.teacher: 'trees' says probabilities only, and these have no energy"),
        ({"teacher": "wide"}, {"wide__mode": "live"}, "energy.teacher: 'wide' is live"),
        ({"teacher": "nobody"}, {}, "energy.teacher is 'nobody', which is not among the teachers"),
        ({}, {}, "energy.teacher: there are 3 teachers; name the one"),
        ({"teacher": "wide", "quantile": 1}, {}, "quantile"),
        ({"teacher": "wide", "rows": "hide"}, {}, "rows"),
        (
            {"teacher": "wide", "of": "beside"},
            {},
            "energy: judges rows of `transfer_set.extra` and `munge`, and there are none",
        ),
    ],
)
def test_what_has_no_energy_is_refused_in_one_line(energy: Any, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe.from_dict(digits_recipe(energy, **changes))
    assert told in str(error.value) and "\n" not in str(error.value)


def test_stores_of_classes_and_other_tasks_are_refused() -> None:
    document = digits_recipe({"teacher": "wide"}, wide__encoding="label")
    document["students"]["small"]["objective"] = [{"loss": "teacher_label"}, HARD]
    with pytest.raises(RecipeError, match=r"the store of 'wide' keeps the class only"):
        Recipe.from_dict(document)
    prices = load_recipe(find("prices"), []).model_dump(mode="json", exclude_defaults=True)
    prices["students"]["small"]["energy"] = {"teacher": "wide"}
    with pytest.raises(RecipeError, match=r"students\.small\.energy: is of one class of many a row"):
        Recipe.from_dict(prices)
    with pytest.raises(ValidationError):
        Energy.model_validate({"threshold": 1})


def test_keys_stay_without_energy_and_the_control_s_with_it() -> None:
    plain, other = load_recipe(find("digits"), []), Recipe.from_dict(digits_recipe({"teacher": "wide"}))
    labels = dict.fromkeys(("wide", "deep", "trees"), "a")
    before, after = (training_stages(each, "small", "p", labels) for each in (plain, other))
    assert before["control", 0].key == after["control", 0].key and before["student", 0].key != after["student", 0].key
    assert "energy" not in before["student", 0].config
    assert after["student", 0].config["energy"]["teacher"] == plain.students["small"].teachers.index("wide")
    assert "energy" not in keys.evaluate_stage(plain, "small", "p", "s", labels).config
    assert keys.evaluate_stage(other, "small", "p", "s", labels).config["energy"]["rows"] == "drop"
