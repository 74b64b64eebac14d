"""Named outputs in a recipe: labelled on a cluster, reused, priced by `plan`, the same when a teacher is asked live."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import Tensor, nn

from orchestrator.building.label import label_stages
from orchestrator.cli.main import collegium
from orchestrator.planning.planning import plan
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import find
from orchestrator.running.run import run
from students.data.shared import SharedData
from students.objective.features import FeatureVoice, feature_voice
from students.runs.run import Live
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.teacher import ModuleTeacher
from teachers.errors import RecipeError, StoreError
from teachers.labelling.heard import Heard
from teachers.labelling.label import label
from teachers.labelling.live import ReplicaClient, live_replicas
from teachers.labelling.shard import Labeller, LabelTask, TeacherSpec
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.merged import MergedSplit
from teachers.transfer_set.transfer_set import TransferSet
from teachers.zoo import mlp
from tests.test_live import Here
from tests.test_pipeline import actions
from tests.training_runs import make_run, source

MLP = "kind: module, model: 'teachers.zoo:mlp', arguments: {hidden: 16}, train: {steps: 30}"
HIDDEN = "{hidden: {layer: '2'}}"


def quick(*overrides: str, outputs: str | None = HIDDEN, **more: str) -> Recipe:
    more |= {"outputs": outputs} if outputs else {}
    given = "".join(f", {name}: {value}" for name, value in more.items())
    small = ["students.small.teachers=[wide]", "students.small.train={steps: 40, seeds: [0]}"]
    return load_recipe(find("digits"), [f"teachers={{wide: {{{MLP}{given}}}}}", *small, *overrides])


def stores(out: Path, name: str = "wide") -> dict[str, SoftTargets]:
    found = [SoftTargets.open(seal.parent) for seal in (out / "soft_targets").glob(f"{name}-*/SEAL.json")]
    return {each.spec.segment: each for each in found if each.spec.more}


@pytest.fixture(scope="module")
def labelled(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    run(quick(outputs=None), out, until="label")
    return out


def test_an_output_that_is_added_is_labelled_with_all_rows_by_the_same_network_and_kept(labelled: Path) -> None:
    planned = plan(quick(), labelled)
    told = [note for note in planned.notes if note.startswith("teachers.wide.outputs")]
    rows = sum(
        segment.num_rows
        for segment in TransferSet.open(next((labelled / "prepared").glob("*/SEAL.json")).parent).segments
    )
    assert (
        told[0]
        == f"teachers.wide.outputs.hidden: 2 gives [16] of a row; 32 bytes in its store, {32 * rows / 1024:,.1f} KiB for {rows:,} rows"
    )
    assert (
        told[1]
        == "teachers.wide.outputs: all rows are labelled again, for what its layers give stands beside its answers"
    )
    reason = {(s.stage, s.part): (s.action, s.reason) for s in planned.stages if s.name == "wide"}
    assert reason["train_teacher", ""][0] == "reuse"
    assert reason["label", "train-0"] == ("build", "outputs.hidden.layer: None -> '2'")
    assert planned.bytes_needed - plan(quick(outputs=None), labelled).bytes_needed == 32 * rows

    done = actions(run(quick(), labelled, until="label").report)
    assert done["train_teacher/wide"] == "reused" and done["label/wide/train-0"].startswith("outputs.hidden.layer")
    assert {*actions(run(quick(), labelled, until="label").report).values()} == {"reused"}
    assert {*actions(run(quick(outputs=None), labelled, until="label").report).values()} == {"reused"}
    found = stores(labelled)
    assert {*found} == {"train-0", "validation-0", "test-0"}
    hidden = found["train-0"].said(output=found["train-0"].spec.layers["hidden"])
    assert hidden.shape[1] == 16 and (hidden >= 0).all() and hidden.std() > 0.1


def test_without_outputs_a_key_is_what_it_was_and_with_them_another(labelled: Path) -> None:
    transfer_set = TransferSet.open(next((labelled / "prepared").glob("*/SEAL.json")).parent)

    def key(recipe: Recipe) -> str:
        return label_stages("wide", recipe.teachers["wide"], "weights", transfer_set)[0]["train-0"].key

    without = quick(outputs=None)
    assert "outputs" not in json.dumps(without.model_dump(mode="json"))
    assert key(without) == key(quick(outputs="{}"))
    found = {key(quick(outputs=it)) for it in (HIDDEN, "{hidden: {layer: '1'}}", "{other: {layer: '2'}}")}
    assert len({key(without), *found}) == 4


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("layer", ["3", "1.5"])
def test_a_wrong_layer_is_one_line_with_the_nearest_before_anybody_is_trained(
    ray_cluster: None, tmp_path: Path, check: bool, layer: str
) -> None:
    recipe = quick(outputs=f"{{hidden: {{layer: '{layer}x'}}}}")
    told = (
        rf"^teachers\.wide\.outputs\.hidden\.layer: a Sequential has no layer '{layer}x'; the nearest of 4 are '[^\n]*$"
    )
    with pytest.raises(RecipeError, match=told):
        plan(recipe, tmp_path / "out", check=check)
    if not check:
        with pytest.raises(RecipeError, match=told):
            run(recipe, tmp_path / "out", until="label")
        assert not [*(tmp_path / "out").glob("teachers/*/SEAL.json")]


@pytest.mark.campaign
def test_a_run_with_outputs_in_folds_keeps_each_rows_of_its_own_fold(ray_cluster: None, tmp_path: Path) -> None:
    recipe = quick("teachers.wide.train={steps: 30, folds: 2}")
    run(recipe, tmp_path / "out", until="label")
    found = stores(tmp_path / "out")["train-0"]
    hidden = found.said(output=found.spec.layers["hidden"])
    assert hidden.shape == (found.spec.num_rows, 16) and hidden.isfinite().all()


def test_layers_are_listed_for_who_writes_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(quick().model_dump(mode="json")))
    told = CliRunner().invoke(collegium, ["teachers", "ls", str(path), "--layers"])
    assert told.exit_code == 0, told.output
    assert told.output.splitlines()[0] == "wide:"
    assert told.output.splitlines()[2].split() == ["1", "Linear", "[16]", "1,040"]
    document = json.loads(CliRunner().invoke(collegium, ["students", "ls", str(path), "--layers", "--json"]).output)
    assert document["small"][-1]["shape"] == [10] and document["small"][-1]["num_parameters"] > 0


# one teacher, cached and live


class Pausing(nn.Sequential):
    """Whose process is known, and who takes its time."""

    def __init__(self, folder: str, num_classes: int, input_shape: Any) -> None:
        super().__init__(*mlp(16, num_classes=num_classes, input_shape=input_shape))
        self.folder = Path(folder)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.folder.name:
            import time

            (self.folder / f"pid-{os.getpid()}").touch()
            time.sleep(0.02)
        return super().forward(inputs)


def network(folder: Path, **more: Any) -> TeacherSpec:
    torch.manual_seed(0)
    state = {
        name: 3 * value.detach() for name, value in mlp(16, num_classes=10, input_shape=(1, 8, 8)).state_dict().items()
    }
    save_file(state, folder / "weights.safetensors")
    given: dict[str, Any] = {
        "model": "teachers.zoo:mlp",
        "arguments": {"hidden": 16},
        "preprocess": Preprocess(normalise="auto"),
    }
    config = ModuleTeacher(kind="module", weights=str(folder / "weights.safetensors"), **(given | more))
    return TeacherSpec("wide", config, None, (), Path(__file__).parents[1])


OUTPUTS: Mapping[str, Any] = {"hidden": {"layer": "1"}}


def a_task(digits: TransferSet, folder: Path) -> LabelTask:
    (segment,) = digits.of("train")
    about = ("wide", "0" * 64, segment.name, segment.digest, "dense", tuple(digits.classes), segment.num_rows, 64)
    SoftTargetStore.create(folder, Spec(*about, more=(Output.of_layer("hidden", (16,)),)))  # type: ignore[arg-type]
    return LabelTask(digits.folder, segment.name, folder)


def stored(spec: TeacherSpec, digits: TransferSet, folder: Path) -> SoftTargetStore:
    task = a_task(digits, folder)
    labeller, store = Labeller(spec, [task], "cpu"), SoftTargetStore.open(folder)
    for number in store.missing():
        labeller.label(0, number)
    store.seal()
    return store


def test_a_replica_that_is_killed_costs_no_feature(digits: TransferSet, ray_cluster: None, tmp_path: Path) -> None:
    undisturbed = stored(network(tmp_path, outputs=OUTPUTS), digits, tmp_path / "undisturbed")
    pids = tmp_path / "pids"
    pids.mkdir()
    how = {"model": f"{__name__}:Pausing", "arguments": {"folder": str(pids)}, "outputs": OUTPUTS, "replicas": 2}
    killed = []

    def kill_one(progress: Any) -> None:
        if not killed and progress.rows > 3 * 64:
            killed.append(int(next(pids.glob("pid-*")).name[4:]))
            os.kill(killed[0], signal.SIGKILL)

    task = a_task(digits, tmp_path / "killed")
    label(network(tmp_path, **how), [task], progress=kill_one)
    assert killed
    assert SoftTargetStore.open(task.store).seal().digest == undisturbed.seal().digest


def test_cached_and_live_give_the_same_features_of_the_same_rows(digits: TransferSet, tmp_path: Path) -> None:
    spec = network(tmp_path, outputs=OUTPUTS)
    store = stored(spec, digits, tmp_path / "store")
    shapes = {"hidden": (16,)}
    cached = source(store.folder, outputs=shapes)
    live = source(None, live=Live(tuple(digits.classes), 2), outputs=shapes)
    session = PlainSession(live=Here([spec], digits))
    found = {}
    for name, asked in (("cached", cached), ("live", live)):
        voice = feature_voice(asked, "hidden", MergedSplit(digits, "train"))
        found[name] = [voice.of(batch) for batch in batches(make_run(tmp_path / name, digits, asked), session, voice)]
    assert len(found["live"]) == len(found["cached"]) == 5
    for one, other in zip(found["live"], found["cached"], strict=True):
        assert one.dtype == other.dtype == torch.float32 and one.shape == (32, 16)
        assert one.std() > 0.5
        torch.testing.assert_close(one, other, rtol=2**-10, atol=1e-6)


def batches(run: Any, session: PlainSession, voice: FeatureVoice) -> list[dict[str, Tensor]]:
    run.stage.mkdir(parents=True, exist_ok=True)
    (data,) = SharedData().of([run], session)
    data.rows.columns.update(voice.columns)
    training = Training(run, session, data)
    stream = training.batches()
    return [next(stream) for _ in range(5)]


def test_live_replicas_answer_with_the_outputs_of_the_rows_that_they_were_sent(
    digits: TransferSet, ray_cluster: None, tmp_path: Path
) -> None:
    spec = network(tmp_path, outputs=OUTPUTS, mode="live")
    (segment,) = digits.of("train")
    inputs, sample_key = digits.inputs(segment, 0, 32), digits.keys(segment)[:32]
    with live_replicas([spec], digits.folder, [], 60) as replicas:
        client = ReplicaClient(replicas)
        heard = client.answers(client.ask(["wide"], inputs, sample_key))["wide"]
    assert isinstance(heard, Heard) and heard.more["hidden"].shape == (32, 16)
    expected = SoftTargets.open(stored(spec, digits, tmp_path / "store").folder)
    hidden = expected.said(output=expected.spec.layers["hidden"])[:32]
    torch.testing.assert_close(torch.tensor(heard.more["hidden"]), hidden, rtol=2**-10, atol=1e-6)


@pytest.mark.campaign
def test_a_student_is_trained_beside_a_live_teacher_with_outputs(ray_cluster: None, tmp_path: Path) -> None:
    recipe = quick(mode="live")
    report = run(recipe, tmp_path / "out").report
    assert "distill/small/student/seed-0" in actions(report)
    note = next(
        note for note in plan(recipe, tmp_path / "out").notes if note.startswith("teachers.wide.outputs.hidden")
    )
    assert note == "teachers.wide.outputs.hidden: 2 gives [16] of a row; 32 bytes with every answer"


def test_an_output_that_is_not_there_is_refused(digits: TransferSet, tmp_path: Path) -> None:
    store = stored(network(tmp_path, outputs=OUTPUTS), digits, tmp_path / "store")
    train = MergedSplit(digits, "train")
    with pytest.raises(RecipeError, match=r"teacher 'wide' has no output 'maps'; it has 'hidden': name one under"):
        feature_voice(source(store.folder, outputs={"hidden": (16,)}), "maps", train)
    with pytest.raises(StoreError, match=r"holds no 'maps' of \[4\] a row; run the recipe again"):
        feature_voice(source(store.folder, outputs={"maps": (4,)}), "maps", train)


def test_what_can_be_named_is_listed_with_a_line_for_each_and_no_helper() -> None:
    import students.models

    for who in ("teachers", "students"):
        done = CliRunner().invoke(collegium, [who, "ls", "--json"])
        assert done.exit_code == 0, done.output
        assert all(each["what"] for each in json.loads(done.output))
    listed = {each["name"].partition("(")[0].partition(":")[2] for each in json.loads(done.output)}
    assert {*students.models.__all__} <= listed and "mean_of_known" not in listed
