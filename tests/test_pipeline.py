"""Whole runs through Ray, on tiny networks: what is reused, what is rebuilt and why, what is repaired."""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from teachers.errors import EnvironmentUnfit, TeacherError

QUICK = [
    "teachers.wide={kind: module, model: 'teachers.zoo:mlp', arguments: {hidden: 16}, train: {steps: 30}}",
    "teachers.deep={kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}",
    "teachers.trees.arguments={n_estimators: 10}",
    "students.small.train.steps=40",
    "students.small.train.seeds=[0, 1]",
    "students.small.control=true",
]


def quick(*overrides: str, name: str = "digits") -> Recipe:
    return load_recipe(find(name), [*QUICK, *overrides])


def actions(report: Mapping[str, Any]) -> dict[str, str]:
    """By stage: `reused`, or why it was built."""
    return {
        "/".join(filter(None, (stage["stage"], stage["name"], stage.get("part")))): "reused"
        if stage["reused"]
        else stage["reason"]
        for stage in report["stages"]
    }


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    out = tmp_path_factory.mktemp("run") / "out"
    yield out, run(quick(), out).report


@pytest.fixture
def copied(finished: tuple[Path, Mapping[str, Any]], tmp_path: Path) -> Path:
    """A finished run's OUT, to be changed at will."""
    return Path(shutil.copytree(finished[0], tmp_path / "out"))


def test_the_report_has_what_other_programs_rely_on(finished: tuple[Path, Mapping[str, Any]]) -> None:
    out, report = finished
    assert report["format"] == 4 and report["recipe"]["name"] == "digits"
    assert set(report["teachers"]) == {"wide", "deep", "trees"}
    assert all(0 <= teacher["test_accuracy"] <= 1 for teacher in report["teachers"].values())
    small = report["students"]["small"]
    for accuracy in (small["test_accuracy"], small["control_accuracy"]):
        assert len(accuracy["runs"]) == 2
        assert accuracy["mean"] == pytest.approx(np.mean(accuracy["runs"]))
        assert accuracy["std"] == pytest.approx(np.std(accuracy["runs"], ddof=1))
    gain = small["test_accuracy"]["mean"] - small["control_accuracy"]["mean"]
    assert small["gain"]["mean"] == pytest.approx(gain)
    assert small["gain"]["low"] <= small["gain"]["mean"] <= small["gain"]["high"]
    assert {"agreement", "ece", "parameters"} <= set(small)
    assert {"experiment_id", "run_id"} <= set(report["mlflow"])
    assert all({"stage", "name", "key", "reused", "reason", "seconds"} <= set(stage) for stage in report["stages"])
    folder = max((out / "runs").iterdir())
    assert json.loads((folder / "report.json").read_bytes()) == report
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")


def with_students(recipe: Recipe, **students: Any) -> Recipe:
    return Recipe.model_validate(recipe.model_dump(mode="json") | {"students": students})


def test_of_two_students_with_equal_controls_one_is_planned_and_the_other_shares_it(copied: Path) -> None:
    small = quick("students.small.arguments={hidden: 7}").students["small"].model_dump(mode="json")
    recipe = with_students(quick(), small=small, twin=small | {"teachers": ["wide"], "objective": [{"loss": "soft"}]})
    planned = {f"{stage.name}/{stage.part}": stage for stage in plan(recipe, copied).stages if stage.stage == "distill"}
    assert planned["small/control/seed-0"].action == "build"
    twin = planned["twin/control/seed-0"]
    assert (twin.action, twin.reason) == ("reuse", "shared with distill/small/control/seed-0")
    assert planned["twin/student/seed-0"].action == "build"


def test_teachers_alone_are_labelled_combined_evaluated_and_reported(
    copied: Path, finished: tuple[Path, Mapping[str, Any]]
) -> None:
    made = run(with_students(quick()), copied)
    assert set(actions(made.report).values()) == {"reused"} and not made.missed
    assert made.report["students"] == {} and made.report["ensemble"] == finished[1]["ensemble"]
    assert "The teachers together" in (made.folder / "report.html").read_text()


def test_the_same_command_again_builds_nothing(copied: Path, finished: tuple[Path, Mapping[str, Any]]) -> None:
    report = run(quick(), copied).report
    assert set(actions(report).values()) == {"reused"}
    assert report["students"]["small"]["test_accuracy"] == finished[1]["students"]["small"]["test_accuracy"]


def test_another_temperature_rebuilds_the_student_and_no_label(copied: Path) -> None:
    report = run(quick("students.small.objective.0.temperature=1", "students.small.control=false"), copied).report
    done = actions(report)
    trained = {stage: action for stage, action in done.items() if stage.startswith("distill")}
    assert trained == {f"distill/small/student/seed-{seed}": "objective.0.temperature: 2.0 -> 1.0" for seed in (0, 1)}
    small = report["students"]["small"]
    assert small["control_accuracy"] is None and small["gain"] is None
    assert {
        action for stage, action in done.items() if stage.split("/")[0] in ("prepare", "train_teacher", "label")
    } == {"reused"}


def test_another_loss_weight_trains_no_control_and_another_seed_only_itself(copied: Path) -> None:
    done = actions(run(quick("students.small.objective.0.weight=0.5"), copied, until="distill").report)
    again = {stage for stage, action in done.items() if action != "reused"}
    assert again == {"distill/small/student/seed-0", "distill/small/student/seed-1"}
    more = run(quick("students.small.train.seeds=[0, 1, 2]"), copied).report
    built = {stage for stage, action in actions(more).items() if action != "reused"}
    assert built == {"distill/small/student/seed-2", "distill/small/control/seed-2", "evaluate/small", "export/small"}
    assert len(more["students"]["small"]["control_accuracy"]["runs"]) == 3
    assert {"student/seed-2", "control/seed-0"} <= {*more["curves"]["small"]}


def test_other_names_keep_every_stage_and_the_report_says_them(
    copied: Path, finished: tuple[Path, Mapping[str, Any]]
) -> None:
    document = quick().model_dump(mode="json")
    names = {"wide": "broad", "trees": "forest", "small": "tiny"}
    document["teachers"] = {names.get(name, name): config for name, config in document["teachers"].items()}
    (config,) = document["students"].values()
    config["teachers"] = [names.get(name, name) for name in config["teachers"]]
    document["students"] = {"tiny": config}
    report = run(Recipe.model_validate(document), copied).report
    assert {stage for stage, action in actions(report).items() if action != "reused"} == {"export/tiny"}
    before = finished[1]
    assert {*report["teachers"]} == {"broad", "deep", "forest"}
    assert report["teachers"]["forest"] == before["teachers"]["trees"]
    assert report["students"]["tiny"]["test_accuracy"] == before["students"]["small"]["test_accuracy"]
    matrix = report["students"]["tiny"]["agreement_matrix"]
    assert matrix == json.loads(
        json.dumps(before["students"]["small"]["agreement_matrix"]).replace("wide", "broad").replace("trees", "forest")
    )


def test_a_network_and_its_twin_under_another_name_share_their_control(copied: Path) -> None:
    small = quick().students["small"].model_dump(mode="json")
    small["objective"][0]["temperature"] = 5.0
    twins = Recipe.model_validate({**(document := quick().model_dump(mode="json")), "students": {
        "first": {**small, "arguments": {"hidden": 12}}, "second": {**small, "arguments": {"hidden": 12}},
    } | document["students"]})  # fmt: skip
    done = actions(run(twins, copied, until="distill").report)
    for part in ("student/seed-0", "control/seed-1"):
        assert done[f"distill/first/{part}"] == "not built before"
        assert done[f"distill/second/{part}"] == "reused"


def test_replicas_and_batch_size_of_a_teacher_decide_nothing(copied: Path) -> None:
    done = actions(run(quick("teachers.wide.replicas=2", "teachers.wide.batch_size=7"), copied).report)
    assert {*done.values()} == {"reused"}  # no new model either


def test_a_flipped_byte_of_a_shard_is_found_before_training_and_repaired(copied: Path) -> None:
    shard = sorted(copied.glob("soft_targets/wide-*/shards/*.arrow"))[3]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    done = actions(run(quick(), copied).report)
    repaired = [stage for stage, action in done.items() if action.startswith("repaired")]
    assert len(repaired) == 1 and repaired[0].startswith("label/wide/")
    assert (
        sum(action == "reused" for action in done.values()) == len(done) - 1
    )  # same bytes, so nothing downstream moves
    assert list((copied / "quarantine").rglob(shard.name))


def test_a_students_lost_weights_are_trained_again_to_the_same_bytes(copied: Path) -> None:
    weights = next(copied.glob("students/small-*/student/seed-0/model.safetensors"))
    before = weights.read_bytes()
    weights.write_bytes(before[:100])
    done = actions(run(quick(), copied).report)
    assert done["distill/small/student/seed-0"].startswith("repaired")
    assert done["distill/small/student/seed-1"] == "reused"
    assert weights.read_bytes() == before
    assert done["evaluate/small"] == "reused"


@pytest.mark.campaign
def test_changed_weights_are_labelled_anew_beside_the_old(ray_cluster: None, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"

    def written(seed: int) -> str:
        generator = torch.Generator().manual_seed(seed)
        shapes = {"1.weight": (16, 64), "1.bias": (16,), "3.weight": (10, 16), "3.bias": (10,)}
        save_file({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, weights)
        trees = "{kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}"
        wide = f"{{kind: module, model: 'teachers.zoo:mlp', arguments: {{hidden: 16}}, weights: {weights}, preprocess: {{normalise: auto}}, require: null}}"
        return f"teachers={{wide: {wide}, trees: {trees}}}"

    def label(override: str) -> dict[str, str]:
        recipe = load_recipe(find("digits"), [override, "students.small.teachers=[wide, trees]"])
        return actions(run(recipe, tmp_path / "out", until="label").report)

    label(written(0))
    again = label(written(1))
    assert {again[f"label/wide/{split}-0"] for split in ("train", "validation", "test")} == {"teacher weights changed"}
    assert again["label/trees/train-0"] == "reused"
    assert len(list((tmp_path / "out" / "soft_targets").glob("wide-*"))) == 6


def test_an_assistant_labels_for_the_student_that_it_teaches(copied: Path) -> None:
    middle = "students.middle={model: 'students.models:mlp', arguments: {hidden: 24}, teachers: [wide], train: {steps: 30, seeds: [0]}}"
    recipe = quick(middle, "students.small.teachers=[middle, trees]")
    done = actions(run(recipe, copied).report)
    built = {stage for stage, action in done.items() if action != "reused"}
    assert {"label/middle/train-0", "distill/middle/student/seed-0"} <= built
    assert "labels of middle changed" in done["distill/small/student/seed-0"]
    assert done["distill/small/control/seed-0"] == "reused"
    assert {path.name.rpartition("-")[0] for path in (copied / "models").iterdir()} == {"middle", "small"}


def test_a_teacher_that_says_nan_is_named_with_the_rows(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "mine_nan.py").write_text(
        "import numpy as np\n"
        "def teach(batch):\n"
        "    scores = np.zeros((len(batch['image']), 10), np.float32)\n"
        "    scores[batch['image'].sum((1, 2, 3)) > 330, 3] = np.nan\n"
        "    return scores\n"
    )
    mine = "teachers={mine: {kind: callable, function: 'mine_nan:teach', output: logits}}"
    recipe = quick(mine, "students.small.teachers=[mine]")
    with pytest.raises(TeacherError, match=r"mine.*NaN or infinity.*sample_key \d{6,}"):
        run(recipe, tmp_path / "out", until="label", user_path=tmp_path)


def test_a_teacher_that_fails_ends_the_run_at_once_with_what_is_trained_beside_it(
    ray_cluster: None, tmp_path: Path
) -> None:
    """What is sealed by then stays."""
    import ray

    out = tmp_path / "out"
    (tmp_path / "mine_fails.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "def teach(batch, out):\n"
        "    while not list(Path(out).glob('teachers/wide-*/metrics.jsonl')):\n"
        "        time.sleep(0.1)\n"
        "    raise ValueError('not today')\n"
    )
    mine = f"{{kind: callable, function: 'mine_fails:teach', output: logits, arguments: {{out: {out}}}}}"
    wide = "{kind: module, model: 'teachers.zoo:mlp', arguments: {hidden: 16}, train: {steps: 100000, evaluate_every: 100}}"
    recipe = quick(f"teachers={{mine: {mine}, wide: {wide}}}", "students.small.teachers=[mine, wide]")
    with pytest.raises(TeacherError, match="not today"):
        run(recipe, out, until="label", user_path=tmp_path)
    assert not list(out.glob("teachers/wide-*/SEAL.json"))
    assert list(out.glob("prepared/*/SEAL.json"))
    assert json.loads(next(out.glob("runs/*/run.json")).read_bytes())["state"] == "failed"
    while ray.available_resources().get("CPU") != 8:
        time.sleep(0.1)


def test_a_quality_gate_that_is_missed_is_told(copied: Path) -> None:
    finished = run(quick("students.small.require.accuracy=0.999"), copied)
    assert any("below 0.999" in line for line in finished.missed)


@pytest.mark.parametrize("asked, told", [("custom={not_there: 1}", "1 not_there"), ("gpus=64", "64 GPU")])
def test_what_the_cluster_can_never_give_is_refused_before_any_teacher_works(
    ray_cluster: None, tmp_path: Path, asked: str, told: str
) -> None:
    with pytest.raises(EnvironmentUnfit, match=rf"teachers\.wide\.resources asks for {told}"):
        run(quick(f"teachers.wide.resources.{asked}"), tmp_path)
    assert not list(tmp_path.glob("teachers/*/SEAL.json")) and not list(tmp_path.rglob("commits/*"))
