"""`combine: fitted`: weights of teachers from labelled validation rows, and what several teachers are as one."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from orchestrator.recipe.checks import judging_problems
from orchestrator.recipe.model import Recipe
from orchestrator.reporting.together import about_rules, combination_tables, known_by_few
from students.data.shared import SharedData
from students.measuring.evaluate import evaluate_student, evaluate_teachers
from students.measuring.hearing import hear
from students.measuring.labelled import Labelled
from students.measuring.recommended import PARTS, is_better, recommended
from students.measuring.weights import weights_by_class
from students.objective.fitted import ROWS, fitted_weights, pool_weights
from students.runs.session import PlainSession
from teachers.errors import RecipeError
from teachers.soft_targets.reader import SoftTargets
from tests.test_evaluate import make_source, trained  # noqa: F401 (a fixture)
from tests.training_runs import SOFT, make_run

SESSION = PlainSession()
CLASSES = 4


def spoken(rows, skills=(3.0, 3.0, 0.0), seed=0):
    """(log-probabilities f32 [K, N, C], labels) of teachers that know the label so well; 0: not at all."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    logits = torch.stack([skill * torch.eye(CLASSES)[labels] for skill in skills])
    logits += 1.5 * torch.randn(len(skills), rows, CLASSES, generator=generator)
    return logits.log_softmax(-1), labels


def test_with_one_row_a_class_the_weights_are_near_equal():
    weights = pool_weights(*spoken(CLASSES))
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights, 1 / 3, atol=0.1)


def test_with_many_rows_a_bad_teacher_counts_little_and_the_pool_is_better_than_the_mean():
    weights = pool_weights(*spoken(4000))
    assert weights[2] < 0.05 < 0.4 < weights[0]
    log_p, labels = spoken(4000, seed=1)
    pooled = torch.einsum("k,knc->nc", torch.from_numpy(weights).float(), log_p).argmax(1)
    assert (pooled == labels).float().mean() > (log_p.mean(0).argmax(1) == labels).float().mean() + 0.01


def test_the_weights_are_the_least_of_the_penalised_likelihood_that_scipy_finds_on_the_simplex():
    log_p, labels = spoken(200, skills=(2.0, 1.0, 3.0))
    given, rows = log_p.double().numpy(), np.arange(200)

    def loss(weights):
        pooled = np.tensordot(weights, given, 1)
        own = pooled[rows, labels.numpy()] - logsumexp(pooled, axis=1)
        return -own.sum() - ROWS * np.log(weights).sum()

    simplex = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    expected = minimize(loss, [1 / 3] * 3, method="SLSQP", bounds=[(1e-9, 1)] * 3, constraints=simplex, tol=1e-12)
    np.testing.assert_allclose(pool_weights(log_p, labels), expected.x, atol=1e-3)


def test_the_order_of_teachers_changes_nothing():
    log_p, labels = spoken(300)
    np.testing.assert_allclose(
        pool_weights(log_p[[2, 0, 1]], labels), pool_weights(log_p, labels)[[2, 0, 1]], atol=1e-4
    )


ALL = ("train", "validation", "test")


@pytest.fixture(scope="module")
def sources(digits, tmp_path_factory):
    """Two good teachers, one that knows half of the classes, and one that says anything."""
    folder = tmp_path_factory.mktemp("stores")
    good = [make_source(folder, digits, name, seed=seed, splits=ALL) for seed, name in enumerate(("wide", "deep"))]
    half = make_source(folder, digits, "half", seed=3, splits=ALL, classes=digits.classes[:5], class_map={})
    noise = make_source(folder, digits, "noise", seed=4, splits=ALL)
    for path in noise.stores.values():
        assert SoftTargets.open(path).spec.names == digits.classes
    swapped = {name: digits.classes[9 - number] for number, name in enumerate(digits.classes)}
    return [*good, half, dataclasses.replace(noise, class_map=swapped)]


def test_teachers_are_weighed_by_labelled_validation_rows(digits, sources):
    weights = fitted_weights(sources, digits)
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["noise"] < 0.1 < weights["half"] and min(weights["wide"], weights["deep"]) > 2 * weights["noise"]
    backwards = fitted_weights(sources[::-1], digits)
    assert backwards == pytest.approx(weights, abs=1e-3)


def test_the_rule_reaches_targets_and_curves(digits, sources, tmp_path):
    run = make_run(tmp_path, digits, *sources[:2], sources[3], objective=[SOFT | {"combine": "fitted"}])
    (data,) = SharedData().of([run], SESSION)
    weights = fitted_weights([*sources[:2], sources[3]], digits)
    trusted = data.rows.objective.trusted
    assert trusted == pytest.approx({f"weight.soft.{name}": share for name, share in weights.items()})
    assert list(trusted) == ["weight.soft.wide", "weight.soft.deep", "weight.soft.noise"]
    mean = make_run(tmp_path, digits, *sources[:2], sources[3], objective=[SOFT | {"combine": "mean_logits"}])
    both = [SharedData().of([each], SESSION)[0].rows.columns["target.0"] for each in (run, mean)]
    assert not torch.allclose(*both, atol=0.1)


def test_without_labelled_validation_rows_there_is_nothing_to_weigh_by(digits, sources):
    nobody = [dataclasses.replace(each, class_map=dict.fromkeys(digits.classes)) for each in (sources[0], sources[1])]
    with pytest.raises(RecipeError, match=r"none there has a label that one of them knows; take `mean_logits`"):
        fitted_weights(nobody, digits)
    teacher = {"kind": "callable", "function": "m:f", "output": "logits"}
    recipe = Recipe.model_validate(
        {
            "format": 1,
            "name": "r",
            "transfer_set": {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": "y"},
            "teachers": {"one": teacher},
            "students": {
                "small": {
                    "model": "students.models:mlp",
                    "teachers": ["one"],
                    "objective": [{"loss": "hard"}, {"loss": "soft", "combine": "fitted"}],
                }
            },
        }
    )
    (problem,) = judging_problems(recipe, 0)
    assert problem.startswith(
        "students.small.objective.1.combine: `fitted` weighs teachers by labelled validation rows"
    )
    assert not [*judging_problems(recipe, 1)]


# several teachers as one


def test_the_best_teacher_and_every_rule_stand_beside_each_other(digits, sources):
    found = evaluate_teachers(digits.folder, sources)["combinations"]
    rules = [
        "mean_probability",
        "mean_logits",
        "fitted",
        "vote",
        "confidence",
        "entropy",
        "experts",
        "learned",
        "confusion",
    ]
    assert [each.get("combine") for each in found] == [None, *rules]
    alone = evaluate_teachers(digits.folder, sources)["teachers"]
    best = max(alone, key=lambda name: alone[name]["validation"]["accuracy"])
    assert found[0]["teacher"] == best and found[0]["figures"]["accuracy"] == alone[best]["accuracy"]
    assert all(each["low"] < each["figures"]["accuracy"] < each["high"] for each in found)
    assert found[3]["figures"]["accuracy"] > found[1]["figures"]["accuracy"]
    json.dumps(found, allow_nan=False)
    (test,) = digits.of("test")
    said = [log_softmax(SoftTargets.open(each.stores[test.name]).said().double().numpy(), 1) for each in sources[:2]]
    _, probabilities, logits, *_ = evaluate_teachers(digits.folder, sources[:2])["combinations"]
    labels = digits.labels(test)
    assert probabilities["figures"]["accuracy"] == (np.exp(said).mean(0).argmax(1) == labels).mean()
    assert logits["figures"]["accuracy"] == (np.mean(said, 0).argmax(1) == labels).mean()


def test_of_one_teacher_there_is_nothing_to_combine(digits, sources):
    found = evaluate_teachers(digits.folder, sources[:1])
    assert found["combinations"] == [] and found["known_by_few"] == [] and found["recommended"] is None


def test_a_rule_is_recommended_by_validation_rows_that_it_was_not_fitted_to(digits, sources):
    few = [sources[0], sources[1], sources[3]]
    document = evaluate_teachers(digits.folder, few)
    found, rules = document["recommended"], {each.get("combine"): each for each in document["combinations"]}
    looks = found["validation"]
    assert set(looks) == {*rules, "best"} - {None} and found["own"] == "mean_probability"
    assert found["rows"] == digits.of("validation")[0].num_rows
    best = max(looks, key=lambda rule: (looks[rule]["accuracy"], rule == "mean_probability", -looks[rule]["nll"]))
    assert found["combine"] == best != "mean_probability"
    if best in rules:
        assert found["figures"] == rules[best]["figures"] and found["low"] == rules[best]["low"]
    (segment,) = digits.of("validation")
    said = [SoftTargets.open(each.stores[segment.name]).said().double() for each in few]
    said[2] = said[2][:, range(9, -1, -1)]  # whose classes are called the other way round
    log_p, labels = torch.stack(said).log_softmax(-1), torch.tensor(digits.labels(segment)).long()
    parts, right = digits.groups(segment) % PARTS, 0
    for part in range(PARTS):
        mine = torch.from_numpy(parts == part)
        weights = torch.from_numpy(pool_weights(log_p[:, ~mine].float(), labels[~mine]))
        right += int((torch.einsum("k,knc->nc", weights, log_p[:, mine]).argmax(1) == labels[mine]).sum())
    assert looks["fitted"]["accuracy"] == pytest.approx(right / len(labels))
    json.dumps(found, allow_nan=False)


def test_the_recipes_rule_is_kept_where_no_other_is_better(digits, sources):
    twins = [sources[0], dataclasses.replace(sources[0], name="twin")]
    found = evaluate_teachers(digits.folder, twins)["recommended"]
    assert found["combine"] == found["own"] == "mean_probability"
    rows = Labelled.of(digits, "test")
    for rule in ("fitted", "learned"):
        kept = recommended(rows, twins, hear(rows, twins, rule), rule)
        assert kept["combine"] == kept["own"] == rule
    asks = recommended(rows, twins, hear(rows, twins, "gradient"), "gradient")
    assert (asks["own"], asks["instead_of"]) == ("mean_probability", "gradient")


def test_a_rule_is_better_where_a_sign_test_of_rows_says_so(digits):
    from scipy.stats import binomtest

    rows = Labelled.of(digits, "validation")
    right = torch.nn.functional.one_hot(rows.labels, 10).float()
    for wins, losses, tries in [(0, 0, 1), (5, 0, 1), (4, 0, 1), (9, 2, 1), (9, 2, 9), (30, 10, 9), (3, 9, 1)]:
        said, other = right.clone(), right.clone()
        other[:wins] = 1 - other[:wins]
        said[wins : wins + losses] = 1 - said[wins : wins + losses]
        p = binomtest(wins, wins + losses, 0.5, "greater").pvalue if wins + losses else 1.0
        assert is_better(rows, said, other, tries) == (p < 0.05 / tries)


def test_the_labels_of_a_part_are_hidden_from_who_judges_by_the_others(digits):
    (segment,) = digits.of("validation")
    hidden = np.stack(
        [digits.labelled(segment) & ~digits.without_part(n, PARTS).labelled(segment) for n in range(PARTS)]
    )
    assert np.array_equal(hidden.sum(0), digits.labelled(segment)) and hidden.sum(1).min() > 10
    (test,) = digits.of("test")
    assert np.array_equal(digits.without_part(0, PARTS).labelled(test), digits.labelled(test))
    assert digits.without_part(0, PARTS).manifest() == digits.manifest()


def test_a_student_stands_beside_the_best_of_its_teachers_their_mean_and_its_rule(digits, sources, trained):  # noqa: F811
    few = [sources[0], dataclasses.replace(sources[2], class_map={"4": None})]
    found = evaluate_student(
        digits.folder, few, trained["student"], trained["control"], 0, combine="fitted", order=["wide", "half"]
    )
    single, mean, rule = found["combinations"]
    assert (single["teacher"], mean["combine"], rule["combine"]) == ("wide", "mean_probability", "fitted")
    assert rule["figures"]["accuracy"] == found["ensemble"]["accuracy"]
    assert sum(rule["counts"].values()) == pytest.approx(1) and rule["counts"]["wide"] > 0.5
    by_class = weights_by_class(digits.folder, few, combine="fitted", order=["wide", "half"])
    support = np.array(found["by_class"]["support"])
    assert by_class["classes"] == list(digits.classes)
    for name, counts in by_class[
        "counts"
    ].items():  # over the rows of all classes it is what the rule counts over all rows
        assert (support * np.array(counts)).sum() / support.sum() == pytest.approx(rule["counts"][name], abs=1e-6)
    seldom = {each["class"]: each for each in found["known_by_few"]}
    assert set(seldom) == set("456789") and seldom["4"]["known_by"] == ["wide"]
    assert set(seldom["4"]["recall"]) == {"ensemble", "student", "control"}
    number = digits.classes.index("4")
    recall, gain = seldom["4"]["recall"], seldom["4"]["gain"]
    assert recall["student"] == found["by_class"]["recall"]["student"][number]
    assert gain["mean"] == pytest.approx(recall["student"] - recall["control"]) and gain["units"] == support[number]
    report = {
        "recipe": {"task": "classification"},
        "students": {"small": found | {"combinations": [single, mean, rule]}},
    }
    kept = found["recommended"]
    assert kept["combine"] == kept["own"] == "fitted"  # of so few rows nothing else is shown to be better
    (told,) = about_rules(report)
    if kept["leader"] == "fitted":
        assert told.endswith("It is the recipe's rule.")
    else:
        assert f"none is shown to be better than `fitted`, the rule of the recipe, on {kept['rows']:,} labelled" in told
    best = next(rule for rule in kept["validation"] if rule not in ("fitted", "mean_probability"))
    report["students"]["small"]["recommended"] = kept | {"combine": best, "leader": best}
    (table,) = combination_tables(report)
    assert table["title"] == "small" and [row[0] for row in table["rows"]][1:] == [
        "all by mean_probability",
        "all by fitted",
        f"all by {best}, which is recommended",
    ]
    (told,) = about_rules(report)
    assert told.startswith("small: of ") and f"`combine: {best}` is recommended" in told
    assert f"`collegium compare RECIPE --methods fitted,{best}`" in told
    assert table["rows"][2][1] == f"{100 * rule['figures']['accuracy']:.2f} %" and "wide 0." in table["rows"][2][-1]
    (few_know,) = known_by_few(report)
    assert {row["name"]: row["known_by"] for row in few_know["rows"]}["5"] == "wide"
