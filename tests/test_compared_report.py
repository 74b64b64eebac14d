"""What a report says of variants: the table of methods, which teacher helped, and no claim beyond what is shown."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from orchestrator.reporting.compared import share_of_gap, tables
from orchestrator.reporting.document import build_report
from orchestrator.reporting.headline import headline_figures, remarks
from orchestrator.reporting.kept import newest_of_teachers, write_report
from orchestrator.reporting.note import note
from orchestrator.reporting.page import page
from orchestrator.tracking.shown import results_in_short
from students.tasks.figure import headline
from teachers.errors import RecipeError

from .test_report import Page, evaluations_of, metrics_file, recipe_of, stages_of  # noqa: F401  (a fixture)

FIRST = headline("classification")
METHODS = ("soft", "teacher_label", "mean_logits")
COSTS = {"cross_entropy_ms": 2.0, "by_student": {name: {"ms": 2.2, "ratio": 1.1} for name in METHODS}}


def asked(kind: str, of: dict[str, str], **more: Any) -> dict[str, Any]:
    says = {name: f"what {name} is" for name in of}
    return {
        "kind": kind,
        "student": "small",
        "of": of,
        "says": says,
        "left_out": {},
        "costs": None,
        "tuned": {},
        "weights": None,
        **more,
    }


@pytest.fixture
def built(digits, metrics_file):  # type: ignore[no-untyped-def]  # noqa: F811
    def build(compared: dict[str, Any] | None, students: tuple[str, ...], **options: Any) -> dict[str, Any]:
        evaluations = evaluations_of(students, **options)
        for name in students:
            for number, each in enumerate(evaluations[name]["student"]["runs"]):
                each["validation"] = {"accuracy": 0.9 - 0.01 * students.index(name) + 0.001 * number, "nll": 0.3}
        return build_report(
            recipe=recipe_of(students),
            stages=stages_of(),
            evaluations=evaluations,
            metrics={name: [metrics_file] for name in students},
            mlflow={"experiment_id": "1", "run_id": "abc", "uri": "http://127.0.0.1:5000"},
            prepared=digits.folder,
            seconds=12.0,
            compared=compared,
        )

    return build


@pytest.fixture
def methods(built):  # type: ignore[no-untyped-def]
    left_out = {"fitted": "needs <labels>"}
    return built(asked("methods", {name: name for name in METHODS}, costs=COSTS, left_out=left_out), METHODS)


@pytest.fixture
def of_teachers(built):  # type: ignore[no-untyped-def]
    of = {"all": "all teachers", "only-wide": "only wide", "only-trees": "only trees"}
    return built(asked("teachers", of), tuple(of))


def test_the_table_has_a_row_for_each_and_for_the_control(methods: dict[str, Any]) -> None:
    (table,) = tables(methods)
    assert [row[0].text for row in table["rows"]] == ["control", *METHODS]
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert "step" in table["columns"] and [row[-1].text for row in table["rows"]] == ["1.00", *["1.10"] * 3]
    assert "for the 5 comparisons" in table["below"] and "fitted (needs <labels>)" in table["below"]


def test_what_is_no_claim_is_not_coloured(methods: dict[str, Any]) -> None:
    (table,) = tables(methods)
    for each, row in zip(methods["compared"]["variants"], table["rows"][1:], strict=True):
        for gain, cells in ((each["over_control"], row[2:4]), (each["over_soft"], row[4:6])):
            tone = gain["conclusion"] if gain and gain["conclusion"] != "open" else ""
            assert [cell.tone for cell in cells] == [tone, tone]
    assert not any(cell.tone for row in table["rows"] for cell in (*row[:2], *row[6:]))


def test_without_the_method_soft_nothing_stands_beside_it(built: Any) -> None:
    names = METHODS[1:]
    report = built(asked("methods", {name: name for name in names}), names)
    (table,) = tables(report)
    assert "over soft" not in table["columns"] and "step" not in table["columns"]
    assert report["compared"]["comparisons"] == 2
    assert not any("soft" in line for line in report["compared"]["sentences"])


def test_what_is_chosen_is_chosen_on_validation(methods: dict[str, Any]) -> None:
    best = methods["compared"]["best"]
    assert best == "soft"  # the test rows would have said another one
    assert max(METHODS, key=lambda name: methods["students"][name]["test_accuracy"]["mean"]) != best
    assert any(line.startswith("On validation rows, which choose, `soft`") for line in methods["compared"]["sentences"])


def test_a_student_of_a_comparison_claims_no_more_than_the_table(methods: dict[str, Any]) -> None:
    for each in methods["compared"]["variants"]:
        student = methods["students"][each["name"]]
        assert student["gain"] == each["over_control"] and student["verdict"].startswith("Better: +")
        assert "corrected for 5 comparisons" in student["verdict"]
    assert not any("none corrected" in line for line in remarks(methods))


def test_the_share_of_the_gap_is_of_what_the_teachers_have_more() -> None:
    student = {"control_accuracy": {"mean": 0.5}, "gain": {"mean": 0.3, "low": 0.1, "high": 0.5}}
    ends = {"mean": 0.75, "low": 0.25, "high": 1.25}
    assert share_of_gap(FIRST, student, {"accuracy": 0.9}) == pytest.approx(ends)
    student_of_one_seed = {**student, "gain": {"mean": 0.3, "low": None, "high": None}}
    assert share_of_gap(FIRST, student_of_one_seed, {"accuracy": 0.9}) == {
        **ends,
        "mean": pytest.approx(0.75),
        "low": None,
        "high": None,
    }
    assert share_of_gap(FIRST, student, {"accuracy": 0.5}) is None
    assert share_of_gap(FIRST, student, {"accuracy": None}) is None


def test_one_seed_gives_figures_and_no_verdict(built: Any) -> None:
    report = built(asked("methods", {name: name for name in METHODS}), METHODS, seeds=(0,))
    assert report["compared"]["sentences"] == [
        "No verdict: with one seed, or one test row, there is no interval; `--seeds 5` gives five."
    ]
    (table,) = tables(report)
    assert all(row[3].text == "no verdict" for row in table["rows"][1:])
    json.dumps(report, allow_nan=False)


def test_a_teacher_helped_only_where_the_corrected_verdict_says_so(of_teachers: dict[str, Any]) -> None:
    found = of_teachers["compared"]
    assert found["comparisons"] == 5  # the control beside three, and what each of two brings
    for each in found["teachers"]:
        other = {"wide": "only-trees", "trees": "only-wide"}[each["name"]]
        assert each["without"] == other  # without one is the other alone
        (line,) = (
            told for told in found["sentences"] if told.startswith((f"{each['name']} h", f"Of {each['name']} no"))
        )
        assert ("helped" in line) == (each["brings"]["conclusion"] == "helps")
        assert ("no difference is shown" in line) == (each["brings"]["conclusion"] == "open")


def test_the_tables_of_teachers_tell_what_each_says_and_brings(of_teachers: dict[str, Any]) -> None:
    teachers, students, classes = tables(of_teachers)
    assert [row[0].text for row in teachers["rows"]] == ["wide", "trees"]
    assert [row[0].text for row in students["rows"]] == [
        "all teachers",
        "only wide",
        "only trees",
        "no teacher (the control)",
    ]
    assert len(classes["rows"]) == 10
    for table in (teachers, students, classes):
        assert all(len(row) == len(table["columns"]) for row in table["rows"])


def test_where_a_rule_weighs_teachers_the_table_of_classes_tells_how_much_each_counts(built: Any) -> None:
    of = {"all": "all teachers", "only-wide": "only wide", "only-trees": "only trees"}
    counts = {"wide": [0.7] * 9 + [None], "trees": [0.3] * 9 + [None]}
    report = built(asked("teachers", of, weights={"classes": list("0123456789"), "counts": counts}), tuple(of))
    *_, classes = tables(report)
    assert classes["columns"][-2:] == ["wide counts", "trees counts"]
    shown = {row[0].text: [cell.text for cell in row[-2:]] for row in classes["rows"]}
    assert shown["3"] == ["0.70", "0.30"] and shown["9"] == ["\N{EN DASH}", "\N{EN DASH}"]


@pytest.mark.parametrize("kind", ["methods", "of_teachers"])
def test_page_note_and_list_of_runs_show_it_and_run_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(kind)
    html = page(report)
    found = Page(html)
    assert "script" not in found.tags and all(target.startswith("#") for target in found.loads)
    assert "needs &lt;labels&gt;" in html or kind == "of_teachers"
    for table in tables(report):
        assert all(f">{cell.text}</td>" in html for row in table["rows"] for cell in row)
    assert " | ".join(tables(report)[0]["columns"]) in note(report)
    told = [each.split()[0] for each in results_in_short(report).split(", ")]
    assert told == [
        *report["compared"]["of"]
    ]  # on validation rows, which choose, the first is best; on test rows another
    figures = headline_figures(report)
    first = report["compared"]["variants"][0]["name"]
    assert f"students.{first}.gain.p_corrected" in figures
    assert (f"students.{first}.step_ratio" in figures) == (kind == "methods")


def test_figures_that_choose_stand_with_their_spread(methods: dict[str, Any]) -> None:
    first, *_ = methods["compared"]["variants"]
    looks = [run["validation"]["accuracy"] for run in methods["students"]["soft"]["runs"]]
    assert first["validation"] == pytest.approx({"mean": statistics.fmean(looks), "std": statistics.stdev(looks)})
    (table,) = tables(methods)
    shown = dict(zip(table["columns"], table["rows"][1], strict=False))
    assert shown["validation"].text == "90.1 \N{PLUS-MINUS SIGN} 0.1 %"
    assert re.fullmatch(r"\S+ % \(\S+ to \S+\)", shown["share of gap"].text)


def test_where_a_teacher_cannot_be_left_out_the_tables_go_without(built: Any) -> None:
    left_out = {"only trees": "begins with the weights of wide (`init`), which would not teach it"}
    of = {"all": "all teachers", "only-wide": "only wide"}
    report = built(asked("teachers", of, left_out=left_out), tuple(of))
    found = {each["name"]: each for each in report["compared"]["teachers"]}
    assert found["wide"]["brings"] is None and found["wide"]["without"] is None and found["wide"]["alone"]
    assert found["trees"]["brings"] and found["trees"]["alone"] is None
    assert report["compared"]["comparisons"] == 3
    assert "Nothing is shown of wide: the student cannot be without it." in report["compared"]["sentences"]
    for table in tables(report):
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert "only trees (begins with the weights" in tables(report)[0]["below"] and page(report)


@pytest.mark.parametrize("has_found", [True, False])
def test_where_only_methods_were_compared_the_command_named_takes_the_best_ones_recipe(
    methods: dict[str, Any], tmp_path: Path, has_found: bool
) -> None:
    folder = tmp_path / "runs" / "20260101-000000-abcd"
    folder.mkdir(parents=True)
    write_report(folder, methods)
    if has_found:
        (folder / "found.yaml").write_text("")
    with pytest.raises(RecipeError) as error:
        newest_of_teachers(tmp_path)
    recipe = folder / "found.yaml" if has_found else "RECIPE"
    assert f"`collegium compare {recipe} --teachers --student small --out {tmp_path}` does" in str(error.value)
    assert str(error.value).endswith("for each seed: small 3")


def test_a_report_of_one_run_is_what_it_was(built: Any) -> None:
    report = built(None, ("small",))
    assert "compared" not in report and "What the comparison shows" not in page(report)
