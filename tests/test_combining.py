"""Combination in the engine: at the level of targets and of losses, with teachers left out, and told what a step knows."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from orchestrator.recipe.checks import class_problems, judging_problems
from orchestrator.recipe.combining import expert_problems, route_problems
from orchestrator.recipe.model import Recipe
from orchestrator.stages import keys
from students.config.combining import Options
from students.data.batches import Batches
from students.data.shared import SharedData
from students.fitting.fit import fit
from students.measuring.evaluate import evaluate_student
from students.measuring.hearing import hear
from students.measuring.labelled import Labelled
from students.measuring.weights import weights_by_class
from students.objective.combination import Combination
from students.objective.late import Late, Moment, left_out
from students.objective.losses.classification import softened
from students.objective.targets import Asked
from students.objective.units import Units
from students.runs.curves import read_records
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import RecipeError, UsersCodeError
from teachers.models.folder import load_model
from teachers.preparing.prepare import prepare
from teachers.soft_targets.combine.class_scores import mean_probability
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.store import SoftTargetStore
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column
from tests.rank_runs import on_ranks
from tests.test_evaluate import make_source
from tests.test_keys import recipe as keyed
from tests.test_keys import renamed, trainings
from tests.test_unknown import with_nan_rows
from tests.training_runs import HARD, SOFT, make_run, make_store, source

SESSION = PlainSession()
ALL = ("train", "validation", "test")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def three(digits, tmp_path_factory):
    """Teachers of which the last says anything."""
    folder = tmp_path_factory.mktemp("stores")
    return [
        source(make_store(folder / name, digits, name=name, seed=seed, noise=noise), name)
        for seed, (name, noise) in enumerate((("wide", 1.0), ("deep", 2.0), ("noise", 9.0)))
    ]


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """A student and its control, hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        make_run(folder, digits, name=name, objective=[HARD], labelled_only=True, steps=5)
        for name in ("student", "control")
    ]
    fit(runs, SESSION)
    return {run.name.partition("/")[0]: {0: run.folder} for run in runs}


@pytest.fixture(scope="module")
def judged(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    good = [make_source(folder, digits, name, seed=seed, splits=ALL) for seed, name in enumerate(("wide", "deep"))]
    return [*good, make_source(folder, digits, "half", seed=3, splits=ALL, classes=digits.classes[:5], class_map={})]


def weights_after(run, session=SESSION):
    fit([run], session)
    return torch.cat([each.flatten() for each in load_model(run.folder).module.state_dict().values()])


def counted(run):
    """By curve of a weight its points."""
    found = {}
    for record in read_records(run.stage / "metrics.jsonl"):
        if ".weight." in record["key"] and record["run"] == run.name:
            found.setdefault(record["key"].removeprefix("train.weight."), []).append(record["value"])
    return found


# rules of the tests


def told(logits, *, temperature, known, labels=None, context):
    """Looks at everything, and counts its calls in a state."""
    assert context.student.shape == logits.shape[1:] and not context.student.requires_grad
    assert len(context.sample_key) == len(labels) == logits.shape[1]
    context.state["calls"] += 1
    assert int(context.state["calls"]) == context.step + 1
    assert len(context.teacher_figures) in (0, len(logits))
    return mean_probability(logits, temperature=temperature, known=known)


told.state = lambda teachers, width: {"calls": torch.zeros((), dtype=torch.int64)}


def by_progress(logits, *, temperature, known, labels=None, context):
    """Whom it hears depends on what it has seen, of all ranks."""
    state = context.state
    apart = (logits.softmax(-1) - context.student.softmax(-1)).abs().sum((1, 2))
    state["apart"] += context.all_reduce(apart)
    weights = (-state["apart"] / state["apart"].max().clamp_min(1e-9)).softmax(0)
    share = weights[:, None].expand(logits.shape[:2])
    target = ((logits / temperature).softmax(-1) * share[..., None]).sum(0).log() * temperature
    return target, share


by_progress.state = lambda teachers, width: {"apart": torch.zeros(teachers)}


def nowhere(logits, *, temperature, known, labels=None, context):
    return logits.mean(0), torch.zeros(logits.shape[:2])


def not_a_number(logits, *, temperature, known, labels=None, context):
    return logits.mean(0) * torch.nan, torch.full(logits.shape[:2], 1 / len(logits))


def not_at_first(logits, *, temperature, known, labels=None, context):
    target, weights = mean_probability(logits, temperature=temperature, known=known)
    return target, weights * (context.step >= 3)


def not_later(logits, *, temperature, known, labels=None, context):
    target, weights = mean_probability(logits, temperature=temperature, known=known)
    return target, weights * (context.step < 3)


HERE = "tests.test_combining"


# both levels


@pytest.mark.parametrize("rule", ["mean_probability", "entropy", "confidence", "gradient"])
def test_losses_beside_each_teacher_are_the_loss_beside_their_mixture(rule, digits, three, tmp_path):
    """KL to a mean of probabilities and the mean of the KLs differ by what no student changes."""
    term = SOFT | {"combine": rule}
    targets = weights_after(make_run(tmp_path / "targets", digits, *three, objective=[term, HARD]))
    losses = weights_after(make_run(tmp_path / "losses", digits, *three, objective=[term | {"level": "losses"}, HARD]))
    torch.testing.assert_close(losses, targets, rtol=1e-4, atol=1e-5)


def test_other_losses_beside_each_teacher_are_not_that_beside_all(digits, three, tmp_path):
    """A vote of three classes is not the class of their mean."""
    term = {"loss": "teacher_label", "weight": 1.0}
    one = weights_after(make_run(tmp_path / "one", digits, *three, objective=[term]))
    each = weights_after(make_run(tmp_path / "each", digits, *three, objective=[term | {"level": "losses"}]))
    assert not torch.allclose(one, each, atol=1e-3)


def test_teachers_of_other_classes_are_compared_over_their_own(digits, judged, tmp_path):
    for level in ("targets", "losses"):
        term = SOFT | {"combine": "mean_logits", "level": level}
        run = make_run(tmp_path / level, digits, judged[0], judged[2], objective=[term, HARD], steps=20)
        assert weights_after(run).isfinite().all()


# teachers left out


def test_who_is_left_out_is_drawn_from_seed_and_step():
    drawn = [left_out(3, step, "objective.0.combine", 4, 1)[0] for step in range(400)]
    assert drawn == [left_out(3, step, "objective.0.combine", 4, 1)[0] for step in range(400)]
    assert drawn != [left_out(4, step, "objective.0.combine", 4, 1)[0] for step in range(400)]
    assert all(60 < drawn.count(number) < 140 for number in range(4))
    assert len({*left_out(0, 0, "", 5, 3)}) == 3


def test_all_but_one_left_out_are_steps_of_single_teachers(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"drop": 2}], steps=100)
    assert weights_after(run).isfinite().all()
    found = counted(run)
    assert set(found) == {"soft.wide", "soft.deep", "soft.noise"}
    for first, second, third in zip(*found.values(), strict=True):
        assert first + second + third == pytest.approx(1) and 0.05 < first < 0.6
    undropped = weights_after(make_run(tmp_path / "all", digits, *three, objective=[SOFT], steps=100))
    assert not torch.allclose(weights_after(run), undropped, atol=1e-3)


# told what a step knows


def test_a_rule_is_told_of_the_step_the_student_and_the_rows_and_keeps_a_state(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"combine": f"{HERE}:told"}, HARD])
    plain = make_run(tmp_path / "plain", digits, *three)
    torch.testing.assert_close(weights_after(run), weights_after(plain), rtol=1e-5, atol=1e-6)


def test_a_rule_is_told_what_teachers_and_student_are_worth_on_validation(digits, judged, tmp_path):
    run = make_run(tmp_path, digits, *judged[:2], objective=[SOFT | {"combine": f"{HERE}:told"}], evaluate_every=10)
    (data,) = SharedData().of([run], SESSION)
    training = Training(run, SESSION, data)
    training.train()
    late = data.rows.objective.terms[0].late
    assert [set(figures) for figures in late.teacher_figures] == [{"accuracy", "nll"}] * 2
    assert training.stepper.moment.student_figures["accuracy"] > 0.3
    assert int(training.stepper.moment.states["soft"]["calls"]) == 40


def test_what_a_rule_keeps_is_in_the_checkpoint(digits, three, tmp_path):
    def run(folder):
        return make_run(folder, digits, *three, objective=[SOFT | {"combine": f"{HERE}:by_progress"}, HARD], steps=60)

    whole = weights_after(run(tmp_path / "whole"))
    half = run(tmp_path / "half")
    (data,) = SharedData().of([half], SESSION)
    first = Training(half, SESSION, data)
    for batch, _ in zip(first.batches(), range(25), strict=False):
        first.advance(batch)
    first.save()
    second = Training(half, SESSION, data)
    second.resume()
    assert second.progress.step == 25
    assert (second.stepper.moment.states["soft"]["apart"] > 0).all()
    second.train()
    second.finish()
    assert torch.equal(weights_after(half), whole)


def test_seeds_that_share_an_objective_keep_states_of_their_own(digits, three, tmp_path):
    objective = [SOFT | {"combine": f"{HERE}:told"}]
    runs = [make_run(tmp_path, digits, *three, objective=objective, seed=seed, steps=10) for seed in (0, 1)]
    assert len(fit(runs, SESSION)) == 2  # the rule itself looks at its counts


@pytest.mark.parametrize(
    ("combine", "more"),
    [
        ("gradient", {}),
        ("mean_probability", {"drop": 1}),
        (f"{HERE}:by_progress", {}),
        ("entropy", {"level": "losses"}),
    ],
)
def test_two_ranks_give_the_weights_and_the_student_of_one(combine, more, digits, three, tmp_path):
    term = SOFT | {"combine": combine, **more}
    one, two = (make_run(tmp_path / name, digits, *three, objective=[term, HARD]) for name in ("one", "two"))
    expected = weights_after(one)
    on_ranks(tmp_path / "ranks", [two], world=2)
    torch.testing.assert_close(weights_after(two), expected, rtol=1e-4, atol=1e-5)
    found, theirs = counted(two), counted(one)
    assert set(found) == {"soft.wide", "soft.deep", "soft.noise"}
    for name in found:
        assert found[name] == pytest.approx(theirs[name], abs=1e-4)


def test_the_gradient_rule_keeps_within_its_box(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"combine": "gradient", "box": 0.5}], steps=50)
    weights_after(run)
    assert all(max(values) <= 0.5 + 1e-6 for values in counted(run).values())


def test_the_mean_of_what_rows_give_reaches_the_curves(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"combine": "entropy"}])
    weights_after(run)
    shares = {name: values[-1] for name, values in counted(run).items()}
    assert sum(shares.values()) == pytest.approx(1) and len(shares) == 3


# what is refused


@pytest.mark.parametrize(
    ("rule", "told_of_it"),
    [
        ("nowhere", r"gives every teacher the weight 0 in every row of the first \d+ steps, so nobody is heard"),
        ("not_a_number", r"gives target that are not finite"),
    ],
)
def test_a_rule_that_gives_nothing_is_refused(rule, told_of_it, digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[HARD, SOFT | {"combine": f"{HERE}:{rule}"}])
    with pytest.raises(RecipeError, match=rf"^students\.small\.objective\.1\.combine: {HERE}:{rule} {told_of_it}"):
        fit([run], SESSION)


def test_a_rule_may_hear_nobody_in_a_batch_or_later(digits, three, tmp_path):
    for rule in ("not_at_first", "not_later"):
        run = make_run(
            tmp_path / rule, digits, *three, objective=[HARD, SOFT | {"combine": f"{HERE}:{rule}"}], steps=120
        )
        assert weights_after(run).isfinite().all()


def test_a_rule_of_ours_that_is_right_is_not_looked_at_as_one_of_yours_is():
    """Of a class that nobody knows who counts there is NaN, though somebody knows it."""
    space = Space("multilabel", ("a", "b"))
    wide_alone = Combination(("wide", "deep"), "weighted", (1.0, 0.0), 1.0, answer="class_set", options=Options(drop=1))
    late = Late(wide_alone, Units(space), gapless=False)
    said = torch.tensor([[[1.0, torch.nan], [2.0, 3.0]]])  # of one row, by teacher
    moment = Moment(0, lambda tensor: tensor)
    found = late.decided(Asked(said, None), torch.zeros(1, 2), "soft", moment)
    assert found.target.isfinite().tolist() == [[True, False]] and found.weight.tolist() == [1.0]


def test_a_rule_that_raises_is_told_by_its_key(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three[:1], objective=[SOFT | {"combine": f"{HERE}:unknown_rule"}])
    with pytest.raises((RecipeError, UsersCodeError), match="unknown_rule"):
        fit([run], SESSION)


def test_correctness_made_once_is_that_of_every_step_where_some_rows_have_a_label(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"combine": "correctness"}, HARD], batch_size=256)
    found = []
    for memory in (None, 10_000):
        (data,) = (SharedData() if memory is None else SharedData(memory)).of([run], SESSION)
        batch = next(Batches(data.rows, run, SESSION).from_step(0))
        assert 0 < batch["has_label"].sum() < 256
        assert ("target.0" in data.rows.columns) == (memory is None)
        found.append(data.rows.objective.terms[0].ask(batch).target)
    once, per_step = found  # made once it is made ready for its loss, too
    torch.testing.assert_close(once, softened(per_step, temperature=2.0))


def first_terms(run):
    """The unweighted terms of the first step, and its batch."""
    (data,) = SharedData().of([run], SESSION)
    stepper = Training(run, SESSION, data).stepper
    batch = next(Batches(data.rows, run, SESSION).from_step(0))
    return stepper.advance(batch, 0), batch


def test_who_is_left_out_does_not_bring_in_rows_without_a_label(digits, three, tmp_path):
    """Teachers that say the same: whoever is left out, it is the loss of one."""
    same = [dataclasses.replace(three[0], name=name) for name in ("wide", "twin")]
    gaps = [dataclasses.replace(each, class_map={digits.classes[0]: None}) for each in same]
    for name, heard in (("all", same), ("gaps", gaps)):
        objective = [{"loss": "dkd"}, HARD]
        one = make_run(tmp_path / name / "1", digits, heard[0], objective=objective, batch_size=256)
        dropped = [{"loss": "dkd", "drop": 1}, HARD]
        two = make_run(tmp_path / name / "2", digits, *heard, objective=dropped, batch_size=256)
        torch.testing.assert_close(first_terms(two)[0], first_terms(one)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["label", "weight"])
def test_rows_that_a_rule_passes_over_do_not_dilute_losses_beside_each_teacher(case, digits, three, tmp_path):
    """Whoever is heard says the same, so the loss beside each is that of the target."""
    if case == "label":  # rows of classes that nobody knows are nobody's
        lacking = {name: None if place < 3 else name for place, name in enumerate(digits.classes)}
        term = SOFT | {"combine": "correctness"}
        heard = [dataclasses.replace(three[0], name=name, class_map=lacking) for name in ("wide", "deep")]
    else:  # nobody who counts knows some rows
        term = SOFT | {"combine": "weighted", "teacher_weights": {"wide": 1.0, "deep": 0.0}}
        unknown = np.random.default_rng(5).random(digits.of("train")[0].num_rows) < 0.3
        heard = [source(with_nan_rows(tmp_path, digits, unknown)), three[1]]
    targets, losses = (
        first_terms(
            make_run(tmp_path / level, digits, *heard, objective=[term | {"level": level}, HARD], batch_size=256)
        )[0]
        for level in ("targets", "losses")
    )
    torch.testing.assert_close(losses, targets, rtol=1e-4, atol=1e-5)


def silent_on(folder, transfer_set, spoken, above):
    """The same teacher, that says nothing of rows of a class from number `above` on."""
    stores = {}
    for name, path in spoken.stores.items():
        whole, segment = SoftTargets.open(path), transfer_set.segment(name)
        said = whole.said().numpy().copy()
        said[transfer_set.labels(segment) >= above] = np.nan
        store = SoftTargetStore.create(
            folder / f"{spoken.name}-{name}", dataclasses.replace(whole.spec, teacher_digest="silent")
        )
        for number in range(store.num_shards):
            first, num = store.shard_rows(number)
            store.commit(number, whole.keys()[first : first + num], {"logits": said[first : first + num]})
        store.seal()
        stores[name] = store.folder
    return dataclasses.replace(spoken, stores=stores)


def test_rows_of_which_all_are_silent_are_heard_where_their_silence_tells(digits, tmp_path):
    (segment,) = digits.of("train")
    silent = torch.tensor(digits.labels(segment)) >= 8
    some = {"splits": ("train", "validation"), "classes": digits.classes[:8], "class_map": {}}
    sources = [
        silent_on(tmp_path / "nan", digits, make_source(tmp_path, digits, name, seed=seed, **some), 8)
        for seed, name in enumerate(("one", "two"))
    ]
    columns = {}
    for silence in (False, True):
        term = SOFT | {"combine": "confusion", "silence": silence}
        run = make_run(tmp_path / str(silence), digits, *sources, objective=[term, HARD])
        columns[silence] = SharedData().of([run], SESSION)[0].rows.columns
    assert torch.equal(columns[False]["target.0.weight"] == 0, silent)
    assert "target.0.weight" not in columns[True]
    target = columns[True]["target.0"]
    untold = target.isnan().all(0)  # which of the two a row is of does silence not tell: labels do
    assert untold[8:].sum() == 1 and not target[:, ~untold].isnan().any()
    named = target.nan_to_num(nan=-torch.inf).argmax(-1)
    assert bool((named[silent] >= 8).all()) and bool((named[~silent] < 8).float().mean() > 0.95)
    rows = Labelled.of(digits, "validation")
    placed = hear(rows, sources, "confusion", options=Options(silence=True))
    assert placed.together.isfinite().all() and hear(rows, sources, "confusion").together.isnan().any()


def test_correctness_needs_a_label(digits, three, tmp_path):
    run = make_run(tmp_path, digits, *three, objective=[SOFT | {"combine": "correctness"}])
    assert weights_after(run).isfinite().all()
    assert max(counted(run), key=lambda name: counted(run)[name][-1]) == "soft.wide"
    (problem,) = judging_problems(recipe_of({"combine": "correctness"}), 10, 0)
    assert problem.startswith(
        "students.small.objective.0.combine: `correctness` weighs teachers by the labels of training"
    )
    assert not [*judging_problems(recipe_of({"combine": "correctness"}), 10, 5)]
    (problem,) = judging_problems(recipe_of({"combine": "best"}), 0, 5)
    assert "`best` weighs teachers by labelled validation rows" in problem
    assert not [*judging_problems(recipe_of({"combine": "experts", "experts": {"one": ["a"]}}), 0, 5)]


def recipe_of(term, **teachers):
    teacher = {"kind": "callable", "function": "m:f", "output": "logits"}
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "r",
            "transfer_set": {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": "y"},
            "teachers": {"one": teacher, "two": teacher},
            "students": {
                "small": {
                    "model": "students.models:mlp",
                    "teachers": ["one", "two"],
                    "objective": [{"loss": "soft", **term}],
                }
            },
        }
    )


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"drop": 2}, r"objective\.0\.drop is 2 of 2 teachers, so nobody would be heard"),
        (
            {"combine": "gradient", "box": 0.4},
            r"objective\.0\.box is 0\.4 for 2 teachers, whose weights could not sum to 1",
        ),
        ({"box": 0.6}, r"`box` is of `combine: gradient`, and this term has None"),
        ({"combine": "vote", "by_class": True}, r"`by_class` is of `combine: fitted`"),
        (
            {"combine": "experts", "experts": {"three": ["a"]}},
            r"experts names \['three'\], who are not among the teachers",
        ),
        ({"combine": "experts", "experts": {"one": []}}, r"gives nobody a class"),
        ({"silence": True}, r"`silence` is of `combine: confusion`, and this term has None"),
        ({"combine": "route"}, r"`combine: route` needs `column`"),
        ({"combine": "weighted", "teacher_weights": {"one": 0, "two": 0}}, r"teacher_weights are all 0"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_the_recipe(term, message):
    with pytest.raises(ValueError, match=message):
        recipe_of(term)


def test_a_term_that_says_nothing_of_its_combination_is_the_document_that_it_was():
    (term,) = recipe_of({}).students["small"].objective
    assert not {"level", "drop", "by_class", "box", "experts", "column", "silence"} & set(term.model_dump(mode="json"))
    (term,) = recipe_of({"level": "losses"}).students["small"].objective
    assert term.model_dump(mode="json")["level"] == "losses"


def test_how_teachers_are_combined_is_in_the_key_of_the_student_and_their_names_are_not() -> None:
    def keys_of(names=("linear", "trees"), **term):
        found = keyed(students__small__objective=[{"loss": "soft", "combine": "experts", **term}, {"loss": "hard"}])
        if names != ("linear", "trees"):
            called = dict(zip(("linear", "trees"), names, strict=True))
            found = Recipe.model_validate(renamed(found.model_dump(mode="json"), called))
        labels = dict(zip(names, ("1a", "7e"), strict=True))
        student = trainings(found, "small", labels)["student/seed-0"]
        evaluation = keys.evaluate_stage(found, "small", "da7a", "5", labels).key
        return student, evaluation, keys.export_stage(found, "small", ["5"], "e").key

    plain = keys_of()
    for change in ({"level": "losses"}, {"drop": 1}):
        student, evaluation, export = keys_of(**change)
        assert student != plain[0] and export != plain[2] and evaluation == plain[1]  # together they say the same
    named = keys_of(experts={"linear": ["a"], "trees": ["b"]})
    swapped = keys_of(experts={"linear": ["b"], "trees": ["a"]})
    assert len({plain, named, swapped}) == 3 and not {*named} & {*swapped}
    other = keys_of(("flat", "forest"), experts={"linear": ["a"], "trees": ["b"]})
    assert other == named


# a column says who


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    """Rows of which each names one of two teachers, or nobody."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("routed")
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (400,), generator=generator)
    x = torch.randn(400, 4, generator=generator) + labels[:, None]
    who = [["wide", "deep", None][number % 3] for number in range(400)]
    columns = {f"x{n}": x[:, n].numpy() for n in range(4)} | {"who": who, "label": [f"c{int(each)}" for each in labels]}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    config = TransferSetConfig.model_validate(
        {
            "source": {"kind": "parquet", "path": str(folder / "rows.parquet")},
            "inputs": ["x0", "x1", "x2", "x3", {"column": "who", "as": "category"}],
            "label": "label",
        }
    )
    return prepare(config, folder / "prepared")


def test_a_row_hears_the_teacher_that_it_names(routed, tmp_path):
    sources = [make_source(tmp_path, routed, name, seed=seed, splits=ALL) for seed, name in enumerate(("wide", "deep"))]
    by_column = SOFT | {"combine": "route", "column": "who"}
    run = make_run(tmp_path, routed, *sources, objective=[by_column, HARD], steps=20)
    whole, beside, dropped = (
        first_terms(make_run(tmp_path / str(n), routed, *sources, objective=[by_column | more, HARD], batch_size=128))
        for n, more in enumerate(({}, {"level": "losses"}, {"drop": 1}))
    )  # one teacher a row: the loss beside it is that of the target
    torch.testing.assert_close(beside[0], whole[0], rtol=1e-4, atol=1e-5)
    assert dropped[0].isfinite().all()
    (data,) = SharedData().of([run], SESSION)
    columns = data.rows.columns
    assert 0.25 < float((columns["target.0.weight"] == 0).float().mean()) < 0.42
    weights_after(run)
    shares = {name: values[-1] for name, values in counted(run).items()}
    assert shares["soft.wide"] == pytest.approx(0.5, abs=0.06)
    placed = [dataclasses.replace(each, name=f"teacher@{n}") for n, each in enumerate(sources)]
    rule = {
        "combine": "route",
        "order": ["teacher@0", "teacher@1"],
        "options": Options(column="who", called=(("teacher@0", "wide"), ("teacher@1", "deep"))),
    }
    found = evaluate_student(routed.folder, placed, {0: run.folder}, None, 0, **rule)
    assert found["combinations"][-1]["combine"] == "route"
    counts = weights_by_class(routed.folder, placed, **rule)["counts"]
    assert [sum(each) for each in zip(*counts.values(), strict=True)] == pytest.approx([1, 1, 1])
    with pytest.raises(
        RecipeError, match=r"objective\.0\.combine: the column 'who' names \['deep'\], who are not among"
    ):
        fit([dataclasses.replace(run, sources=(sources[0],), folder=tmp_path / "other")], SESSION)
    strange = [{"loss": "soft", "combine": "route", "column": "whom"}]
    with pytest.raises(RecipeError, match=r"there is no column 'whom' of names among `transfer_set.inputs`.* has who"):
        fit([make_run(tmp_path / "strange", routed, *sources, objective=strange)], SESSION)


def test_plan_refuses_a_column_that_is_absent_or_names_somebody_else():
    number = Column("features", "number", (2,), (0.0,) * 2, (1.0,) * 2, names=("age", "size"))
    who = Column("categories", "category", (1,), (), (), names=("who",), values=(("one", "three"),))
    recipe = recipe_of({"combine": "route", "column": "who"})
    (problem,) = route_problems(recipe, [number])
    assert (
        problem.startswith("students.small.objective.0.column: there is no column 'who' of names")
        and "has none" in problem
    )
    (problem,) = route_problems(recipe, [number, who])
    assert "'who' names ['three'], who are not among the teachers ['one', 'two']" in problem
    (problem,) = expert_problems(recipe_of({"combine": "experts", "experts": {"one": ["cat"]}}), ["cats", "dogs"])
    assert problem == "students.small.objective.0.experts.one: 'cat' is no class, did you mean cats?"


def test_plan_refuses_a_teacher_that_knows_no_class():
    recipe = recipe_of({})
    lines = {"classes": ["x"], "class_map": {"x": None}}
    silent = recipe.teachers["two"].model_copy(update=lines)
    recipe = recipe.model_copy(update={"teachers": {**recipe.teachers, "two": silent}})
    (problem,) = class_problems(recipe, ["cats", "dogs"])
    assert problem.startswith("teachers.two.class_map: the teacher knows none of the classes, so nobody would hear it")


# what the report shows of it


@pytest.mark.parametrize("rule", ["gradient", "correctness", f"{HERE}:told"])
def test_a_rule_that_asks_the_student_or_a_label_is_shown_as_the_mean_and_says_so(rule, digits, judged, trained):
    found = evaluate_student(
        digits.folder, judged[:2], trained["student"], trained["control"], 0, combine=rule, order=["wide", "deep"]
    )
    single, mean = found["combinations"]
    assert "teacher" in single and mean["combine"] == "mean_probability" and mean["instead_of"] == rule
    json.dumps(found["combinations"], allow_nan=False)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("vote", Options()),
        ("confidence", Options()),
        ("best", Options()),
        ("learned", Options()),
        ("experts", Options()),
        ("fitted", Options(by_class=True)),
        ("experts", Options(experts=(("wide", ("0", "1", "2")), ("half", ("3", "4"))))),
    ],
)
def test_every_other_rule_makes_the_ensemble_that_the_student_has_heard(
    rule, options, digits, judged, tmp_path, trained
):
    extra = {"by_class": True} if options.by_class else {}
    if options.experts:
        extra = {"experts": {name: list(classes) for name, classes in options.experts}}
    run = make_run(tmp_path, digits, *judged, objective=[SOFT | {"combine": rule, **extra}, HARD], steps=20)
    assert weights_after(run).isfinite().all()
    order = [each.name for each in judged]
    found = evaluate_student(
        digits.folder, judged, trained["student"], None, 0, combine=rule, order=order, options=options
    )
    *_, own = found["combinations"]
    assert own["combine"] == rule and sum(own["counts"].values()) == pytest.approx(1)
    assert own["figures"]["accuracy"] == found["ensemble"]["accuracy"]
