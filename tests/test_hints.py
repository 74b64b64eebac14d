"""Hints: which layers they join, what they train, and what they leave alone."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file

from students.config.hints import Hint
from students.config.student import StudentConfig
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.cost import Pace, for_one
from students.fitting.fit import fit
from students.fitting.rehearsal import rehearse
from students.models import small_conv_net, tiny_transformer
from students.objective.correspondence import by_stage, evenly, guided_layers
from students.objective.hints import PROJECTIONS, hints_at_work
from students.objective.memory_bank import MemoryBank, in_blocks, scored
from students.objective.own import last_places
from students.objective.projectors import ConvRegressor, ReviewFusion, projector_of
from students.runs.of_student import student_run
from students.runs.run import Live
from students.runs.session import PlainSession
from students.training.hinted import HintedStepper
from students.training.train import Training
from teachers.errors import CollegiumError, RecipeError
from teachers.labelling.heard import Heard
from teachers.models.captured import layers_of
from teachers.models.folder import load_model
from teachers.soft_targets.schema import Output, Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.transfer_set.merged import MergedSplit
from teachers.users_code.imports import use_user_path
from teachers.zoo import conv_net
from tests.rank_runs import on_ranks
from tests.training_runs import HARD, SOFT, make_run, outputs, source, true_labels

SESSION = PlainSession()
CONV = "students.models:small_conv_net"
SHAPES = {"early": (6, 4, 4), "late": (12, 2, 2), "same": (8, 4, 4), "vector": (20,), "tokens": (3, 5)}
HINTS = TypeAdapter(list[Hint])


class Exact(torch.nn.Sequential):
    """In float64, without batch statistics: any number of ranks trains the same network."""

    def __init__(self, num_classes, input_shape):
        width = int(np.prod(input_shape))
        layers = [torch.nn.Linear(width, 16), torch.nn.ReLU(), torch.nn.Linear(16, num_classes)]
        super().__init__(torch.nn.Flatten(), *layers)
        self.double()

    def forward(self, inputs):
        return super().forward(inputs.double())


class Branching(torch.nn.Module):
    """A layer that never runs, and one that gives nothing that goes by rows."""

    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.first, self.idle = torch.nn.Linear(64, 8), torch.nn.Linear(8, 8)
        self.turned, self.head = torch.nn.Flatten(0), torch.nn.Linear(8, num_classes)

    def forward(self, inputs):
        hidden = self.first(inputs.flatten(1))
        self.turned(hidden)
        return self.head(hidden)


pytestmark = pytest.mark.usefixtures("one_thread")


def features(transfer_set, segment, name):
    """f32 `[rows, *shape]`: what a layer gives, here a linear map of the pixels."""
    pixels = transfer_set.inputs(segment)["image"].reshape(segment.num_rows, -1).astype(np.float32) / 16
    shape = SHAPES[name]
    mix = np.random.default_rng(len(name)).standard_normal((pixels.shape[1], int(np.prod(shape)))) / 8
    return np.maximum(pixels @ mix.astype(np.float32), 0).reshape(-1, *shape)


def said_by_the_teacher(digits):
    """By name what it says of every training row, in the order of their keys."""
    (segment,) = digits.of("train")
    said = np.random.default_rng(0).standard_normal((segment.num_rows, 10)).astype(np.float32)
    said[np.arange(segment.num_rows), true_labels(digits, segment)] += 4
    return {"logits": said} | {name: features(digits, segment, name) for name in SHAPES}


class Answering:
    """Who answers for the same teacher when it is asked live."""

    def __init__(self, digits):
        (segment,) = digits.of("train")
        self.keys, self.said = digits.keys(segment), said_by_the_teacher(digits)

    def ask(self, teachers, inputs, sample_key):
        return np.searchsorted(self.keys, sample_key)

    def answers(self, asked):
        logits, *more = (values[asked] for values in self.said.values())
        return {"wide": Heard(logits, dict(zip(SHAPES, more, strict=True)))}


@pytest.fixture(scope="module")
def store(digits, tmp_path_factory):
    return keep_features(digits, tmp_path_factory.mktemp("wide"))


def keep_features(digits, folder, given=None):
    """A store of what that teacher says, and of its layers."""
    (segment,) = digits.of("train")
    more = tuple(Output.of_layer(name, shape) for name, shape in SHAPES.items())
    about = (segment.name, segment.digest, "dense", tuple(digits.classes), segment.num_rows, 256)
    kept = SoftTargetStore.create(folder, Spec("wide", "digest", *about, more=more))
    given = given or said_by_the_teacher(digits)
    keys = digits.keys(segment)
    for number in range(kept.num_shards):
        first, num = kept.shard_rows(number)
        kept.commit(number, keys[first : first + num], {k: v[first : first + num] for k, v in given.items()})
    kept.seal()
    return kept.folder


def hinted(folder, digits, store, *hints, model=CONV, **options):
    run = make_run(folder, digits, source(store, outputs=SHAPES), model=model, **options)
    given = [{"teacher": "wide", **hint} for hint in hints]
    return replace(run, hints=tuple(HINTS.validate_python(given)))


def training(run):
    return Training(run, SESSION, SharedData().of([run], SESSION)[0])


def curve(run, key):
    lines = (run.stage / "metrics.jsonl").read_text().splitlines()
    return [record["value"] for record in map(json.loads, lines) if record["key"] == key and record["run"] == run.name]


EACH = {
    "hint": {"loss": "hint", "output": "early", "layer": "1"},
    "hint of a vector": {"loss": "hint", "output": "vector"},
    "hint of several": {"loss": "hint", "output": ["early", "late"], "layer": "by_stage", "weight": 10.0},
    "conv_regressor": {"loss": "hint", "output": "late", "layer": "1", "projector": "conv_regressor"},
    "attention": {"loss": "attention", "output": "early"},
    "attention of the paper": {"loss": "attention", "output": "early", "form": "paper"},
    "similarity": {"loss": "similarity", "output": "vector"},
    "relation": {"loss": "relation", "output": "vector", "weight": 0.1},
    "channel_wise": {"loss": "channel_wise", "output": "early", "weight": 10.0},
    "correlation": {"loss": "correlation", "output": "vector", "weight": 30.0},
    "contrastive": {"loss": "contrastive", "output": "vector", "dim": 16, "negatives": 64},
    "contrastive by class": {
        "loss": "contrastive",
        "output": "early",
        "layer": "1",
        "dim": 16,
        "negatives": 2000,
        "positive": "relax",
    },
    "review": {"loss": "review", "output": ["early", "late"], "width": 16, "weight": 5.0},
    "linear_embedding": {"loss": "linear_embedding", "output": "vector"},
}


@pytest.mark.parametrize("case", EACH)
def test_a_hint_is_learnt_and_what_learns_it_beside_the_network_is_not_delivered(case, digits, store, tmp_path):
    run = hinted(tmp_path / "with", digits, store, EACH[case], steps=200, learning_rate=0.01)
    (result,) = fit([run], SESSION)
    found = curve(run, f"train.{EACH[case]['loss']}")
    assert found[-1] < (0.97 if "contrastive" in case else 0.9) * found[0]
    assert result.validation["accuracy"] > 0.6
    plain = make_run(tmp_path / "without", digits, source(store), model=CONV, steps=1)
    fit([plain], SESSION)
    shapes = [
        {name: value.shape for name, value in load_file(each.folder / "model.safetensors").items()}
        for each in (run, plain)
    ]
    assert shapes[0] == shapes[1]
    configs = [(each.folder / "config.json").read_text() for each in (run, plain)]
    assert configs[0] == configs[1]
    (segment,) = digits.of("validation")
    said = load_model(run.folder)(digits.inputs(segment)).argmax(-1).numpy()
    assert (said == digits.labels(segment)).mean() == pytest.approx(result.validation["accuracy"])


def test_a_training_with_a_hint_is_its_formula(digits, store, tmp_path):
    """w_s KL + w_h CE + 7 mean (P F^s - F^t)^2, the projector beside the network in one optimiser."""
    hint = {"loss": "hint", "output": "vector", "layer": "2", "weight": 7.0}
    run = hinted(tmp_path, digits, store, hint, model="test_hints:Exact", steps=12, schedule="constant", clip=None)
    trained = training(run)
    trained.stepper.run.stage.mkdir(parents=True, exist_ok=True)
    trained.train()
    (data,) = SharedData().of([run], SESSION)
    torch.manual_seed(run.draw_seed)
    module = Exact(10, data.preprocessor.input_shape)
    torch.manual_seed(run.draw_seed)
    projector = torch.nn.Linear(16, 20, bias=False).double()
    parameters = [*module.parameters(), *projector.parameters()]
    train = run.train
    optimizer = torch.optim.AdamW(parameters, lr=train.learning_rate, weight_decay=train.weight_decay)
    batches = Batches(data.rows, run, SESSION).from_step(0)
    for batch in itertools.islice(batches, 12):
        inputs = data.rows.inputs(batch, None).double()
        hidden = module[2](module[1](inputs.flatten(1)))
        logits, taught = module[3](hidden), batch["wide.vector.value"].double()
        (asked, *_), (labels, has, *_) = data.rows.objective.ask(batch)[:2]
        soft = 4 * F.kl_div(F.log_softmax(logits / 2, -1), asked.double().exp(), reduction="batchmean")  # it is ready
        hard = (F.cross_entropy(logits, labels, reduction="none") * has).sum() / has.sum().clamp_min(1)
        loss = 0.9 * soft + 0.1 * hard + 7 * F.mse_loss(projector(hidden), taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        torch.testing.assert_close(trained.module.state_dict()[name], value, rtol=1e-6, atol=1e-8)


MANY = [
    {"loss": "contrastive", "output": "vector", "dim": 8, "negatives": 32},
    {"loss": "hint", "output": "late", "layer": "1", "projector": "conv_regressor"},
    {"loss": "review", "output": ["early", "late"], "width": 8},
]


def test_a_resumed_training_ends_as_one_that_was_never_stopped(digits, store, tmp_path):
    """Projectors, their batch statistics, memories and the optimiser's state of them are in a checkpoint."""
    whole, parted = (hinted(tmp_path / name, digits, store, *MANY, steps=30) for name in ("whole", "parted"))
    fit([whole], SESSION)
    first = training(parted)
    parted.stage.mkdir(parents=True, exist_ok=True)
    for batch in itertools.islice(first.batches(), 13):
        first.advance(batch)
    first.save()
    second = training(parted)
    second.resume()
    assert second.progress.step == 13
    second.train()
    second.finish()
    assert outputs(whole) == outputs(parted)
    assert curve(whole, "train.contrastive")[-1] == pytest.approx(curve(parted, "train.contrastive")[-1], rel=1e-6)


def test_hints_train_in_bfloat16_with_losses_in_float32(digits, store, tmp_path):
    run = hinted(tmp_path, digits, store, *MANY, EACH["relation"], EACH["attention"], precision="bfloat16")
    exact = replace(run, train=run.train.model_copy(update={"precision": "float32"}))
    found = []
    for each in (run, exact):
        trained = training(each)
        found.append(trained.stepper.advance(next(trained.batches()), 0))
        assert found[-1].dtype == torch.float32
    torch.testing.assert_close(found[0], found[1], rtol=0.1, atol=0.05)


def test_the_network_begins_as_it_does_without_hints(digits, store, tmp_path):
    plain = make_run(tmp_path, digits, source(store), model=CONV)
    with_hints = hinted(tmp_path, digits, store, *MANY)
    states = [training(run).module.state_dict() for run in (plain, with_hints)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_curves_are_numbered_where_two_hints_have_one_loss(digits, store, tmp_path):
    pair = [{"loss": "hint", "output": output} for output in ("early", "late")]
    run = hinted(tmp_path, digits, store, *pair, steps=2)
    assert training(run).stepper.objective.names == ("soft", "hard", "hint", "hint_2")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_are_one_where_rows_count_alone(accumulate, digits, store, tmp_path):
    hint = {"loss": "hint", "output": "vector"}
    one, two = (
        hinted(tmp_path / name, digits, store, hint, model="test_hints:Exact", steps=10, accumulate=accumulate)
        for name in ("one", "two")
    )
    fit([one], SESSION)
    on_ranks(tmp_path / "two", [two], 2)
    states = [load_file(run.folder / "model.safetensors") for run in (one, two)]
    assert max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0]) < 1e-6


@pytest.mark.parametrize("loss", ["similarity", "relation", "correlation"])
def test_relations_are_of_the_rows_of_one_part_on_one_worker(loss, digits, store, tmp_path):
    """Two ranks, and two parts on one, compare the same rows with each other, and one rank with all rows others."""
    hint = {"loss": loss, "output": "vector"}
    common = {"model": "test_hints:Exact", "steps": 10, "evaluate_every": 10}
    parts, ranks, whole = (
        hinted(tmp_path / name, digits, store, hint, **common, **more)
        for name, more in (("parts", {"accumulate": 2}), ("ranks", {}), ("whole", {}))
    )
    fit([parts], SESSION)
    fit([whole], SESSION)
    on_ranks(tmp_path / "ranks", [ranks], 2)
    states = [load_file(run.folder / "model.safetensors") for run in (parts, ranks, whole)]

    def apart(one, other):
        return max(float((states[one][name] - states[other][name]).abs().max()) for name in states[0])

    assert apart(0, 1) < 1e-6 < apart(0, 2)


def test_ranks_of_a_contrastive_hint_remember_the_same(digits, store, tmp_path):
    run = hinted(tmp_path, digits, store, EACH["contrastive"], model="test_hints:Exact", steps=10)
    on_ranks(tmp_path, [run], 2)
    assert (run.folder / "model.safetensors").is_file()


@pytest.mark.parametrize("case", EACH)
def test_stored_and_asked_live_a_hint_has_the_same_loss_of_the_same_rows(case, digits, store, tmp_path):
    """A store keeps float16."""
    stored = hinted(tmp_path / "stored", digits, store, EACH[case])
    asked = replace(stored, sources=(source(None, live=Live(tuple(digits.classes), 2), outputs=SHAPES),))
    found = []
    for run, session in ((stored, SESSION), (asked, PlainSession(live=Answering(digits)))):
        trained = Training(run, session, SharedData().of([run], session)[0])
        found.append(trained.stepper.advance(next(trained.batches()), 0))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def first_stage_of(digits, store, tmp_path, **options):
    hint = {"loss": "hint", "output": "early", "layer": "1", "alone": 0.5}
    return hinted(tmp_path, digits, store, hint, steps=20, **options)


def test_in_the_first_stage_of_fitnets_nothing_moves_behind_the_guided_layer(digits, store, tmp_path):
    trained = training(first_stage_of(digits, store, tmp_path))
    before = {name: value.clone() for name, value in trained.module.state_dict().items()}
    batches = trained.batches()
    for batch in itertools.islice(batches, 10):
        trained.advance(batch)
    moved = {name for name, value in trained.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "0.bias"}
    assert trained.stepper.objective.weights(9, 20) == (0.0, 0.0, 100.0)
    projector = next(trained.stepper.guided.projections.parameters())
    trained.advance(next(batches))
    moved = {name for name, value in trained.module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(before)
    assert trained.stepper.objective.weights(10, 20) == (0.9, 0.1, 0.0)
    assert projector.grad is None or not projector.grad.any()


DEEPER = {"loss": "hint", "output": "late", "layer": "3"}


def test_in_a_first_stage_other_hints_move_nothing_either(digits, store, tmp_path):
    first = {"loss": "hint", "output": "early", "layer": "1", "alone": 0.5}
    trained = training(hinted(tmp_path, digits, store, DEEPER, first, steps=20))
    before = {name: value.clone() for name, value in trained.stepper.whole.state_dict().items()}
    for batch in itertools.islice(trained.batches(), 10):
        trained.advance(batch)
    after = trained.stepper.whole.state_dict()
    moved = {name.rpartition("network.")[2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"0.weight", "0.bias", "projections.hint_2.projectors.0.map.weight"}


def test_the_cost_of_a_step_is_that_of_all_terms_and_not_of_a_first_stage(digits, store, tmp_path):
    first = {"loss": "hint", "output": "early", "layer": "1", "alone": 0.9}
    pace = Pace.of(for_one(hinted(tmp_path, digits, store, first, steps=20)), SESSION, SharedData())
    before = {name: value.clone() for name, value in pace.stepper.whole.state_dict().items()}
    pace.seconds(1)
    after = pace.stepper.whole.state_dict()
    moved = {name.rpartition("network.")[2] for name, value in after.items() if not torch.equal(value, before[name])}
    assert {"0.weight", "5.weight"} <= moved  # what is guided, and what answers


def test_a_first_stage_trains_on_two_ranks(digits, store, tmp_path):
    first = {"loss": "hint", "output": "early", "layer": "1", "alone": 0.5}
    one, two = (
        hinted(tmp_path / name, digits, store, first, DEEPER, steps=20, evaluate_every=20) for name in ("one", "two")
    )
    fit([one], SESSION)
    on_ranks(tmp_path / "two", [two], 2)
    states = [load_file(run.folder / "model.safetensors") for run in (one, two)]
    assert max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0]) < 1e-3


def test_a_ramp_raises_the_weight_of_a_hint(digits, store, tmp_path):
    hint = {"loss": "hint", "output": "early", "layer": "1", "ramp": {"steps": 10}}
    objective = training(hinted(tmp_path, digits, store, hint, steps=20)).stepper.objective
    assert [objective.weights(step, 20)[-1] for step in (0, 5, 10)] == [0.0, 50.0, 100.0]


def test_ramps_begin_behind_a_first_stage(digits, store, tmp_path):
    alone = {"loss": "hint", "output": "early", "layer": "1", "alone": 0.5, "ramp": {"steps": 5}}
    other = {"loss": "attention", "output": "early", "layer": "1", "ramp": {"share": 0.25}}
    rising = [SOFT | {"ramp": {"steps": 5}}, HARD]
    run = hinted(tmp_path, digits, store, alone, other, steps=20, objective=rising)
    objective = training(run).stepper.objective
    weights = dict(
        zip(
            objective.names,
            zip(*(objective.weights(step, 20) for step in (0, 1, 10, 11, 15)), strict=True),
            strict=True,
        )
    )
    assert weights["soft"] == pytest.approx((0, 0, 0, 0.18, 0.9)) and weights["hard"] == (0, 0, 0.1, 0.1, 0.1)
    assert weights["hint"] == (0, 20, 0, 0, 0) and weights["attention"] == (0, 0, 0, 200, 1000)


def test_a_ramp_that_is_longer_than_what_a_first_stage_leaves_is_refused():
    alone = {"loss": "hint", "teacher": "wide", "output": "a", "layer": "1", "alone": 0.5}
    said = {"model": CONV, "teachers": ["wide"], "train": {"steps": 20}, "hints": [alone]}
    for ramp, told in (({"steps": 11}, "ramp.steps is 11"), ({"share": 0.6}, "ramp.share is 0.6")):
        with pytest.raises(ValidationError, match=rf"objective.0.{told}, longer than the 10 steps of its stage"):
            StudentConfig.model_validate(said | {"objective": [SOFT | {"ramp": ramp}]})
    assert StudentConfig.model_validate(said | {"objective": [SOFT | {"ramp": {"steps": 10}}]}).hints


def test_the_control_of_a_student_has_no_hints():
    config = StudentConfig(
        model=CONV, teachers=["wide"], hints=[{"loss": "hint", "teacher": "wide", "output": "early", "layer": "1"}]
    )
    here = {"folder": Path(), "stage": Path(), "stage_name": "distill/small", "transfer_set": Path(), "sources": ()}
    assert student_run("student", config, 0, **here).hints == tuple(config.hints)
    assert student_run("control", config, 0, **here).hints == ()


# which layers


def conv_layers():
    network = small_conv_net(num_classes=10, input_shape=(1, 8, 8))
    return network, layers_of(network, torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(("theirs", "path"), [((6, 4, 4), "1"), ((99, 2, 2), "3"), ((512,), "4")])
def test_by_stage_is_the_last_layer_of_equal_down_sampling_or_the_last_vector_before_the_answer(theirs, path):
    assert by_stage(conv_layers()[1], 10, theirs) == path


@pytest.mark.parametrize(("theirs", "path"), [((6, 8, 8), "stages.0"), ((6, 4, 4), "stages.1"), ((6, 2, 2), "stages")])
def test_of_residual_blocks_by_stage_is_what_the_block_gives_and_not_its_shortcut(theirs, path):
    network = conv_net(4, num_classes=10, input_shape=(1, 8, 8))
    assert by_stage(layers_of(network, torch.zeros(2, 1, 8, 8)), 10, theirs) == path


@pytest.mark.parametrize("theirs", [(6, 5, 5), (3, 5)])
def test_where_no_stage_is_equal_the_layers_are_listed(theirs):
    with pytest.raises(RecipeError, match=r"no layer of the student is of the stage.*0 \[8, 4, 4\], 1 \[8, 4, 4\]"):
        by_stage(conv_layers()[1], 10, theirs)


@pytest.mark.parametrize(("number", "blocks"), [(1, [6]), (2, [3, 6]), (3, [2, 4, 6]), (6, [1, 2, 3, 4, 5, 6])])
def test_evenly_goes_to_the_last_block_in_equal_steps(number, blocks):
    given = {"num_classes": 3, "input_shape": (5,), "vocabulary_size": 7}
    network = tiny_transformer(dim=8, layers=6, heads=2, **given)
    assert evenly("layers", network, number) == [f"layers.{block - 1}" for block in blocks]
    with pytest.raises(RecipeError, match="'layers' has 6 blocks, fewer than the 7 outputs"):
        evenly("layers", network, 7)


def test_named_layers_are_taken_as_they_are():
    (hint,) = HINTS.validate_python([{"loss": "hint", "teacher": "a", "output": ["x", "y"], "layer": ["3", "1"]}])
    network, layers = conv_layers()
    assert guided_layers(hint, network, layers, 10, [(6, 4, 4), (12, 2, 2)]) == ["3", "1"]


BAD_LAYERS = [
    ({"layer": "7"}, r"students\.small\.hints\.0\.layer: a Sequential has no layer '7'; the nearest of 6 are"),
    ({"layer": {"evenly": "blocks"}}, r"hints\.0\.layer: a Sequential has no layer 'blocks'; the nearest"),
    ({"output": "tokens", "layer": "1"}, r"hints\.0\.projector: '1' and 'tokens'.*\[8, 4, 4\].*\[3, 5\].*no projector"),
    ({"layer": "4"}, r"hints\.0\.projector: '4' and 'early'.*\[64\].*\[6, 4, 4\], and no projector joins them"),
    ({"layer": "1", "projector": "none"}, r"`projector: none` compares layers of one width.*\[8, 4, 4\].*\[6, 4, 4\]"),
    ({"layer": "1", "projector": "linear"}, r"linear is not for \[8, 4, 4\] and \[6, 4, 4\]; say conv1x1"),
    (
        {"layer": "3", "output": "vector", "projector": "conv1x1"},
        r"conv1x1 is not for \[16, 2, 2\] and \[20\]; say linear",
    ),
    ({"layer": "4", "projector": "conv_regressor"}, r"conv_regressor joins maps \[C, H, W\]"),
    ({"loss": "attention", "output": "vector", "layer": "1"}, r"compares maps \[C, H, W\].*\[8, 4, 4\].*\[20\]"),
    ({"loss": "review", "output": "vector", "layer": "1"}, r"review compares maps.*\[8, 4, 4\] and \[20\]"),
    ({"output": ["early", "same"]}, r"hints\.0\.layer: 1, 1 name one twice"),
    ({"output": "absent", "layer": "1"}, r"hints\.0\.output: teacher 'wide' has no output 'absent'; it has 'early'"),
]


@pytest.mark.parametrize(("hint", "told"), BAD_LAYERS)
def test_what_cannot_be_joined_is_told_in_one_line_before_any_step(hint, told, digits, store, tmp_path):
    run = hinted(tmp_path, digits, store, {"loss": "hint", "output": "early", **hint})
    with pytest.raises(CollegiumError, match=told) as error:
        rehearse(run, "cpu")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("layer", "told"), [("idle", "never called"), ("turned", "gives nothing that goes by rows")])
def test_a_layer_that_gives_nothing_is_refused(layer, told, digits, store, tmp_path):
    hint = {"loss": "hint", "output": "vector", "layer": layer}
    run = hinted(tmp_path, digits, store, hint, model="test_hints:Branching")
    use_user_path(run.user_path)
    with pytest.raises(RecipeError, match=told):
        rehearse(run, "cpu")


def test_a_rehearsal_passes_where_a_training_would_even_with_a_first_stage(digits, store, tmp_path):
    assert rehearse(hinted(tmp_path, digits, store, *MANY), "cpu").idle == []
    assert rehearse(first_stage_of(digits, store, tmp_path), "cpu").idle == []


# projectors


@pytest.mark.parametrize(
    ("own", "theirs", "kind", "made"),
    [
        ((8, 4, 4), (6, 4, 4), None, (6, 4, 4)),
        ((8, 8, 8), (6, 4, 4), None, (6, 4, 4)),
        ((8, 2, 2), (6, 4, 4), "conv1x1", (6, 2, 2)),
        ((8, 4, 4), (6,), "linear", (6,)),
        ((8,), (6,), "linear", (6,)),
        ((3, 8), (3, 6), "linear", (3, 6)),
        ((8, 8, 8), (6, 4, 4), "conv_regressor", (6, 4, 4)),
        ((8, 2, 2), (6, 4, 4), "conv_regressor", (6, 4, 4)),
        ((8, 7, 6), (6, 4, 4), "conv_regressor", (6, 4, 4)),
    ],
)
def test_a_projector_makes_the_shape_of_the_other_side(own, theirs, kind, made):
    projector = projector_of(own, theirs, kind)
    assert projector(torch.randn(5, *own)).shape == (5, *made)
    assert projector.pooled(torch.randn(5, *theirs)).shape == (5, *made)


def test_an_embedding_has_the_kind_of_each_of_its_pairs():
    (hint,) = HINTS.validate_python(
        [{"loss": "linear_embedding", "teacher": "w", "output": ["a", "b"], "layer": ["1", "2"]}]
    )
    own, theirs = [(8, 4, 4), (16,)], [(6, 4, 4), (16,)]
    made = PROJECTIONS["linear_embedding"](hint, own, theirs)
    assert [type(each.map) for each in made.projectors] == [torch.nn.Conv2d, torch.nn.Linear]
    pairs = made(*([torch.zeros(2, *shape) for shape in side] for side in (own, theirs)))
    assert [one.shape == other.shape for one, other in pairs] == [True, True]


def test_where_widths_agree_there_is_no_projector_unless_one_is_asked_for():
    assert not [*projector_of((8, 4, 4), (8, 4, 4), None).parameters()]
    assert len([*projector_of((8, 4, 4), (8, 4, 4), "conv1x1").parameters()]) == 1


def test_a_conv_regressor_that_cannot_make_the_size_says_so_with_both():
    with pytest.raises(ValueError, match=r"no map \[6, 5, 5\] of \[8, 4, 4\]"):
        ConvRegressor((8, 4, 4), (6, 5, 5))


def test_deep_stages_reach_shallow_ones_in_a_review_and_not_the_other_way():
    fusion = ReviewFusion([(8, 4, 4), (16, 2, 2)], [(6, 4, 4), (12, 2, 2)], 4)
    shallow, deep = torch.randn(3, 8, 4, 4, requires_grad=True), torch.randn(3, 16, 2, 2, requires_grad=True)
    found = fusion([shallow, deep])
    assert [tuple(each.shape) for each in found] == [(3, 6, 4, 4), (3, 12, 2, 2)]
    found[1].sum().backward(retain_graph=True)
    assert shallow.grad is None and deep.grad is not None
    deep.grad = None
    found[0].square().sum().backward()
    assert shallow.grad.any() and deep.grad.any()


# memories


def bank(classes, **options):
    torch.manual_seed(0)
    given = {"negatives": 4000, "temperature": 0.07, "momentum": 0.5} | options
    return MemoryBank(torch.tensor(classes), 8, **given)


CLASSES = [2, 0, -1, 0, 2, 2, -1, 0]


def test_negatives_are_of_other_classes_and_each_as_often():
    memory = bank(CLASSES)
    drawn = memory.candidates(torch.arange(8), 3)
    for row, mine in enumerate(CLASSES):
        allowed = [other for other, its in enumerate(CLASSES) if other != row and (mine < 0 or its != mine)]
        counts = drawn[row, 1:].bincount(minlength=8)
        assert int(drawn[row, 0]) == row
        assert set(counts.nonzero().flatten().tolist()) == set(allowed)
        assert (counts[allowed] / 4000 - 1 / len(allowed)).abs().max() < 0.05
    assert torch.equal(drawn, memory.candidates(torch.arange(8), 3))
    assert not torch.equal(drawn, memory.candidates(torch.arange(8), 4))


def test_relaxed_a_row_goes_with_any_of_its_class():
    memory = bank(CLASSES, positive="relax", negatives=1)
    drawn = torch.stack([memory.candidates(torch.arange(8), seed)[:, 0] for seed in range(200)])
    found = [set(column.tolist()) for column in drawn.T]
    assert found == [{0, 4, 5}, {1, 3, 7}, {2}, {1, 3, 7}, {0, 4, 5}, {0, 4, 5}, {6}, {1, 3, 7}]


def test_blocks_of_classes_are_where_they_are_said_to_be():
    order, start, size = in_blocks(torch.tensor(CLASSES))
    for row, mine in enumerate(CLASSES):
        block = order[start[row] : start[row] + size[row]].tolist()
        assert block == ([row] if mine < 0 else [other for other, its in enumerate(CLASSES) if its == mine])


def test_where_all_rows_are_of_one_class_each_is_told_apart_from_all_others():
    drawn = bank([1, 1, 1]).candidates(torch.arange(3), 0)
    assert [set(row[1:].tolist()) for row in drawn] == [{1, 2}, {0, 2}, {0, 1}]


def test_scores_are_the_same_whichever_way_they_are_computed():
    view, memory = torch.randn(5, 4).double(), torch.randn(30, 4).double()
    few, many = torch.randint(0, 30, (5, 3)), torch.randint(0, 30, (5, 300))
    expected = torch.stack([torch.stack([view[n] @ memory[m] for m in row]) for n, row in enumerate(few)])
    torch.testing.assert_close(scored(view, memory, few), expected)
    torch.testing.assert_close(scored(view, memory, many)[:, :3], scored(view, memory, many[:, :3].contiguous()))


def test_the_log_odds_are_those_of_the_formula():
    memory = bank(CLASSES, negatives=6)
    rows = torch.tensor([1, 6])
    student, teacher = (F.normalize(torch.randn(2, 8), dim=1) for _ in range(2))
    found = memory.log_odds(student, teacher, rows, 5, SESSION)
    candidates = memory.candidates(rows, 5)
    for view, kept, odds in zip((student, teacher), (memory.of_teacher, memory.of_student), found, strict=True):
        score = torch.exp(torch.einsum("nd,nkd->nk", view, kept[candidates]) / 0.07)
        z = score.mean() * 8
        torch.testing.assert_close(odds, torch.log(score / z / (6 / 8)), rtol=1e-4, atol=1e-4)
    again = memory.log_odds(student, teacher, rows, 6, SESSION)  # the constants stay those of the first rows
    score = torch.exp(torch.einsum("nd,nkd->nk", student, memory.of_teacher[memory.candidates(rows, 6)]) / 0.07)
    torch.testing.assert_close(again[0], score.log() - memory.log_z[0] - np.log(6 / 8), rtol=1e-4, atol=1e-4)


def test_what_is_remembered_moves_by_the_momentum_and_keeps_its_length():
    memory = bank(CLASSES)
    before = memory.of_student.clone()
    student, teacher = (F.normalize(torch.randn(2, 8), dim=1) for _ in range(2))
    memory.remember(student, teacher, torch.tensor([1, 6]), SESSION)
    moved = F.normalize((before[[1, 6]] + student) / 2, dim=1)
    torch.testing.assert_close(memory.of_student[[1, 6]], moved)
    untouched = [0, 2, 3, 4, 5, 7]
    assert torch.equal(memory.of_student[untouched], before[untouched])


def test_of_a_row_that_comes_twice_the_last_is_remembered():
    memory, other = bank(CLASSES), bank(CLASSES)
    other.load_state_dict(memory.state_dict())
    student, teacher = (F.normalize(torch.randn(4, 8), dim=1) for _ in range(2))
    memory.remember(student, teacher, torch.tensor([1, 6, 1, 3]), SESSION)
    other.remember(student[1:], teacher[1:], torch.tensor([6, 1, 3]), SESSION)
    assert torch.equal(memory.of_student, other.of_student) and torch.equal(memory.of_teacher, other.of_teacher)
    assert last_places(torch.tensor([4, -1, 4, 0]), 5).tolist() == [2, 1, 2, 3]


def test_a_memory_is_in_the_state_and_is_no_buffer_that_ranks_would_send():
    memory, other = bank(CLASSES), bank(CLASSES)
    memory.remember(*(F.normalize(torch.randn(2, 8), dim=1) for _ in range(2)), torch.tensor([1, 6]), SESSION)
    assert not [*memory.buffers()] and not [*memory.parameters()]
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.of_student, memory.of_student) and torch.equal(other.of_teacher, memory.of_teacher)


# what a recipe says


BAD_HINTS = [
    ({"loss": "hint", "output": ["a", "b"], "layer": "1"}, "one layer and 2 outputs"),
    ({"loss": "hint", "output": "a", "layer": ["1", "2"]}, "2 layers and 1 outputs"),
    ({"loss": "relation", "output": "a", "projector": "linear"}, "takes no projector 'linear'; say none"),
    ({"loss": "hint", "output": "a", "teacher": "deep"}, r"hints\.0 names 'deep', which is not among the teachers"),
    ({"loss": "hint", "output": "a", "ramp": {"steps": 99}}, r"hints\.0\.ramp\.steps is 99, longer than the 20 steps"),
    ({"loss": "fitnet", "output": "a"}, "fitnet"),
    ({"loss": "hint", "output": []}, "at least 1 item"),
    (
        {"loss": "attention", "output": "a", "standardise": "phi_s"},
        "'attention' has a scale of its own.*hint, linear_embedding, review",
    ),
]


def test_an_output_is_standardised_as_phi_s_does_but_for_its_turn(digits, store):
    """PHI-S: H U' (x - mu) / alpha, of the covariance U L U', H a normalised Hadamard matrix, alpha^2 the mean of L."""
    run = hinted(store.parent, digits, store, {"loss": "hint", "output": "same", "standardise": "phi_s"})
    (hint,) = hints_at_work(run, MergedSplit(digits, "train"))
    kept = torch.from_numpy(features(digits, *digits.of("train"), "same")).half().float()
    pixels = kept.double().movedim(1, -1).reshape(-1, 8).numpy()
    spread, turn = np.linalg.eigh(np.cov(pixels.T, bias=True))
    turned = (pixels - pixels.mean(0)) @ turn @ (scipy.linalg.hadamard(8) / np.sqrt(8)).T / np.sqrt(spread.mean())
    np.testing.assert_allclose(turned.std(0), 1)
    (found,) = hint.of({"wide.same.value": kept.flatten(1)})
    found = found.double().movedim(1, -1).reshape(-1, 8).numpy()
    mine, theirs = ((each[:300, None] - each[None, :300]) ** 2 for each in (found, turned))
    np.testing.assert_allclose(mine.sum(-1), theirs.sum(-1), atol=1e-5)
    np.testing.assert_allclose((found**2).sum(-1), (turned**2).sum(-1), atol=1e-4)


def test_standardised_the_scale_of_a_teachers_layer_plays_no_role(digits, store, tmp_path):
    hint = {"loss": "hint", "output": "vector", "layer": "2", "projector": "linear", "standardise": "phi_s"}
    curves = []
    for number, (factor, constant) in enumerate([(1, 0), (64, 8)]):
        given = said_by_the_teacher(digits)
        given["vector"] = given["vector"] * factor + constant
        kept = keep_features(digits, tmp_path / f"store-{number}", given)
        run = hinted(tmp_path / f"run-{number}", digits, kept, hint, model="test_hints:Exact", steps=6)
        fit([run], SESSION)
        curves.append(curve(run, "train.hint"))
    assert curves[0] == pytest.approx(curves[1], rel=0.01)


@pytest.mark.parametrize(("hint", "told"), BAD_HINTS)
def test_what_a_hint_cannot_say_is_refused(hint, told):
    with pytest.raises(ValidationError, match=told):
        StudentConfig(model=CONV, teachers=["wide"], hints=[{"teacher": "wide", **hint}], train={"steps": 20})


def test_first_stages_have_one_length_and_no_early_stopping():
    alone = [{"teacher": "wide", "loss": "hint", "output": "a", "alone": share} for share in (0.2, 0.3)]
    with pytest.raises(ValidationError, match=r"a first stage of \[0\.2, 0\.3\] of the steps; give `alone` one value"):
        StudentConfig(model=CONV, teachers=["wide"], hints=alone)
    with pytest.raises(ValidationError, match="early_stopping could end the training there"):
        StudentConfig(model=CONV, teachers=["wide"], hints=alone[:1], train={"early_stopping": {"patience": 3}})


def test_a_teacher_may_be_heard_by_a_hint_alone():
    given = {"model": CONV, "teachers": ["wide"], "objective": [HARD]}
    with pytest.raises(ValidationError, match="no term listens"):
        StudentConfig(**given)
    StudentConfig(**given, hints=[{"loss": "hint", "teacher": "wide", "output": "a"}])


def test_the_papers_form_of_attention_has_a_weight_of_its_own():
    hints = HINTS.validate_python(
        [
            {"loss": "attention", "teacher": "a", "output": "x"},
            {"loss": "attention", "teacher": "a", "output": "x", "form": "paper"},
            {"loss": "attention", "teacher": "a", "output": "x", "form": "paper", "weight": 3.0},
        ]
    )
    assert [hint.weight for hint in hints] == [1000.0, 10.0, 3.0]
    assert HINTS.validate_python([hint.model_dump() for hint in hints]) == hints


def test_a_student_without_hints_says_nothing_of_them():
    assert "hints" not in StudentConfig(model=CONV, teachers=["wide"]).model_dump(mode="json")


def test_a_hint_without_a_stepper_of_its_own_is_no_plain_step(digits, store, tmp_path):
    assert isinstance(training(hinted(tmp_path, digits, store, EACH["hint"])).stepper, HintedStepper)
    assert not isinstance(training(make_run(tmp_path, digits, source(store), objective=(SOFT,))).stepper, HintedStepper)
