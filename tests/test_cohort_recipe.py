"""Cohorts in a recipe: what each method takes by itself, and what is refused, with its place."""

from pathlib import Path

import pytest

from orchestrator.building.fit import budget_of
from orchestrator.building.works import gang_of
from orchestrator.cluster.capacity import check_capacity
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import find
from orchestrator.stages.trainings import kinds_of
from students.config.cohort_terms import OBJECTIVES
from students.runs.of_cohort import alone_runs
from teachers.errors import EnvironmentUnfit, RecipeError

MEMBERS = "members: {a: {model: 'students.models:mlp'}, b: {model: 'students.models:mlp'}}"
ONE = "members: {a: {model: 'students.models:mlp'}}"
ROLES = (
    "members: {a: {model: 'students.models:mlp', role: wide_teacher}, b: {model: 'students.models:mlp', role: student}}"
)
THREE = (
    "members: {a: {model: 'students.models:mlp'}, b: {model: 'students.models:mlp'}, c: {model: 'students.models:mlp'}}"
)
LAYERED = MEMBERS.replace("mlp'}", "mlp', layers: ['1']}")
CHANNEL = "objective: [{loss: peer}, {loss: channel}]"
OF_METHOD = {"online_teacher": ROLES, "feature_exchange": LAYERED, "group_leader": THREE}
WHERE = {"folder": Path(), "stage": Path(), "stage_name": "distill/trio", "transfer_set": Path(), "sources": ()}


def with_of_b(said: str) -> str:
    return MEMBERS.replace("mlp'}}", f"mlp', {said}}}}}")


def channelled(*layers: int) -> str:
    """A wide teacher, a student and a deep teacher with so many layers."""
    roles = zip("abc", ("wide_teacher", "student", "deep_teacher"), layers, strict=False)
    members = [
        f"{name}: {{model: 'students.models:mlp', role: {role}, layers: {['1'] * n}}}" for name, role, n in roles
    ]
    return f"members: {{{', '.join(members)}}}"


def recipe(tmp_path: Path, cohort: str, *, more: str = "", overrides: tuple[str, ...] = ()):
    text = (
        "format: 1\nname: x\n"
        "transfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit}\n"
        f"cohorts:\n  trio: {{{cohort}}}\n{more}"
    )
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path, overrides)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_method_has_an_objective_of_its_own(method: str, tmp_path: Path) -> None:
    cohort = recipe(tmp_path, f"method: {method}, {OF_METHOD.get(method, MEMBERS)}").cohorts["trio"]
    assert [term.loss for term in cohort.objective] == [term.loss for term in OBJECTIVES[method]]
    assert all(term.temperature is not None for term in cohort.objective if term.loss == "peer")


@pytest.mark.parametrize("method", OBJECTIVES)
def test_frozen_teachers_are_heard_beside_what_a_method_says_by_itself(method: str, tmp_path: Path) -> None:
    teacher = "teachers: {wide: {kind: sklearn, model: 'sklearn.ensemble:ExtraTreesClassifier'}}\n"
    members = OF_METHOD.get(method, MEMBERS)
    cohort = recipe(tmp_path, f"method: {method}, {members}, teachers: [wide]", more=teacher).cohorts["trio"]
    assert [term.loss for term in cohort.objective] == ["soft", *(term.loss for term in OBJECTIVES[method])]
    twin = alone_runs("offline", "trio", cohort, 0, **WHERE).members[0]
    assert twin.objective[0].loss == "soft"


def test_a_resolved_cohort_reads_back_as_itself(tmp_path: Path) -> None:
    cohort = recipe(tmp_path, f"method: one, {MEMBERS}")
    again = type(cohort).model_validate(cohort.model_dump(mode="json"))
    assert again == cohort


@pytest.mark.parametrize(
    ("cohort", "told"),
    [
        (f"method: kdcl, {ONE}", "takes two or more"),
        (f"method: one, {ONE}", "takes two or more"),
        (f"method: codistillation, {ONE}", "takes two or more"),
        (f"method: mutual, {MEMBERS}, objective: [{{loss: peer, ramp: {{steps: 50}}}}], train: {{steps: 40}}", "longer than the 40 steps"),
        (f"method: mutual, {ONE}, objective: [{{loss: peer}}]", "has no peers"),
        (f"method: mutual, {MEMBERS}, objective: [{{loss: feature}}]", "of the method feature_exchange"),
        (f"method: feature_exchange, {MEMBERS}", "as many `layers`"),
        (f"method: online_teacher, {MEMBERS}", "a role for every member"),
        (f"method: mutual, {MEMBERS}, deliver: c", "deliver is 'c'"),
        (f"method: mutual, {MEMBERS}, train: {{workers: 2}}", "workers_per_member"),
        (f"method: mutual, {MEMBERS}, workers_per_member: 3, train: {{batch_size: 64}}", "not divisible"),
        (f"method: group_leader, {THREE}, leader: d", "leader is 'd'"),
        (f"method: group_leader, {MEMBERS}", "takes three or more: a leader, and peers"),
        (f"method: feature_exchange, {LAYERED}, objective: [{{loss: hard}}]", "without one the method is `mutual`"),
        (f"method: one, {LAYERED}", "members.a.layers: nobody compares its stage maps; remove its `layers`"),
        (f"method: mutual, {ROLES}", "members.a.role: roles are of the method online_teacher, this one is mutual"),
        (f"method: one, {with_of_b('train: {weight_decay: 0.1}')}", "members.b.train.weight_decay: one optimiser moves a shared trunk"),
        (f"method: one, {with_of_b('preprocess: {resize: 4}')}", "members.b.preprocess: members of one trunk see the same inputs"),
        (f"method: online_teacher, {ROLES}, {CHANNEL}", "as many `layers` of each member that it compares, at least one; found {'a': 0, 'b': 0}"),
        (f"method: online_teacher, {channelled(1, 2)}, {CHANNEL}", "found {'a': 1, 'b': 2}"),
        (f"method: online_teacher, {channelled(1, 1)}", "members.a.layers: nobody compares its stage maps"),
        (f"method: online_teacher, {channelled(1, 1, 1)}, {CHANNEL}", "members.c.layers: nobody compares its stage maps"),
        (f"method: mutual, {MEMBERS}, teachers: [wid]", "no teacher or student is called 'wid'"),
        (f"method: mutual, {MEMBERS}, objective: [{{loss: soft}}]", "needs `teachers`"),
        (f"method: mutual, {MEMBERS}, objective: [{{loss: hard}}, {{loss: ps_kd}}]", "objective.1.loss: members of a cohort keep no earlier self to learn from by 'ps_kd'"),
        (f"method: one, {MEMBERS}, objective: [{{loss: mean_teacher, deliver: average}}]", "objective.0.loss: members of a cohort keep no earlier self to learn from by 'mean_teacher'"),
        (f"method: mutual, {MEMBERS}, teachers: [w], objective: [{{loss: peer}}]", "no term listens to the teachers ['w']; add `{loss: soft}`"),
        (f"method: online_teacher, {ROLES}, teachers: [w], objective: [{{loss: peer}}]", "no term listens"),
        (f"method: mutual, {MEMBERS}, target: naive", "target: unknown key"),
        (f"method: mutul, {MEMBERS}", "did you mean mutual?"),
        (f"method: mutual, {MEMBERS}, train: {{stesp: 1}}", "unknown key, did you mean steps?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_its_place(cohort: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(tmp_path, cohort)
    assert told in str(error.value) and "r.yaml:5:" in str(error.value) and "cohorts.trio" in str(error.value)


def test_members_alone_from_live_teachers_have_these_beside_them_and_controls_do_not(tmp_path: Path) -> None:
    live = "teachers:\n  w: {kind: module, model: 'teachers.zoo:mlp', mode: live, train: {steps: 5}}\n"
    objective = "objective: [{loss: peer}, {loss: soft}, {loss: hard}]"
    loaded = recipe(tmp_path, f"method: online_teacher, {ROLES}, teachers: [w], {objective}", more=live)
    nodes = [{"CPU": 8.0}]
    gangs = {kind: gang_of(loaded, "trio", kind, nodes) for kind in kinds_of(loaded.cohorts["trio"])}
    assert {kind: [who for who, _, _ in gang] for kind, gang in gangs.items()} == {
        "student": ["workers", "replicas of w"],
        "control": ["workers"],
        "offline": ["workers", "replicas of w"],
    }


def test_a_ramp_that_is_longer_than_the_epochs_is_refused_once_the_rows_are_counted(digits, tmp_path: Path) -> None:
    objective = "objective: [{loss: peer, ramp: {steps: 200}}]"
    long, short = (
        recipe(tmp_path, f"method: mutual, {MEMBERS}, train: {{epochs: {epochs}}}, {objective}").cohorts["trio"]
        for epochs in (50, 5)
    )
    assert (budget_of("cohorts.trio", long, digits.folder).steps or 0) > 200
    with pytest.raises(
        RecipeError, match=r"^cohorts\.trio\.objective\.0\.ramp\.steps is 200, longer than the \d+ steps"
    ):
        budget_of("cohorts.trio", short, digits.folder)


def test_members_and_students_may_teach_each_other_but_not_in_a_circle(tmp_path: Path) -> None:
    student = "students:\n  small: {model: 'students.models:mlp', teachers: [trio.a]}\n"
    made = recipe(tmp_path, f"method: mutual, {MEMBERS}", more=student)
    assert made.learners_in_order() == [["trio"], ["small"]] and made.assistants() == ["trio.a"]
    with pytest.raises(RecipeError, match=r"circle: (small -> trio -> small|trio -> small -> trio)"):
        recipe(tmp_path, f"method: mutual, {MEMBERS}, teachers: [small]", more=student)


def test_more_workers_than_there_can_ever_be_are_refused_with_the_cure(tmp_path: Path) -> None:
    made = recipe(tmp_path, f"method: mutual, {MEMBERS}, workers_per_member: 4")
    check_capacity(made, [{"CPU": 8.0}])
    with pytest.raises(
        EnvironmentUnfit, match=r"cohorts\.trio\.workers_per_member: 8 workers .*`workers_per_member: null`"
    ):
        check_capacity(made, [{"CPU": 4.0}])


def test_a_recipe_with_nobody_to_train_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "format: 1\nname: x\ntransfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit}\n"
    )
    with pytest.raises(RecipeError, match="there is nobody to ask or to train"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["peers", "online", "codistillation"])
def test_the_shipped_cohorts_run_on_one_worker(name: str) -> None:
    check_capacity(load_recipe(find(name)), [{"CPU": 2.0}])
