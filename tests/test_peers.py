"""Synchronous cohorts: laws, and single-process references written out by hand, in float64."""

import dataclasses
import itertools
import json
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from students.cohorts.exchange import WIRES, Exchange
from students.cohorts.features import Projector, maps_of
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.objective.peer_targets import PEER_RULES
from students.runs.session import PlainSession
from students.training.train import Clock
from teachers.errors import CollegiumError, RecipeError
from teachers.models.folder import load_model
from teachers.users_code.imports import use_user_path
from tests.cohort_runs import CONV, EXACT, MLP, cohort_config, in_turn, make_cohort, on_ranks
from tests.training_runs import HARD, SOFT, make_run, make_store, source

SESSION = PlainSession()
EXACT_TOO = {"model": "cohort_runs:Exact", "arguments": {"hidden": 16}}
OTHER = {"model": "cohort_runs:ExactPlain"}


def weights_of(run):
    return [safetensors.torch.load_file(member.folder / "model.safetensors") for member in run.members]


def farthest(one, other):
    """The largest difference of any weight of any member."""
    pairs = zip(weights_of(one), weights_of(other), strict=True)
    return max(float((a[name] - b[name]).abs().max()) for a, b in pairs for name in a)


def last(**train):
    """So that the weights delivered are those after the last step."""
    return {"train": {"evaluate_every": 10_000, "schedule": "constant", "weight_decay": 0.01} | train}


def by_hand(run, loss_of, steps=20):
    """The members of `run` trained by a loop of plain torch: `loss_of(logits of all, labels, member)`."""
    use_user_path(run.members[0].user_path)
    data = SharedData().of(run.members, SESSION)
    from teachers.models.modules import build_module

    modules = []
    for member, own in zip(run.members, data, strict=True):
        torch.manual_seed(member.draw_seed)
        shape = own.preprocessor.input_shape
        modules.append(build_module(member.model, member.arguments, num_classes=10, input_shape=shape).train())
    optimizers = [torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=0.01) for module in modules]
    stream = Batches(data[0].rows, run.members[0], SESSION).from_step(0)
    for _ in range(steps):
        batch = next(stream)
        inputs = data[0].rows.inputs(batch, None)
        logits = [module(inputs) for module in modules]
        labels = torch.where(batch["has_label"] > 0, batch["label"], -1)
        losses = [loss_of(logits, labels, member) for member in range(len(modules))]
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward(retain_graph=True)
        for optimizer in optimizers:
            optimizer.step()
    return [module.state_dict() for module in modules]


def mutual_loss(logits, labels, member):
    """CE + 1/(K-1) sum_l KL(p_l || p_k), T = 1 (deep mutual learning)."""
    own, others = logits[member], [each.detach() for n, each in enumerate(logits) if n != member]
    hard = F.cross_entropy(own, labels, ignore_index=-1)
    pulls = [F.kl_div(own.log_softmax(-1), other.softmax(-1), reduction="batchmean") for other in others]
    return hard + sum(pulls) / len(pulls)


def matches(run, expected, tolerance=1e-8):
    for found, reference in zip(weights_of(run), expected, strict=True):
        for name, value in reference.items():
            assert (found[name] - value).abs().max() < tolerance, name


@pytest.mark.parametrize("members", [[EXACT, EXACT], [EXACT, OTHER], [EXACT, OTHER, EXACT_TOO]])
def test_mutual_learning_in_turn_is_the_papers_formula(members, digits, tmp_path):
    config = cohort_config("mutual", dict(zip("abc", members, strict=False)), **last())
    run = make_cohort(tmp_path, digits, config)
    in_turn(run)
    matches(run, by_hand(run, mutual_loss))


@pytest.mark.parametrize("members", [[EXACT, EXACT], [EXACT, OTHER]])
def test_two_ranks_train_what_one_process_trains(members, digits, tmp_path):
    config = cohort_config("mutual", dict(zip("ab", members, strict=True)), **last())
    on_ranks(tmp_path / "ranks", digits, config, world=2)
    run = make_cohort(tmp_path / "ranks", digits, config)
    matches(run, by_hand(run, mutual_loss))
    here = make_cohort(tmp_path / "here", digits, config)
    in_turn(here)
    for one, other in zip(run.members, here.members, strict=True):
        results = [json.loads((member.folder / "result.json").read_text()) for member in (one, other)]
        assert results[0]["validation"] == pytest.approx(results[1]["validation"], abs=1e-8)


def test_a_bfloat16_member_beside_a_float32_one_trains_on_ranks_as_in_turn(digits, tmp_path):
    members = {"a": {**MLP, "train": {"precision": "bfloat16"}}, "b": CONV}
    config = cohort_config("mutual", members, **last())
    on_ranks(tmp_path / "ranks", digits, config, world=2)
    here = make_cohort(tmp_path / "here", digits, config)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "ranks", digits, config), here) < 1e-2  # one unit of bfloat16 moves a step


@pytest.mark.parametrize("wire", ["float16", "bfloat16"])
def test_what_is_rounded_on_its_way_trains_on_ranks_as_in_turn_and_nearly_as_in_full(wire, digits, tmp_path):
    rounded, full = (cohort_config("mutual", {"a": EXACT, "b": OTHER}, wire=w, **last()) for w in (wire, None))
    on_ranks(tmp_path / "ranks", digits, rounded, world=2)
    on_two = make_cohort(tmp_path / "ranks", digits, rounded)
    here = {name: make_cohort(tmp_path / name, digits, each) for name, each in (("in", rounded), ("full", full))}
    for run in here.values():
        in_turn(run)
    assert farthest(on_two, here["in"]) < 1e-8
    assert 0 < farthest(on_two, here["full"]) < 0.02


@pytest.mark.parametrize("wire", WIRES.values())
def test_what_is_finite_arrives_finite(wire):
    said = torch.tensor([[3.4e38, -3.4e38, 1e5, 1.0]])
    ((heard,), _) = Exchange(SESSION, wire)([[said], [said]])
    assert heard.dtype == torch.float32 and heard.isfinite().all() and heard[0, 3] == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_in_turn_a_member_is_heard_as_precisely_as_it_speaks(order):
    said = [torch.full((2, 3), 1 / 3, dtype=dtype) for dtype in (torch.bfloat16, torch.float32, torch.float64)]
    heard = Exchange(SESSION)([[said[number]] for number in order])
    assert all(torch.equal(each, said[number].double()) for (each,), number in zip(heard, order, strict=True))


def test_two_workers_a_member_train_what_one_trains(digits, tmp_path):
    one, two = (cohort_config("mutual", workers_per_member=n, **last(accumulate=2)) for n in (1, 2))
    on_ranks(tmp_path / "two", digits, two, world=4)
    here = make_cohort(tmp_path / "one", digits, one)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "two", digits, two), here) < 1e-6
    points = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    sent = [point["value"] for point in points if point["key"] == "cohort.exchange_bytes"]
    assert sent == [16 * 10 * 4]  # a step: 16 rows of 10 classes in float32, however many parts it has


def test_a_mutual_cohort_of_one_is_plain_training_bit_for_bit(digits, tmp_path):
    store = make_store(tmp_path / "store", digits)
    objective = [SOFT, HARD]
    config = cohort_config(
        "mutual", {"a": MLP}, teachers=["wide"], objective=objective, train={"steps": 40, "learning_rate": 5e-3}
    )
    cohort = make_cohort(tmp_path / "cohort", digits, config, sources=(source(store),))
    in_turn(cohort)
    plain = make_run(tmp_path / "plain", digits, source(store), objective=objective)
    fit([plain], SESSION)
    for name in ("model.safetensors", "config.json", "result.json"):
        assert (cohort.members[0].folder / name).read_bytes() == (plain.folder / name).read_bytes()


def test_members_of_one_architecture_start_apart_and_learn_alike(digits, tmp_path):
    run = make_cohort(tmp_path, digits, cohort_config("mutual", train={"steps": 300}))
    results = in_turn(run)
    first, second = weights_of(run)
    assert any((first[name] - second[name]).abs().max() > 0.01 for name in first)
    points = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    agreement = [point["value"] for point in points if point["key"] == "cohort.agreement"]
    assert agreement[-1] > 0.8 and all(result.validation["accuracy"] > 0.7 for result in results)


@pytest.mark.parametrize("target", ["naive", "linear", "min_logit", "general"])
def test_kdcl_on_two_ranks_is_kdcl_in_turn(target, digits, tmp_path):
    config = cohort_config("kdcl", {"a": EXACT, "b": OTHER}, target=target, **last(augment="affine", evaluate_every=5))
    on_ranks(tmp_path / "ranks", digits, config, world=2)
    here = make_cohort(tmp_path / "here", digits, config)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "ranks", digits, config), here) < 1e-8


def test_kdcl_min_logit_is_the_papers_formula(digits, tmp_path):
    config = cohort_config("kdcl", {"a": EXACT, "b": OTHER}, **last())
    run = make_cohort(tmp_path, digits, config)
    in_turn(run)

    def loss_of(logits, labels, member):
        has = labels >= 0
        z = torch.stack([each.detach() for each in logits])[:, has]
        at_label = z.gather(2, labels[has].expand(2, -1)[..., None])
        target = (z - at_label).amin(0)
        own = logits[member]
        pull = F.kl_div((own[has] / 2).log_softmax(-1), (target / 2).softmax(-1), reduction="sum") * 4
        return (F.cross_entropy(own[has], labels[has], reduction="sum") + pull) / max(int(has.sum()), 1)

    matches(run, by_hand(run, loss_of))


def test_members_of_kdcl_see_views_of_their_own_and_others_the_same(digits, tmp_path):
    seen = {}
    for method in ("kdcl", "mutual"):
        run = make_cohort(tmp_path / method, digits, cohort_config(method, train={"augment": "affine"}))
        from students.fitting.fit import cohort_of

        cohort = cohort_of(run, SESSION, SharedData())
        batches = next(cohort.batches())
        seen[method] = [
            each.stepper.begin(batch, 3).inputs for each, batch in zip(cohort.trainings, batches, strict=True)
        ]
    assert torch.equal(*seen["mutual"])
    assert not torch.equal(*seen["kdcl"])


def test_a_teacher_that_moves_in_some_steps_only_sees_the_students_crops_in_all(digits, tmp_path):
    from students.fitting.fit import cohort_of

    members = {"big": {**EXACT, "role": "deep_teacher"}, "small": {**EXACT, "role": "student"}}
    config = cohort_config("online_teacher", members, teachers_every=3, train={"augment": "affine"})
    cohort = cohort_of(make_cohort(tmp_path, digits, config), SESSION, SharedData())
    seen = {training.run.name: [] for training in cohort.trainings}
    for training in cohort.trainings:
        mine = seen[training.run.name]
        training.module.register_forward_pre_hook(lambda _, inputs, mine=mine: mine.append(inputs[0]))
    for batches in itertools.islice(cohort.batches(), 4):
        cohort.advance(batches, Clock(1e9))
    big, small = seen.values()
    assert len(big) == len(small) == 4
    assert all(torch.equal(*inputs) for inputs in zip(big, small, strict=True))


def exchange_config(members, **options):
    layered = {name: {**member, "layers": layers} for name, (member, layers) in members.items()}
    return cohort_config("feature_exchange", layered, **options)


def test_feature_exchange_on_two_ranks_is_feature_exchange_in_turn(digits, tmp_path):
    config = exchange_config({"a": (EXACT, ["1"]), "b": ({**EXACT, "arguments": {"hidden": 24}}, ["1"])}, **last())
    on_ranks(tmp_path / "ranks", digits, config, world=2)
    here = make_cohort(tmp_path / "here", digits, config)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "ranks", digits, config), here) < 1e-8


def test_feature_exchange_is_its_formula(digits, tmp_path):
    """CE + DML + mean over layers and peers of MSE(P(F_i), sg F_j), projectors trained with their member."""
    wide = {**EXACT, "arguments": {"hidden": 24}}
    config = exchange_config({"a": (EXACT, ["1"]), "b": (wide, ["1"])}, **last())
    run = make_cohort(tmp_path, digits, config)
    in_turn(run)
    data = SharedData().of(run.members, SESSION)
    from teachers.models.modules import build_module

    modules, projectors, optimizers = [], [], []
    widths = [16, 24]
    for number, (member, own) in enumerate(zip(run.members, data, strict=True)):
        torch.manual_seed(member.draw_seed)
        shape = own.preprocessor.input_shape
        modules.append(build_module(member.model, member.arguments, num_classes=10, input_shape=shape))
        torch.manual_seed(member.draw_seed)
        projectors.append(Projector([widths[number]], [widths[1 - number]]).double())
        parameters = [*modules[-1].parameters(), *projectors[-1].parameters()]
        optimizers.append(torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01))
    stream = Batches(data[0].rows, run.members[0], SESSION).from_step(0)
    for _ in range(20):
        batch = next(stream)
        inputs = data[0].rows.inputs(batch, None).double()
        maps = [module[1](inputs.flatten(1)) for module in modules]
        logits = [module[3](module[2](each)) for module, each in zip(modules, maps, strict=True)]
        labels = torch.where(batch["has_label"] > 0, batch["label"], -1)
        for n in (0, 1):
            loss = mutual_loss(logits, labels, n) + F.mse_loss(projectors[n](maps[n]), maps[1 - n].detach())
            optimizers[n].zero_grad()
            loss.backward(retain_graph=True)
        for optimizer in optimizers:
            optimizer.step()
    matches(run, [module.state_dict() for module in modules])


def test_a_hook_of_the_models_own_is_left_where_it_is():
    module, seen = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), []
    module[1].register_forward_hook(lambda *of_call: seen.append(of_call))
    assert [maps.shape for maps in maps_of(module, ["1"], torch.zeros(1, 2, 2), "here")] == [(1, 3)]
    module(torch.zeros(1, 2, 2))
    assert len(seen) == 2 and len(module[1]._forward_hooks) == 1


def online(members=("wide_teacher", "deep_teacher", "student"), **options):
    kinds = {"wide_teacher": OTHER, "deep_teacher": EXACT, "student": EXACT_TOO}
    return cohort_config(
        "online_teacher", {role.split("_")[0]: {**kinds[role], "role": role} for role in members}, **options
    )


@pytest.mark.parametrize("every", [1, 3])
def test_online_teachers_move_as_if_there_were_no_student(every, digits, tmp_path):
    config = online(teachers_every=every, **last(steps=21))
    run = make_cohort(tmp_path / "with", digits, config)
    in_turn(run)
    without = make_cohort(tmp_path / "without", digits, config)
    without = dataclasses.replace(without, members=without.members[:2])
    in_turn(without)
    for one, other in zip(run.members[:2], without.members, strict=True):
        assert (one.folder / "model.safetensors").read_bytes() == (other.folder / "model.safetensors").read_bytes()


def test_an_online_teacher_that_moves_every_step_is_plain_training(digits, tmp_path):
    run = make_cohort(tmp_path / "cohort", digits, online(**last()))
    in_turn(run)
    plain = make_run(
        tmp_path / "plain", digits, objective=[{"loss": "hard"}], model="cohort_runs:ExactPlain",
        steps=20, learning_rate=1e-2, evaluate_every=10_000, schedule="constant", weight_decay=0.01,
    )  # fmt: skip
    fit([plain], SESSION)
    assert (run.members[0].folder / "model.safetensors").read_bytes() == (
        plain.folder / "model.safetensors"
    ).read_bytes()


def test_a_students_loss_has_no_gradient_at_its_teachers(digits, tmp_path):
    from students.fitting.fit import cohort_of

    run = make_cohort(tmp_path, digits, online(teachers_every=2, train={"steps": 4}))
    cohort = cohort_of(run, SESSION, SharedData())
    for training in cohort.trainings:
        training.stepper.end = lambda work: work.terms[0]
    batches = next(cohort.batches())
    for training in cohort.trainings:
        training.progress.step = 1  # a step of the student's alone
    cohort.advance(batches, Clock(1e9))
    teachers, student = cohort.trainings[:2], cohort.trainings[2]
    assert all(p.grad is None for teacher in teachers for p in teacher.module.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.module.parameters())


def test_a_live_teachers_channels_reach_the_student(digits, tmp_path):
    members = {
        "wide": {
            "model": "students.models:small_conv_net",
            "arguments": {"width": 8},
            "role": "wide_teacher",
            "layers": ["2"],
        },
        "small": {**CONV, "role": "student", "layers": ["2"]},
    }
    final = {}
    for weight in (0.0, 1.0):
        objective = [{"loss": "peer"}, {"loss": "channel", "weight": weight}]
        config = cohort_config("online_teacher", members, objective=objective, train={"steps": 100})
        folder = tmp_path / str(weight)
        in_turn(make_cohort(folder, digits, config))
        points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        final[weight] = [p["value"] for p in points if p["key"] == "train.channel" and p["run"] == "small/seed-0"][-1]
    assert final[1.0] < 0.7 * final[0.0]


CHANNEL = [{"loss": "peer"}, {"loss": "channel"}]


def channelled(**options):
    """The deep teacher has no stage maps: nobody follows them."""
    wide = {**EXACT, "arguments": {"hidden": 24}, "role": "wide_teacher", "layers": ["1"]}
    small = {**EXACT, "role": "student", "layers": ["1"]}
    members = {"wide": wide, "deep": {**OTHER, "role": "deep_teacher"}, "small": small}
    return cohort_config("online_teacher", members, objective=CHANNEL, **options)


def test_channels_on_three_ranks_are_those_in_turn_and_only_the_wide_teachers_maps_travel(digits, tmp_path):
    from students.fitting.fit import cohort_of

    config = channelled(teachers_every=2, **last())
    on_ranks(tmp_path / "ranks", digits, config, world=3)
    here = make_cohort(tmp_path / "here", digits, config)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "ranks", digits, config), here) < 1e-8
    cohort = cohort_of(make_cohort(tmp_path / "said", digits, config), SESSION, SharedData())
    batches = next(cohort.batches())
    works = [each.stepper.begin(batch, 0) for each, batch in zip(cohort.trainings, batches, strict=True)]
    said = [cohort.say(each, work, True, 0) for each, work in zip(cohort.trainings, works, strict=True)]
    assert [len(each) for each in said] == [2, 1, 1]


@pytest.mark.parametrize("method", ["one", "group_leader"])
def test_members_of_one_trunk_share_it_and_are_networks_of_their_own(method, digits, tmp_path):
    members = {name: {**MLP, "arguments": {"hidden": [32, 16]}} for name in "abc"}
    config = cohort_config(method, members, trunk="2", train={"steps": 200, "evaluate_every": 200})
    run = make_cohort(tmp_path, digits, config)
    results = in_turn(run)
    first, second, third = weights_of(run)
    assert torch.equal(first["1.weight"], second["1.weight"]) and torch.equal(first["1.weight"], third["1.weight"])
    assert not torch.equal(first["3.weight"], second["3.weight"])
    inputs = digits.inputs(digits.of("validation")[0], 0, 5)
    models = [load_model(member.folder) for member in run.members]
    assert all(model(inputs).shape == (5, 10) for model in models)
    assert all(result.validation["accuracy"] > 0.6 for result in results)


def trunk_by_hand(run, gate_of, loss_of, steps=20):
    """Networks of one trunk, their branches and what `gate_of` makes, trained on `loss_of(branches, gate, trunk's output, labels)`."""
    from teachers.models.modules import build_module

    data = SharedData().of(run.members, SESSION)
    nets = []
    for member, own in zip(run.members, data, strict=True):
        torch.manual_seed(member.draw_seed)
        nets.append(
            build_module(member.model, member.arguments, num_classes=10, input_shape=own.preprocessor.input_shape)
        )
    torch.manual_seed(run.members[0].draw_seed)
    gate = torch.nn.ModuleList(gate_of()).double()
    trunk = torch.nn.Sequential(*[*nets[0]][:2])
    branches = [torch.nn.Sequential(*[*net][2:]) for net in nets]
    parameters = [*trunk.parameters(), *gate.parameters(), *(p for branch in branches for p in branch.parameters())]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01)
    stream = Batches(data[0].rows, run.members[0], SESSION).from_step(0)
    for _ in range(steps):
        batch = next(stream)
        labels = torch.where(batch["has_label"] > 0, batch["label"], -1)
        loss = loss_of(branches, gate, trunk(data[0].rows.inputs(batch, None)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shared = {name: value for name, value in nets[0].state_dict().items() if name.startswith("1.")}
    return [net.state_dict() | shared for net in nets]


def pull(target, z, temperature=3.0):
    """T^2 KL(target || z)."""
    softened = F.kl_div((z / temperature).log_softmax(-1), (target / temperature).softmax(-1), reduction="batchmean")
    return temperature**2 * softened


def trunk_config(method, members):
    objective = [{"loss": "hard"}, {"loss": "peer", "temperature": 3.0}]
    network = {**EXACT, "arguments": {"hidden": [16, 8]}}
    return cohort_config(method, dict.fromkeys(members, network), trunk="1", objective=objective, **last())


def test_one_is_its_formula(digits, tmp_path):
    """sum_b CE(z_b) + CE(z_e) + sum_b T^2 KL(sg z_e || z_b), z_e by a gate of softmax(ReLU(BN(FC(GAP(x)))))."""
    run = make_cohort(tmp_path, digits, trunk_config("one", "ab"))
    in_turn(run)

    def loss_of(branches, gate, shared, labels):
        said = [branch(shared) for branch in branches]
        g = F.relu(gate[1](gate[0](shared))).softmax(-1)
        z_e = g[:, :1] * said[0] + g[:, 1:] * said[1]
        hard = [F.cross_entropy(z, labels, ignore_index=-1) for z in [z_e, *said]]
        return sum(hard) + sum(pull(z_e.detach(), z) for z in said)

    gate = lambda: [torch.nn.Linear(16, 2), torch.nn.BatchNorm1d(2)]  # noqa: E731
    matches(run, trunk_by_hand(run, gate, loss_of))


def test_group_leader_is_its_formula(digits, tmp_path):
    """A peer follows sum_k a_k sg(z_k), a = softmax_k <q(h), k(h_k)>, which learns too; the leader the mean of its peers."""
    run = make_cohort(tmp_path, digits, trunk_config("group_leader", "abc"))
    in_turn(run)

    def loss_of(branches, gate, shared, labels):
        features = [branch[:-1](shared) for branch in branches]
        z = [branch[-1](hidden) for branch, hidden in zip(branches, features, strict=True)]
        queries, keys = ([layer(hidden) for hidden in features[:2]] for layer in gate)
        constant = torch.stack([logits.detach() for logits in z[:2]], 1)
        loss = pull(constant.mean(1), z[2])
        for query, own in zip(queries, z, strict=False):
            attention = torch.stack([(query * key).sum(1) for key in keys], 1).softmax(1)
            loss = loss + pull((attention[:, :, None] * constant).sum(1), own)
        return loss + sum(F.cross_entropy(logits, labels, ignore_index=-1) for logits in z)

    gate = lambda: [torch.nn.Linear(8, 32, bias=False) for _ in range(2)]  # noqa: E731
    matches(run, trunk_by_hand(run, gate, loss_of))


def test_a_trunk_on_two_workers_is_the_trunk_on_one(digits, tmp_path):
    """Of a group leader: the gate of `one` has batch statistics, which each worker takes over its own rows."""
    members = {name: {**EXACT, "arguments": {"hidden": 16}} for name in "abc"}
    one, two = (
        cohort_config("group_leader", members, workers_per_member=n, trunk="1", **last(learning_rate=1e-3))
        for n in (1, 2)
    )
    on_ranks(tmp_path / "two", digits, two, world=2)
    here = make_cohort(tmp_path / "one", digits, one)
    in_turn(here)
    assert farthest(make_cohort(tmp_path / "two", digits, two), here) < 1e-8


def test_trunks_that_do_not_fit_are_refused_with_the_first_difference(digits, tmp_path):
    members = {"a": {**MLP, "arguments": {"hidden": [32, 16]}}, "b": {**MLP, "arguments": {"hidden": [24, 16]}}}
    run = make_cohort(tmp_path, digits, cohort_config("one", members, trunk="2"))
    with pytest.raises(RecipeError, match=r"members\.b: its trunk is not that of .*members\.a.*out_features=24"):
        in_turn(run)


@pytest.mark.parametrize("method", [{"method": "mutual"}, {"method": "kdcl", "target": "general"}])
def test_a_resumed_cohort_ends_like_an_undisturbed_one(method, digits, tmp_path):
    from students.fitting.fit import cohort_of

    config = cohort_config(members={"a": MLP, "b": CONV}, train={"steps": 60, "evaluate_every": 15}, **method)
    whole = make_cohort(tmp_path / "whole", digits, config)
    in_turn(whole)
    run = make_cohort(tmp_path / "stopped", digits, config)
    run.stage.mkdir()
    stopped = cohort_of(run, SESSION, SharedData())
    for batches in stopped.batches():
        stopped.advance(batches, Clock(1e9))
        if stopped.step in (15, 30):
            stopped.look()
        if stopped.step == 37:
            stopped.save()
            break
    in_turn(run)
    for one, other in zip(run.members, whole.members, strict=True):
        for name in ("model.safetensors", "result.json"):
            assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


def losses(folder):
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(point["step"], point["value"]) for point in points if point["key"] == "train.loss"]


def test_the_loss_of_two_workers_that_were_resumed_is_that_of_the_steps_since(digits, tmp_path):
    from students.fitting.fit import cohort_of

    folders = tmp_path / "here", tmp_path / "ranks"
    two = cohort_config("mutual", {"a": MLP}, workers_per_member=2, **last())
    for folder in folders:
        run = make_cohort(folder, digits, cohort_config("mutual", {"a": MLP}, **last()))
        folder.mkdir()
        cohort = cohort_of(run, SESSION, SharedData())
        for batches in cohort.batches():
            cohort.advance(batches, Clock(1e9))
            if cohort.step == 17:
                cohort.save()
                break
        cohort.trainings[0].progress.pending.clear()
        if folder.name == "here":
            cohort.train(1e9)
    on_ranks(folders[1], digits, two, world=2)
    assert losses(folders[1]) == [(20, pytest.approx(losses(folders[0])[0][1], abs=1e-5))]


def test_members_go_back_to_a_checkpoint_that_all_have(digits, tmp_path):
    from students.training.checkpoint import newest_common

    run = make_cohort(tmp_path, digits, cohort_config("mutual"))
    for member, steps in zip(run.members, [(10, 20), (10,)], strict=True):
        member.folder.mkdir(parents=True)
        from students.training.checkpoint import Attempt

        attempt = Attempt(member, "first")
        for step in steps:
            attempt.save(step, {"step": step})
    assert newest_common(run.members) == "000-first/step-000010"
    for member in run.members:
        for rollbacks, name in ((2, "b"), (1, "c"), (0, "z")):  # told apart by nothing but who came last
            Attempt(member, name, rollbacks=rollbacks).save(10, {"step": 10})
    assert newest_common(run.members) == "002-b/step-000010"
    assert newest_common(run.members, before=10) is None


def test_who_diverges_is_named_and_goes_on_at_half_its_rate(digits, tmp_path, caplog):
    wild = {
        "model": "cohort_runs:Exploding",
        "arguments": {"limit": 0.02},
        "train": {"learning_rate": 0.05},
    }
    config = cohort_config(
        "mutual", {"a": MLP, "b": wild}, train={"steps": 40, "schedule": "constant"}, max_rollbacks=4
    )
    run = make_cohort(tmp_path, digits, config)
    results = in_turn(run)
    told = [message for message in caplog.messages if "diverged" in message]
    assert told and all(
        re.search(r"trio: b/seed-0 diverged at step \d+; back to step \d+, at half", each) for each in told
    )
    assert all(result.steps == 40 for result in results)


def test_who_goes_on_diverging_ends_the_run_by_name(digits, tmp_path):
    wild = {"model": "cohort_runs:Exploding", "arguments": {"limit": 1e-9}}
    run = make_cohort(tmp_path, digits, cohort_config("mutual", {"a": MLP, "b": wild}, max_rollbacks=2))
    with pytest.raises(CollegiumError, match=r"b/seed-0 diverged at step 2, after 2 rollbacks; lower its"):
        in_turn(run)


def test_what_is_saved_after_a_rollback_and_a_resume_is_the_newest(digits, tmp_path):
    from students.fitting.fit import cohort_of
    from students.training.checkpoint import newest_common

    run = make_cohort(tmp_path, digits, cohort_config("mutual"))
    for step in (3, 5):
        cohort = cohort_of(run, SESSION, SharedData())
        if not cohort.resume():
            cohort.slow_down([0, 1])
        assert cohort.rollbacks == [0, 1]
        for training in cohort.trainings:
            training.progress.step = step
        cohort.save()
        assert newest_common(run.members).endswith(f"/step-00000{step}")


def test_a_checkpoint_whose_weights_overflow_at_once_is_not_gone_back_to(digits, tmp_path, caplog):
    from students.fitting.fit import cohort_of

    run = make_cohort(tmp_path, digits, cohort_config("mutual", train={"steps": 12}))
    cohort = cohort_of(run, SESSION, SharedData())
    for batches in cohort.batches():
        cohort.advance(batches, Clock(1e9))
        if cohort.step == 3:
            cohort.save()
        if cohort.step == 5:
            with torch.no_grad():
                [*cohort.trainings[1].module.parameters()][-1].fill_(float("inf"))
            cohort.save()
            break
    results = in_turn(run)
    assert [told for told in caplog.messages if "diverged" in told] == [
        "distill/trio: b/seed-0 diverged at step 6; back to step 3, at half the learning rate"
    ]
    assert all(result.steps == 12 for result in results)


def test_a_resting_teacher_that_overflows_is_named_and_not_the_student_that_heard_it(digits, tmp_path):
    wild = {"model": "cohort_runs:OverflowingAtRest", "role": "deep_teacher"}
    members = {"deep": wild, "small": {**MLP, "role": "student"}}
    run = make_cohort(
        tmp_path, digits, cohort_config("online_teacher", members, teachers_every=2, max_rollbacks=0, **last())
    )
    with pytest.raises(CollegiumError, match=r"trio: deep/seed-0 diverged at step 2, after 0"):
        in_turn(run)


def test_every_rule_is_of_the_literal_table():
    assert set(PEER_RULES["class_axis"]) == {"others", "mean_of_others", "naive", "linear", "min_logit", "general"}


def test_members_of_two_transfer_sets_are_refused(digits, tmp_path):
    from teachers.config.transfer_set import SklearnSource, TransferSetConfig
    from teachers.preparing.prepare import prepare

    iris = SklearnSource(kind="sklearn", name="wine")
    other = prepare(TransferSetConfig(source=iris, inputs="features", label="target"), tmp_path / "wine")
    run = make_cohort(tmp_path, digits, cohort_config("mutual"))
    first, second = run.members
    mixed = dataclasses.replace(run, members=(first, dataclasses.replace(second, transfer_set=other.folder)))
    with pytest.raises(CollegiumError, match="different classes"):
        in_turn(mixed)
