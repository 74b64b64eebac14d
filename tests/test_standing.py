"""A teacher is judged before anybody learns from it: beside the commonest answer, beside the others, on rows it has not seen."""

import json
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from orchestrator.building.context import Taught
from orchestrator.building.judge import missed, standings_of, to_judge
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.reporting.standing import told
from orchestrator.running.run import run, smoke
from orchestrator.stages import keys
from orchestrator.stages.stages import Built, Stage
from orchestrator.stages.trainings import training_stages
from students.measuring.standing import far_below, judge
from students.runs.run import Source
from students.tasks.figure import headline
from students.tasks.standing import binomial
from students.tasks.tasks import TASKS
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import GateMissed
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.storage.seal import Seal
from teachers.tasks.space import Space
from teachers.transfer_set.transfer_set import TransferSet
from tests.test_budgets import digits_config
from tests.test_pipeline import QUICK, actions

HEADLINE = headline("classification")

# ---- the numbers


def tail(right: int, rows: int, share: Fraction) -> Fraction:
    """P(at least `right` of `rows`), to the last digit."""
    return sum((comb(rows, k) * share**k * (1 - share) ** (rows - k) for k in range(right, rows + 1)), Fraction(0))


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.data())
def test_a_teacher_is_better_when_chance_gives_the_commonest_answer_as_much_in_less_than_5_percent(
    rows: int, data: st.DataObject
) -> None:
    right, commonest = data.draw(st.integers(0, rows)), data.draw(st.integers(1, rows))
    found = binomial(right, rows, commonest)
    p_value = float(tail(right, rows, Fraction(commonest, rows)))
    assert found["p_value"] == pytest.approx(p_value, rel=1e-6, abs=1e-12)
    if abs(p_value - 0.05) > 1e-9:
        assert (found["stands"] == "better") == (p_value < 0.05)
    never = float(tail(rows, rows, Fraction(commonest, rows)))
    assert (found["stands"] == "open") == (never >= 0.05), "open when a teacher that is always right could not show it"
    for end, more in (("low", right), ("high", rows - right)):  # Clopper and Pearson: 2.5 % at each end
        if more:
            share = Fraction(found[end]) if end == "low" else 1 - Fraction(found[end])
            assert float(tail(more, rows, share)) == pytest.approx(0.025, abs=1e-6)


def test_the_interval_ends_where_accuracies_end() -> None:
    assert binomial(0, 20, 5)["low"] == 0 and binomial(20, 20, 5)["high"] == 1


def test_a_dead_teacher_is_called_better_in_at_most_5_percent_of_cases() -> None:
    right = np.random.default_rng(0).binomial(180, 20 / 180, size=2000)
    assert np.mean([binomial(int(k), 180, 20)["stands"] == "better" for k in right]) <= 0.05


def test_far_below_is_20_points_between_intervals_not_between_means() -> None:
    right = {"best": 900, "near": 680, "far": 600}
    assert far_below(HEADLINE, {name: stands(k, 1000, 100) for name, k in right.items()}) == ("best", ["far"])
    assert far_below(HEADLINE, {name: stands(k // 20, 50, 5) for name, k in right.items()}) == ("best", [])


def stands(right: int, rows: int, commonest: int) -> dict[str, Any]:
    return binomial(right, rows, commonest) | {"scale": 1.0, "figures": {"accuracy": right / rows}}


# ---- what stores say


def make_source(folder: Path, data: TransferSet, name: str, *, skill: float, classes: str = "", split: Any = "validation", **options: Any) -> Source:  # fmt: skip
    """A teacher of `classes` whose score of the true class is `skill` above noise."""
    (segment,) = data.of(split)
    own = tuple(classes or data.classes)
    spec = Spec(name, "digest", segment.name, segment.digest, "dense", own, segment.num_rows, 4096)
    store = SoftTargetStore.create(folder / name, spec)
    logits = np.random.default_rng(len(name)).normal(size=(segment.num_rows, len(own))).astype(np.float32)
    softmax = options.pop("softmax", False)
    for row, label in enumerate(data.labels(segment)):
        if data.classes[label] in own:
            logits[row, own.index(data.classes[label])] += skill
    if softmax:
        logits = scipy.special.softmax(logits, 1)
    for number in range(store.num_shards):
        first, num_rows = store.shard_rows(number)
        store.commit(number, data.keys(segment)[first : first + num_rows], {"logits": logits[first : first + num_rows]})
    store.seal()

    return Source(name=name, stores={segment.name: folder / name}, **options)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> TransferSet:
    return prepare(digits_config(labelled={"train": 100, "validation": 60}), tmp_path_factory.mktemp("few"))


def test_teachers_are_judged_on_usable_validation_labels_and_the_ensemble_without_the_worst(
    few: TransferSet, tmp_path: Path
) -> None:
    skills = {"dead": 0.0, "good": 4.0, "better": 6.0}
    sources = [make_source(tmp_path, few, name, skill=skill) for name, skill in skills.items()]
    document = judge(few.folder, sources, "validation")
    json.dumps(document, allow_nan=False)
    (segment,) = few.of("validation")
    rows, labels = few.labelled(segment), few.labels(segment)
    p = {s.name: scipy.special.softmax(SoftTargets.open(s.stores[segment.name]).said().double().numpy(), 1) for s in sources}  # fmt: skip

    def right(names: list[str]) -> float:
        return float((np.mean([p[name] for name in names], axis=0).argmax(1) == labels)[rows].mean())

    found = standings_of(document)
    assert {name: each["accuracy"] for name, each in found.items()} == {name: right([name]) for name in skills}
    assert {each["rows"] for each in found.values()} == {60}
    assert found["dead"]["share"] == np.bincount(labels[rows]).max() / 60
    assert [found[name]["stands"] for name in skills] == ["no better", "better", "better"]
    far = found["dead"]["far_below"]
    assert far["together"] == pytest.approx(right(["dead", "good", "better"]))
    assert far["without"] == pytest.approx(right(["good", "better"]))
    assert found["good"]["far_below"] is None
    lines = [*told(HEADLINE, found)]
    assert any(line.startswith(f"Teacher dead is far below {far['best']}") and "without dead" in line for line in lines)


def test_a_teacher_of_some_classes_is_judged_on_the_rows_of_these(few: TransferSet, tmp_path: Path) -> None:
    sources = [
        make_source(tmp_path, few, "expert", skill=6.0, classes="34", class_map={}),
        make_source(tmp_path, few, "one", skill=6.0, classes="7", class_map={}),
        make_source(tmp_path, few, "whole", skill=6.0),
    ]
    found = standings_of(judge(few.folder, sources, "validation"))
    (segment,) = few.of("validation")
    usable = few.usable_labels(segment)
    assert found["expert"]["rows"] == np.isin(usable, [3, 4]).sum() < 60
    assert found["expert"]["stands"] == "better" and found["expert"]["accuracy"] > 0.9
    assert found["one"]["stands"] == "open"
    assert any("are of one class, '7'" in line for line in told(HEADLINE, found))


def test_probabilities_that_are_called_logits_are_told(few: TransferSet, tmp_path: Path) -> None:
    sources = [make_source(tmp_path, few, name, skill=6.0, softmax=name == "softened") for name in ("raw", "softened")]
    found = standings_of(judge(few.folder, sources, "validation"))
    assert [name for name in found if found[name]["like_probabilities"]] == ["softened"]
    assert any(
        "softened gives logits that are 0 to 1 and sum to 1 in every row" in line for line in told(HEADLINE, found)
    )


# ---- who is judged, and what is asked of whom


def a_set(folder: Path, validation: bool) -> TransferSet:
    """Three files; the validation rows have labels or not."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for name in ("train", "validation", "test"):
        label = random.integers(0, 2, 50).tolist()
        labels = label if validation or name != "validation" else [None] * 50
        pq.write_table(pa.table({"x": random.normal(size=50), "y": pa.array(labels, pa.int64())}), folder / f"{name}.parquet")  # fmt: skip
    files = {name: f"{name}.parquet" for name in ("train", "validation", "test")}
    source = {"kind": "parquet", "path": str(folder)}
    document = {"source": source, "inputs": ["x"], "label": "y", "split": {"files": files}}
    return prepare(TransferSetConfig.model_validate(document), folder / "prepared")


def built(data: TransferSet) -> Built:
    return Built(Stage("prepare", "transfer_set", {}, {}), data.folder, Seal((), ""), True, "", 0.0)


OTHERS = (
    "teachers={mine: {kind: callable, function: 'a:b', output: logits}, "
    "live: {kind: callable, function: 'a:b', output: logits, mode: live}, "
    "forest: {kind: sklearn, model: 'sklearn.ensemble:ExtraTreesClassifier'}}"
)
STUDENTS = [
    "students.small.teachers=[mine, live, forest]",
    "students.late={model: 'students.models:mlp', teachers: [small]}",
]


def test_without_validation_labels_a_teacher_is_judged_on_training_rows_that_it_did_not_see(tmp_path: Path) -> None:
    recipe = load_recipe(find("digits"), [OTHERS, *STUDENTS])
    taught = {name: Taught(name, recipe.teachers[name]) for name in recipe.teachers}
    taught["live"].live = {"train-0": "key"}
    taught["small"] = Taught("small", keys.assistant_as_teacher(recipe, "small", "x"))
    assert to_judge(recipe, built(a_set(tmp_path / "with", True)), taught) == ("validation", [*taught], {})
    split, heard, why = to_judge(recipe, built(a_set(tmp_path / "without", False)), taught)
    assert (split, heard, set(why)) == ("train", ["mine"], {"live", "forest", "small"})
    (line, other) = told(HEADLINE, why)
    assert "Teacher live is not judged" in line + other and "Teachers forest, small are not judged" in line + other


def digits(*overrides: str) -> Recipe:
    return load_recipe(find("digits"), [*QUICK, *overrides])


def found_of(right: int) -> dict[str, Any]:
    labels = torch.tensor([3] * 20 + [*range(10)] * 8)
    labels[20:][labels[20:] == 3] = 4  # 20 of 100 rows are of the commonest class
    said = torch.nn.functional.one_hot(torch.where(torch.arange(100) < right, labels, (labels + 1) % 10), 10).float()
    space = Space("classification", tuple("0123456789"))
    found = TASKS["classification"].standing(said, labels, torch.ones(10, dtype=torch.bool), labels, space)
    return {"split": "validation", **found, "far_below": None}


def test_a_bar_of_ones_own_is_raised_and_none_is_said_to_be_meant() -> None:
    alive, dead = {"wide": found_of(80)}, {"wide": found_of(15)}
    assert not [*missed(digits(), alive)]
    (line,) = missed(digits("teachers.wide.require={accuracy: 0.9}"), alive)
    assert line.startswith("teachers.wide: right on 80 of 100") and "require.accuracy is 0.9" in line
    (line,) = missed(digits(), dead)
    assert line.startswith("teachers.wide is no better than always answering '3': right on 15 of 100")
    assert "on 20.0%" in line and "p = 0.92" in line and "`teachers.wide.require: null`" in line
    assert not [*missed(digits("teachers.wide.require=null"), dead)]
    assert any("`require: null` says that this is meant" in line for line in told(HEADLINE, dead))
    (line,) = missed(digits("teachers.wide.require={accuracy: 0.5}"), {"wide": {"why": "no row has a label"}})
    assert "cannot be judged: no row has a label" in line
    assert not [*missed(digits(), {"wide": {"why": "no row has a label"}})]


def test_assistants_are_judged_as_teachers_are_unless_nothing_is_required() -> None:
    recipe = load_recipe(find("assistant"))
    (line,) = missed(recipe, {"assistant": found_of(15)})
    assert line.startswith("students.assistant is no better") and "`students.assistant.require: null`" in line
    assert not [
        *missed(load_recipe(find("assistant"), ["students.assistant.require=null"]), {"assistant": found_of(15)})
    ]


def test_what_is_required_decides_no_stage() -> None:
    plain, strict = digits(), digits("teachers.wide.require={accuracy: 0.9}", "students.small.require=null")
    for recipe in (plain, strict):
        assert "require" not in json.dumps(keys.train_teacher_stage(recipe, "wide", "x").document())
    label = [
        keys.label_stage(r.teachers["wide"], "wide", ("train-0", "x"), "w", ["0"], "s").key for r in (plain, strict)
    ]
    labels = dict.fromkeys(plain.students["small"].teachers, "l")
    trained = [training_stages(r, "small", "x", labels)["student", 0].key for r in (plain, strict)]
    judged = [keys.judge_stage(r, "teachers", "x", "validation", {"wide": "l"}).key for r in (plain, strict)]
    export = [keys.export_stage(r, "small", ["s"], "e").key for r in (plain, strict)]
    assert all(len(set(each)) == 1 for each in (label, trained, judged, export))


def test_a_smoke_run_requires_nothing_of_networks_that_it_hardly_trains() -> None:
    recipe = smoke(load_recipe(find("assistant")))
    assert not [*missed(recipe, {name: found_of(0) for name in ("wide", "trees", "assistant")})]


# ---- whole runs


def random_teacher(folder: Path) -> str:
    generator = torch.Generator().manual_seed(0)
    shapes = {"1.weight": (16, 64), "1.bias": (16,), "3.weight": (10, 16), "3.bias": (10,)}
    save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, folder / "random.safetensors")  # fmt: skip
    return f"teachers.wide={{kind: module, model: 'teachers.zoo:mlp', arguments: {{hidden: 16}}, weights: '{folder / 'random.safetensors'}', preprocess: {{normalise: auto}}"


@pytest.mark.campaign
def test_a_dead_teacher_ends_the_run_before_students_train_and_can_be_meant(ray_cluster: None, tmp_path: Path) -> None:
    out, dead = tmp_path / "out", random_teacher(tmp_path)
    with pytest.raises(GateMissed, match=r"^teachers\.wide is no better than always answering '\d': right on") as found:
        run(digits(dead + "}"), out)
    # controls, which hear nobody, may have begun
    assert found.value.exit_code == 3 and not list(out.glob("students/*/student/*"))
    assert any(stage.stage == "judge" and stage.action == "reuse" for stage in plan(digits(dead + "}"), out).stages)

    report = run(digits(dead + ", require: null}"), out).report
    assert actions(report)["judge/teachers"] == "reused" and actions(report)["label/wide/train-0"] == "reused"
    assert report["standings"]["wide"]["stands"] == "no better" and report["standings"]["trees"]["stands"] == "better"
    assert any(note.startswith("Teacher wide is far below") and "without wide" in note for note in report["notes"])
    page = next(out.glob("runs/*/report.html")).read_text()
    assert "Teacher wide is far below" in page


@pytest.mark.campaign
def test_a_dead_assistant_ends_the_run_before_those_whom_it_teaches(ray_cluster: None, tmp_path: Path) -> None:
    middle = (
        "students.middle={model: 'students.models:mlp', arguments: {hidden: 8}, teachers: [wide, trees], control: false, "
        "train: {steps: 1, learning_rate: 1.0e-9, seeds: [0]}}"
    )
    recipe = digits(middle, "students.small.teachers=[middle]", "students.small.control=false")
    with pytest.raises(GateMissed, match=r"^students\.middle is no better than always answering"):
        run(recipe, tmp_path)
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "students").iterdir()} == {"middle"}


def test_without_labels_nothing_is_judged_and_that_is_said(
    ray_cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine_of_sums.py").write_text(
        "import numpy as np\ndef teach(batch):\n    x = batch['image'].reshape(len(batch['image']), -1)\n"
        "    return np.stack([x[:, number] for number in range(10)], 1).astype(np.float32)\n"
    )
    recipe = digits(
        "transfer_set={source: {kind: sklearn, name: digits}, inputs: image, label: null, classes: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']}",
        "teachers={mine: {kind: callable, function: 'mine_of_sums:teach', output: logits}}",
        "students.small={model: 'students.models:mlp', arguments: {hidden: 8}, teachers: [mine], objective: [{loss: soft}], control: false, train: {steps: 20, seeds: [0]}}",
    )
    with caplog.at_level("WARNING"):
        finished = run(recipe, tmp_path / "out", user_path=tmp_path)
    assert "Teacher mine is not judged before students learn: no row has a label." in caplog.text
    assert not any(stage["stage"] == "judge" for stage in finished.report["stages"])
    assert not finished.missed and finished.report["notes"] == [
        "Nothing was judged: no row has a label, so no figure of merit, gain or verdict is known."
    ]
    (exported,) = (tmp_path / "out" / "models").iterdir()
    assert (exported / "model.safetensors").exists() and (finished.folder / "report.html").exists()
