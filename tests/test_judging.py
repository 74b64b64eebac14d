"""Laws of what stands beside a verdict: students against each other, and what makes figures worth less than they look."""

import base64
import copy
import csv
import io

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

from orchestrator.cli.main import collegium
from orchestrator.recipe.model import Recipe, public
from orchestrator.reporting.by_class import ALL_MISTAKES, confusions, mistakes
from orchestrator.reporting.cautions import cautions
from orchestrator.reporting.comparison import both_ways, comparison_of, csv_text, page_table, text_table
from orchestrator.reporting.document import build_report, labelled_of_classes
from orchestrator.reporting.headline import learners, teachers_alone
from orchestrator.reporting.kept import write_report
from orchestrator.reporting.note import note
from orchestrator.reporting.page import page
from orchestrator.stages.outline import planned
from orchestrator.stages.trainings import training_stages
from students.tasks.figure import headline
from tests.test_report import build, evaluations_of, metrics_file, recipe_of, report, stages_of  # noqa: F401 (fixtures)


def bits(right):
    return [base64.b64encode(np.packbits(row).tobytes()).decode() for row in right]


def rows_tested(digits):
    (segment,) = digits.of("test")
    return segment.num_rows


@pytest.fixture
def right(digits):
    """Who is right in each of three seeds: `a` in most rows, `b` in fewer, `c` as `b` but for a few."""
    generator, rows = np.random.default_rng(0), rows_tested(digits)
    hard = generator.random(rows)
    found = {
        "a": hard[None] < 0.9 + 0.02 * generator.standard_normal((3, 1)),
        "b": hard[None] < 0.7 + 0.02 * generator.standard_normal((3, 1)),
    }
    return found | {"c": found["b"] ^ (generator.random((3, rows)) < 0.02)}


@pytest.fixture
def comparison(digits, right):
    return comparison_of({name: {"by_row": {"student": bits(each)}} for name, each in right.items()}, digits)


# students against each other


def test_every_student_is_compared_with_every_other_in_pairs_of_seeds_and_rows(comparison, right, digits):
    assert comparison["names"] == ["a", "b", "c"]
    pairs = both_ways(comparison)
    assert set(pairs) == {(one, other) for one in right for other in right if one != other}
    for (one, other), pair in pairs.items():
        difference = right[one].astype(float) - right[other]
        seeds, rows = difference.mean(1), difference.mean(0)
        half = [scipy.stats.t.ppf(0.975, len(of) - 1) ** 2 * np.var(of, ddof=1) / len(of) for of in (seeds, rows)]
        assert pair["mean"] == pytest.approx(difference.mean())
        assert pair["high"] - pair["mean"] == pytest.approx(np.sqrt(sum(half)))
        assert pair["by_seed"] == pytest.approx([*seeds])
        assert pair["units"] == rows_tested(digits)
    assert pairs["a", "b"]["conclusion"] == "helps" and pairs["b", "a"]["conclusion"] == "hurts"
    assert pairs["b", "c"]["conclusion"] == "open"


def test_turning_a_pair_turns_every_figure_of_it(comparison):
    pairs = both_ways(comparison)
    for (one, other), pair in pairs.items():
        turned = pairs[other, one]
        assert (turned["low"], turned["mean"], turned["high"]) == (-pair["high"], -pair["mean"], -pair["low"])
        assert (turned["won"], turned["lost"]) == (pair["lost"], pair["won"])
        assert [*turned["by_seed"]] == [-each for each in pair["by_seed"]]


def test_students_with_other_numbers_of_seeds_are_compared_on_those_that_both_have(digits, right):
    evaluations = {"a": {"by_row": {"student": bits(right["a"])}}, "b": {"by_row": {"student": bits(right["b"][:1])}}}
    (pair,) = comparison_of(evaluations, digits)["pairs"]
    assert len(pair["by_seed"]) == 1 and pair["low"] is None and pair["conclusion"] == "open"


def test_the_terminal_has_a_line_for_each_student_and_a_star_where_a_difference_is_shown(comparison):
    head, *lines, legend = text_table(headline("classification"), comparison)
    assert head.split() == ["a", "b", "c"] and [line.split()[0] for line in lines] == ["a", "b", "c"]
    assert lines[0].count("*") == 2 and "*" not in lines[1].split("\N{PLUS-MINUS SIGN}")[-1]
    assert "95%" in legend
    assert (
        text_table(headline("classification"), {"names": ["a"], "pairs": []}) == []
        and page_table({"names": ["a"], "pairs": []}) == []
    )


def test_the_csv_holds_every_student_against_every_other_and_its_own_control(digits, metrics_file):  # noqa: F811
    several = build(digits, metrics_file, students=("small", "tiny", "flat"))
    lines = [*csv.DictReader(io.StringIO(csv_text(several, learners(several))))]
    found = {(line["student"], line["against"]) for line in lines}
    names = ["small", "tiny", "flat"]
    others = {(one, other) for one in names for other in names if one != other}
    assert found == others | {(name, f"control of {name}") for name in names} and len(lines) == len(found)
    for line in lines:
        if line["against"] == f"control of {line['student']}":
            gain = several["students"][line["student"]]["gain"]
            assert float(line["difference"]) == gain["mean"] and float(line["low"]) == gain["low"]
            assert line["conclusion"] in ("better", "worse", "open")


def test_one_seed_leaves_the_ends_of_the_interval_empty_in_the_csv(digits, metrics_file):  # noqa: F811
    found = build(digits, metrics_file, students=("small", "tiny"), seeds=(3,))
    lines = [*csv.DictReader(io.StringIO(csv_text(found, learners(found))))]
    assert {(line["low"], line["high"], line["seeds"]) for line in lines} == {("", "", "1")}


def test_report_prints_the_csv_and_nothing_else(digits, metrics_file, tmp_path):  # noqa: F811
    several = build(digits, metrics_file, students=("small", "tiny"))
    several["recipe"]["tracking"]["uri"] = several["mlflow"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    folder = tmp_path / "runs" / "20260101-000000-aaaa"
    folder.mkdir(parents=True)
    write_report(folder, several)
    done = CliRunner().invoke(collegium, ["report", str(tmp_path), "--csv"])
    assert done.exit_code == 0, done.output
    assert done.stdout == csv_text(several, learners(several))
    both = CliRunner().invoke(collegium, ["report", str(tmp_path), "--csv", "--json"])
    assert both.exit_code == 2


def test_the_page_tells_who_is_above_whom(digits, metrics_file):  # noqa: F811
    html = page(build(digits, metrics_file, students=("small", "tiny")))
    assert "Students against each other" in html
    assert "Students against each other" not in page(build(digits, metrics_file))


# cautions


def told_of(document):
    return " | ".join(cautions(document))


@pytest.fixture
def sound(report):  # noqa: F811
    """A report of which nothing is to be said."""
    document = copy.deepcopy(report)
    enough = dict.fromkeys("0123456789", 100)
    document["transfer_set"]["labelled_of_classes"] = {"train": enough, "validation": enough, "test": enough}
    for found in (document["by_class"], document["students"]["small"]["by_class"]):
        found["said"] = {name: [30.0] * 10 for name in found["said"]}
    assert cautions(document) == []
    return document


def test_a_class_that_is_never_said_is_named_with_its_rows(sound):
    found = sound["students"]["small"]["by_class"]
    found["said"]["student"][7] = 0
    told = told_of(sound)
    assert f"small never says 1 of the 10 classes that are tested: '7' ({found['support'][7]} test rows)" in told
    assert "class_weights" not in told  # of even classes weights change nothing
    found["rare"]["classes"] = ["7"]
    assert "`train.class_weights: balanced`" in told_of(sound)
    sound["recipe"]["students"]["small"]["train"]["class_weights"] = "balanced"
    assert "balanced` may help" not in told_of(sound)  # it is what it has
    assert "count in `hard` and `ps_kd` alone; a larger weight of these may help" in told_of(sound)
    sound["by_class"]["said"]["ensemble"][3] = 0
    assert "The ensemble of all teachers never says" in told_of(sound)


@pytest.mark.parametrize(("units", "is_told"), [(19, True), (20, False)])
def test_an_interval_of_fewer_than_20_rows_is_told(sound, units, is_told):
    sound["students"]["small"]["gain"]["units"] = units
    assert ("interval of small rests on 19 test rows" in told_of(sound)) == is_told
    sound["standings"] = {"wide": {"rows": units, "split": "validation"}}
    assert ("How teachers stand was judged on 19 validation rows" in told_of(sound)) == is_told
    sound["transfer_set"]["labelled_of_classes"]["test"] = {**dict.fromkeys("012345678", 50), "9": units}
    assert ("1 of 10 classes have fewer than 20 test rows ('9' 19)" in told_of(sound)) == is_told


@pytest.mark.parametrize(("rows", "is_told"), [(9, True), (10, False)])
def test_fewer_than_10_validation_rows_of_a_class_are_told(sound, rows, is_told):
    sound["transfer_set"]["labelled_of_classes"]["validation"] = {**dict.fromkeys("012345678", 50), "9": rows}
    assert ("Validation has fewer than 10 labelled rows of 1 of 10 classes ('9' 9)" in told_of(sound)) == is_told


def test_a_class_that_nobody_learns_or_tests_is_told(sound):
    counts = sound["transfer_set"]["labelled_of_classes"]
    counts["train"], counts["test"] = counts["train"] | {"3": 0}, counts["test"] | {"4": 0}
    told = told_of(sound)
    assert "No labelled training row is of '3'" in told and "No test row is of '4'" in told


@pytest.mark.parametrize(
    ("training", "validation", "rows", "is_told"),
    [
        (1.0, 0.8, 200, True),
        (1.0, 0.97, 200, False),
        (0.85, 0.8, 200, False),
        (1.0, 0.8, 8, False),
        (0.7, 0.8, 200, False),
    ],
)
def test_teachers_that_know_training_rows_by_heart_are_told(sound, training, validation, rows, is_told):
    """Where the accuracy on training rows lies 5 points above SciPy's exact interval of that on validation rows."""
    high = scipy.stats.binomtest(round(rows * validation), rows).proportion_ci(method="exact").high
    assert (training - high > 0.05) == is_told
    sound["teachers"]["trees"] |= {
        "training": {"accuracy": training, "rows": 1000, "nll": 0.1},
        "validation": {"accuracy": validation, "rows": rows, "nll": 0.5},
    }
    assert ("trees has accuracy" in told_of(sound)) == is_told


def test_cautions_stand_on_the_page_and_in_the_note_and_code_is_code(digits, metrics_file):  # noqa: F811
    document = build(digits, metrics_file)
    document["cautions"] = ["look at `split.validation` <b>"]
    html = page(document)
    assert "Read with care" in html and "look at <code>split.validation</code> &lt;b&gt;" in html
    assert "look at `split.validation`" in note(document)


def test_labelled_rows_of_classes_are_those_of_the_transfer_set(digits):
    found = labelled_of_classes(digits)
    assert {split: sum(counts.values()) for split, counts in found.items()} == digits.report["labelled"]
    assert found["train"] == digits.report["labelled_per_class"]


# what is shown


def test_a_matrix_of_few_classes_is_whole_and_of_many_the_largest_confusions_are_listed():
    found = {"classes": ["a", "b"], "support": [4, 0]}
    shown = confusions(found, {"matrix": [[3, 1], [0, 0]], "largest": [[0, 1, 1]]})
    assert shown["matrix"][0]["cells"] == [(3, 0.75), (1, 0.25)] and shown["matrix"][1]["cells"] == [(0, 0.0), (0, 0.0)]
    assert shown["largest"] == [{"label": "a", "said": "b", "rows": 1, "share": 0.25}]
    many = {"classes": [*map(str, range(150))], "support": [2] * 150}
    shown = confusions(many, {"matrix": None, "largest": [[n, n + 1, 2] for n in range(100)]})
    assert shown["matrix"] is None and 0 < len(shown["largest"]) < 30


def test_many_students_share_the_room_for_mistakes(report):  # noqa: F811
    found = [{"inputs": [], "id": str(number)} for number in range(12)]
    assert len(mistakes(report, found)) == 12
    assert all(
        several * len(mistakes(report, found, several)) <= max(ALL_MISTAKES, 2 * several) for several in range(1, 20)
    )


# teachers alone, and controls that are one


def alone():
    document = recipe_of(())
    return Recipe.model_validate({key: value for key, value in document.items() if key != "search"})


def test_a_recipe_of_teachers_alone_labels_evaluates_and_reports(digits):
    recipe = alone()
    assert recipe.problems() == []
    assert [title.split("/")[0] for title in planned(recipe, "export")] == [
        "prepare", "train_teacher", "train_teacher", "label", "label", "judge", "evaluate",
    ]  # fmt: skip
    document = build_report(
        recipe=public(recipe),
        stages=stages_of()[:1],
        evaluations=evaluations_of(()),
        metrics={},
        mlflow={"experiment_id": "1", "run_id": "abc"},
        prepared=digits.folder,
        seconds=1.0,
    )
    html = page(document)
    assert "The teachers together" in html and "Surest mistakes of the teachers together" in html
    assert f"{100 * document['ensemble']['test_accuracy']:.1f} %" in html
    (told,) = teachers_alone(document)
    assert told.startswith("teachers together: ") and told in note(document)


def test_a_recipe_of_nobody_is_refused():
    document = alone().model_dump(mode="json") | {"teachers": {}}
    assert any("nobody to ask or to train" in told for _, told in Recipe.model_validate(document).problems())


def test_students_that_differ_by_their_teachers_alone_have_one_control():
    document = recipe_of(("small", "tiny", "other"))
    document["students"]["tiny"] |= {"teachers": ["wide"]}
    document["students"]["tiny"]["objective"] = [{"loss": "soft", "weight": 0.3}, {"loss": "hard", "weight": 0.7}]
    document["students"]["other"]["arguments"] = {"hidden": 5}
    recipe = Recipe.model_validate(document)
    labels = {"wide": "w", "trees": "t"}
    stages = {name: training_stages(recipe, name, "prepared", labels) for name in recipe.students}
    controls = {
        name: {seed: s.key for (kind, seed), s in of.items() if kind == "control"} for name, of in stages.items()
    }
    assert controls["small"] == controls["tiny"] and not {*controls["small"].values()} & {*controls["other"].values()}
    students = [s.key for of in stages.values() for (kind, _), s in of.items() if kind == "student"]
    assert len({*students}) == len(students)
