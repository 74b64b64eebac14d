"""Whole runs of a student that follows its teachers: it is trained while they label, fails with them, and goes on after a kill."""

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.planning.planning import plan
from orchestrator.recipe.following import waiting
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.recipe.variants import by_method, with_objective_of
from orchestrator.running.run import run
from teachers.errors import RecipeError, TeacherError
from tests.node_cluster import until
from tests.test_pipeline import actions

TEACH = """import time
from pathlib import Path
import numpy as np
asked = []
def teach(batch):
    asked.append(len(asked))
    while (told := Path(PAUSE).read_text()) == "hold" and len(asked) > 12:
        time.sleep(0.2)
    if told == "broken":
        raise ValueError("nothing comes any more")
    time.sleep(0.0 if told == "hold" else float(told))
    rows = np.asarray(batch["image"], np.float32).reshape(len(batch["image"]), -1)
    return rows @ np.random.default_rng(0).standard_normal((rows.shape[1], 10), np.float32) / 100
"""
"""`hold`: a dozen shards, and no more until it is told otherwise."""
SLOW = "{kind: callable, function: 'mine_follows:teach', output: logits, require: null}"
STUDENT = (
    "{model: 'students.models:mlp', arguments: {hidden: 8}, teachers: [slow], follow: true, control: false, require: null, "
    "objective: [{loss: soft}], train: {steps: STEPS, batch_size: 32, seeds: [0]}}"
)


def recipe_of(folder: Path, *overrides: str, pause: str = "0.2", steps: int = 300) -> Recipe:
    (folder / "mine_follows.py").write_text(TEACH.replace("PAUSE", repr(str(folder / "pause"))))
    (folder / "pause").write_text(pause)
    students = f"students={{small: {STUDENT.replace('STEPS', str(steps))}}}"
    return load_recipe(find("digits"), [f"teachers={{slow: {SLOW}}}", students, *overrides])


def stages_of(report: dict) -> dict[str, dict]:
    return {"/".join(filter(None, (s["stage"], s["name"], s.get("part")))): s for s in report["stages"]}


def test_a_student_is_trained_while_its_teacher_labels_and_sealed_after_it(ray_cluster: None, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", recipe_of(tmp_path)
    made = run(recipe, out, user_path=tmp_path)
    stages = stages_of(made.report)
    trained, labelled = stages["distill/small/student/seed-0"], stages["label/slow/train-0"]
    assert labelled["begun"] < trained["begun"] < labelled["ended"] and trained["follows"] == ["slow"]
    (folder,) = (out / "students").iterdir()
    seals = [(path / "SEAL.json").stat().st_mtime_ns for path in (folder, *(out / "soft_targets").iterdir())]
    assert max(seals) == seals[0]
    assert {"labels.json", "student/seed-0/passes.json"} <= {
        output["path"] for output in json.loads((folder / "SEAL.json").read_bytes())["outputs"]
    }
    assert "small/student/seed-0 followed slow: it began" in (made.folder / "report.html").read_text()
    assert set(actions(run(recipe, out, user_path=tmp_path).report).values()) == {"reused"}
    sealed = recipe.model_copy(
        update={"students": {"small": recipe.students["small"].model_copy(update={"follow": False})}}
    )
    by_stage = {stage.stage: stage.action for stage in plan(sealed, out, user_path=tmp_path).stages}
    assert by_stage["distill"] == "build" and by_stage["label"] == "reuse"


STEPS = 2000
"""It waits for labels, with a checkpoint, long before the last."""
CHECKPOINTS = "students/*/student/seed-0/attempts/*/step-*/SEAL.json"


@pytest.mark.campaign
def test_who_follows_stops_with_a_teacher_that_fails_and_goes_on_when_it_labels_again(
    ray_cluster: None, tmp_path: Path
) -> None:
    out, recipe = tmp_path / "out", recipe_of(tmp_path, pause="hold", steps=STEPS)

    def breaks() -> None:
        try:
            until(lambda: any(out.glob(CHECKPOINTS)))
        finally:
            (tmp_path / "pause").write_text("broken")

    threading.Thread(target=breaks, daemon=True).start()
    with pytest.raises(TeacherError, match="nothing comes any more"):
        run(recipe, out, user_path=tmp_path)
    assert any(out.glob(CHECKPOINTS))
    while _titles("fit_in_task"):
        time.sleep(0.5)
    assert not list(out.glob("students/*/SEAL.json"))
    (tmp_path / "pause").write_text("0")
    made = run(recipe, out, user_path=tmp_path)
    assert stages_of(made.report)["distill/small/student/seed-0"]["steps"] == STEPS


@pytest.mark.campaign
def test_a_driver_killed_while_one_labels_and_one_follows_loses_no_row_and_doubles_none(tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", recipe_of(tmp_path, pause="hold", steps=STEPS)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe.model_dump(mode="json")))
    collegium = str(Path(sys.executable).parent / "collegium")
    driver = subprocess.Popen([collegium, "run", "recipe.yaml", "--out", "out"], cwd=tmp_path)
    until(lambda: any(out.glob(CHECKPOINTS)), or_dead=driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not list(out.glob("soft_targets/*/SEAL.json"))
    (tmp_path / "pause").write_text("0")
    for command, folder in (("run", "out"), ("label", "calm")):
        subprocess.run([collegium, command, "recipe.yaml", "--out", folder], cwd=tmp_path, check=True)
    (trained,) = out.glob("students/*/student/seed-0")
    passes = json.loads((trained / "passes.json").read_bytes())["passes"]
    ends = [each["step"] + each["batches"] for each in passes]
    assert [each["step"] for each in passes] == [0, *ends[:-1]]
    assert json.loads((trained / "result.json").read_bytes())["steps"] == STEPS
    assert _digests(out) == _digests(tmp_path / "calm") != {}


def _titles(part: str) -> list[str]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [title for title in [" ".join(process.cmdline())] if part in title]
    return found


def _digests(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_bytes())["digest"] for path in out.glob("soft_targets/*/SEAL.json")}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("teachers.slow.mode=live", "follow: teacher 'slow' is live: it answers each batch"),
        ("students.small.objective=[{loss: logit_mse, standardise: true}]", "standardise: follow: the spread of targets is made of"),
        ("students.small.energy={}", "energy: follow: which rows count is made of"),
        ("students={fit: {kind: sklearn, model: 'sklearn.tree:DecisionTreeClassifier', teachers: [slow], follow: true}}", "follow is of students that are networks"),
        (
            "cohorts={pair: {method: mutual, follow: true, members: {a: {model: 'students.models:mlp'}, b: {model: 'students.models:mlp'}}}}",
            "follow is of students that are networks",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_while_labels_come_is_refused_with_the_key(
    tmp_path: Path, change: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe_of(tmp_path, change)


def test_what_is_compared_or_tried_learns_from_the_same_rows(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    assert not waiting(recipe, "small").students["small"].follow
    made = by_method(recipe, "small", "soft,dkd")
    assert [student.follow for student in made.recipe.students.values()] == [False, False]
    assert not with_objective_of(recipe, made, "dkd").students["small"].follow
