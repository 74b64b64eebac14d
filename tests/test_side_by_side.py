"""A run whose parts wait for no more than they need: needs that differ, teachers that label at another time, a kill between."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from tests import faults
from tests.node_cluster import BIN, QUICK_TO_NOTICE, NodeCluster
from tests.test_pipeline import actions

FAST = "{kind: sklearn, model: 'sklearn.linear_model:LogisticRegression'}"
SLOW = "{kind: callable, function: 'mine_waits:teach', output: logits, require: null}"
WAITS = """import time
from pathlib import Path
import numpy as np
def teach(batch):
    while not list(Path(OUT).glob("students/quick-*/student/seed-0/SEAL.json")):
        time.sleep(0.1)
    return np.zeros((len(batch["image"]), 10), np.float32)
"""
STUDENT = "{model: 'students.models:mlp', arguments: {hidden: 8}, teachers: [fast], train: {steps: 20, seeds: [0]}"


@pytest.mark.campaign
def test_a_student_whose_teachers_have_labelled_is_trained_and_sealed_while_another_teacher_still_labels(
    ray_cluster: None, tmp_path: Path
) -> None:
    """The slow teacher answers when the quick student is sealed: in any other order this never ends."""
    out = tmp_path / "out"
    (tmp_path / "mine_waits.py").write_text(WAITS.replace("OUT", repr(str(out))))
    both = STUDENT.replace("[fast]", "[fast, slow]")
    students = f"{{quick: {STUDENT}, resources: {{cpus: 2}}, require: null}}, both: {both}, require: null}}}}"
    recipe = load_recipe(find("digits"), [f"teachers={{fast: {FAST}, slow: {SLOW}}}", f"students={students}"])
    made = run(recipe, out, user_path=tmp_path)
    stages = {f"{stage['stage']}/{stage['name']}/{stage.get('part', '')}": stage for stage in made.report["stages"]}
    quick, labels = stages["distill/quick/student/seed-0"], stages["label/slow/train-0"]
    assert quick["ended"] <= labels["ended"]
    built = [
        each for title, each in stages.items() if title.startswith(("distill", "label", "judge")) and not each["reused"]
    ]
    assert len(built) > 8 and all(each["on"] for each in built)
    assert set(actions(run(recipe, out, user_path=tmp_path).report).values()) == {"reused"}
    assert "What was built when" in (made.folder / "report.html").read_text()
    journal = json.loads((made.folder / "run.json").read_bytes())
    assert "judge/teachers-of-quick" in journal["stages"]


@pytest.mark.campaign
def test_six_students_of_three_seeds_use_all_nodes_of_a_cluster_at_once(tmp_path: Path) -> None:
    """One node has four CPUs, two have one each: six trainings go on at once, of students of different needs.

    No node is idle while a training waits for which it has room.
    """
    needs = ["{cpus: 1}", "{cpus: 0.5}", "{cpus: 1, custom: {large: 0.1}}"]
    students = [
        f"s{n}: {STUDENT.replace('hidden: 8', f'hidden: {8 + n}').replace('steps: 20, seeds: [0]', 'steps: 2000, seeds: [0, 1, 2]')}, "
        f"control: false, resources: {needs[n % 3]}, require: null}}"
        for n in range(6)
    ]
    out, log = tmp_path / "out", tmp_path / "out.log"
    recipe = tmp_path / "recipe.yaml"
    changes = [f"teachers={{fast: {FAST}}}", f"students={{{', '.join(students)}}}"]
    recipe.write_text(json.dumps(load_recipe(find("digits"), changes).model_dump(mode="json")))
    with NodeCluster(tmp_path, **QUICK_TO_NOTICE) as nodes:
        nodes.add(cpus=1)
        nodes.add(cpus=4, resources={"large": 1})
        nodes.add(cpus=1)
        command = [str(BIN / "collegium"), "run", str(recipe), "--out", str(out), "--address", nodes.address]
        faults.finish(nodes.run(nodes.head, command, log=log), out)
        cpus = dict(zip((node.address for node in nodes.nodes), (1, 4, 1), strict=True))
    report = json.loads(next(out.glob("runs/*/report.json")).read_bytes())
    trained = [stage for stage in report["stages"] if stage["stage"] == "distill"]
    assert len(trained) == 18
    at_once = [[each for each in trained if each["begun"] <= stage["begun"] < each["ended"]] for stage in trained]
    assert max(map(len, at_once)) >= 6
    assert any({node for each in beside for node in each["on"]} == set(cpus) for beside in at_once)
    took = max(each["ended"] for each in trained) - min(each["begun"] for each in trained)
    assert idle_s(trained, cpus) < 0.1 * took
    assert "What was built when, on 3 nodes" in next(out.glob("runs/*/report.html")).read_text()


def idle_s(trained: list[dict[str, Any]], cpus: dict[str, int]) -> float:
    """Seconds in which some node had the CPUs for a training that began later."""

    def need(stage: dict[str, Any]) -> float:
        return 0.5 if stage["name"] in ("s1", "s4") else 1.0

    def large(stage: dict[str, Any]) -> bool:
        return stage["name"] in ("s2", "s5")

    idle, changes = 0.0, sorted(time for each in trained for time in (each["begun"], each["ended"]))
    for begin, end in pairwise(changes):
        now = [each for each in trained if each["begun"] <= begin < each["ended"]]
        waiting = [each for each in trained if each["begun"] > begin]
        free = {node: all_of - sum(need(each) for each in now if node in each["on"]) for node, all_of in cpus.items()}
        could_begin = (
            free[node] >= need(each) and (cpus[node] > 1 or not large(each)) for node in cpus for each in waiting
        )
        idle += (end - begin) * any(could_begin)
    return idle
