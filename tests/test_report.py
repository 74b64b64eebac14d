import copy
import json
import re
import statistics
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.recipe.model import Recipe, public
from orchestrator.reporting.by_class import class_table
from orchestrator.reporting.document import POINTS_OF_A_CURVE, build_report, curves, notes
from orchestrator.reporting.headline import headline_figures, remarks
from orchestrator.reporting.kept import write_report
from orchestrator.reporting.note import note
from orchestrator.reporting.page import page
from orchestrator.reporting.plots import short
from orchestrator.reporting.shown import seconds
from students.measuring.by_row import to_document
from students.measuring.gain import paired_gain, verdict
from students.tasks import class_table as table_of_classes
from tests.judged_rows import of_digits

SIZE = {
    "parameters": 1210,
    "bytes": 5200,
    "latency": {
        "device": "CPU",
        "threads": 1,
        "batch_1": {"p50_ms": 0.08, "p95_ms": 0.11},
        "batch_32": {"p50_ms": 0.1, "p95_ms": 0.2},
    },
}
UNEVEN = "The classes are uneven: who always answers '1' has an accuracy of 62.7 %."
HOSTILE = '<script>alert("x")</script>'


def recipe_of(students, *, control=True):
    one = {"model": "students.models:mlp", "teachers": ["wide", "trees"], "control": control}
    return public(
        Recipe.model_validate(
            {
                "format": 1,
                "name": "digits",
                "transfer_set": {"source": {"kind": "sklearn", "name": "digits"}, "inputs": "image", "label": "digit"},
                "teachers": {
                    "wide": {"kind": "module", "model": "teachers.zoo:mlp", "train": {"steps": 5, "augment": "affine"}},
                    "trees": {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"},
                },
                "students": dict.fromkeys(students, one),
            }
        )
    )


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
MISTAKE = {"id": "a.png", "label": "8", "said": "3", "confidence": 0.984, "ensemble": "8"}


def evaluations_of(students, *, control=True, seeds=(0, 1, 2), share=0.1):
    """As the evaluate stages leave them; `share`: of the commonest class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (300,), generator=generator)

    def say(skill):
        return skill * torch.eye(10)[labels] + torch.randn(300, 10, generator=generator)

    said = {"wide": say(4.0), "trees": say(3.0)}
    ensemble = torch.stack([torch.softmax(logits, -1) for logits in said.values()]).mean(0).log()
    figures = {name: of_digits(labels).figures(logits, ensemble) for name, logits in said.items()}
    found = {
        "teachers": {
            "teachers": figures,
            "ensemble": of_digits(labels).figures(ensemble),
            "agreement": of_digits(labels).agreement({**said, "ensemble": ensemble}),
            "by_class": by_class({**said, "ensemble": ensemble}, labels),
            "confusion": table_of_classes.confusion(ensemble, labels),
            "mistakes": [{**MISTAKE, "inputs": [{"column": "image", "png": PNG}]}],
            "rows": 300,
            "commonest": {"class": "1", "share": share, "classes": 10, "remark": UNEVEN if share > 0.5 else None},
        }
    }
    for name in students:
        mine, other = {seed: say(3.5) for seed in seeds}, {seed: say(2.0) for seed in seeds}
        of_kinds = {"student": mine, **({"control": other} if control else {})}
        found[name] = evaluation_of(of_kinds, {**said, "ensemble": ensemble}, labels)
    return found


def evaluation_of(of_kinds, heard, labels):
    """Of a student; `of_kinds`: what it and its control say, by seed, `heard`: what its teachers and their ensemble do."""
    right = {
        kind: np.stack([(logits.argmax(-1) == labels).numpy() for logits in by_seed.values()])
        for kind, by_seed in of_kinds.items()
    }
    gain = paired_gain(*right.values()) if "control" in of_kinds else None

    def runs(kind, **size):
        return {
            "runs": [
                {"seed": seed, **of_digits(labels).figures(logits, heard["ensemble"]), **size}
                for seed, logits in of_kinds[kind].items()
            ]
        }

    delivered, first = next(iter(of_kinds["student"].items()))
    return {
        "confusion": table_of_classes.confusion(first, labels),
        "by_row": {kind: to_document(rows) for kind, rows in right.items()},
        "student": runs("student", **SIZE),
        "control": runs("control") if "control" in of_kinds else None,
        "ensemble": of_digits(labels).figures(heard["ensemble"]),
        "gain": gain.to_json() if gain else None,
        "verdict": verdict(gain),
        "delivered": delivered,
        "by_class": by_class(heard, labels, {kind: [*by_seed.values()] for kind, by_seed in of_kinds.items()}),
        "mistakes": [{**MISTAKE, "inputs": [{"column": "image", "png": PNG}]}],
        "agreement": of_digits(labels).agreement({**heard, "student": first}),
    }


def by_class(heard, labels, of_kinds=None):
    said = {name: [logits] for name, logits in heard.items()} | (of_kinds or {})
    return table_of_classes.by_class(said, labels, "0123456789")


def stages_of(reason="new"):
    built = {"key": "a" * 64, "reused": False, "reason": reason, "seconds": 1.5}
    label = {"stage": "label", "name": "wide", "part": "train-0", **built, "rows": 1248, "rows_per_s": 15_000.0}
    return [label, {"stage": "distill", "name": "small", **built, "reused": True, "reason": None}]


@pytest.fixture
def metrics_file(tmp_path):
    lines = [
        {
            "stage": "distill/small",
            "run": f"{kind}/seed-{seed}",
            "step": step,
            "key": key,
            "value": step / 100,
            "time": 1.0,
        }
        for kind in ("student", "control")
        for seed in (0, 1)
        for step in (10, 20, 30)
        for key in ("validation.accuracy", "validation.nll")
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "metrics.jsonl"


def build(digits, metrics_file, *, students=("small",), reason="new", **options):
    return build_report(
        recipe=recipe_of(students, control=options.get("control", True)),
        stages=stages_of(reason),
        evaluations=evaluations_of(students, **options),
        metrics={name: [metrics_file] for name in students},
        mlflow={"experiment_id": "1", "run_id": "abc", "uri": "http://127.0.0.1:5000"},
        prepared=digits.folder,
        seconds=12.0,
    )


@pytest.fixture
def report(digits, metrics_file):
    return build(digits, metrics_file)


def test_the_keys_that_other_programs_rely_on_are_there(report):
    assert report["format"] == 4
    assert report["recipe"]["name"] == "digits"
    assert {"stage", "name", "key", "reused", "reason", "seconds"} <= report["stages"][0].keys()
    assert report["teachers"]["wide"]["test_accuracy"] == report["teachers"]["wide"]["accuracy"]
    assert 0 < report["ensemble"]["test_accuracy"] <= 1
    small = report["students"]["small"]
    for key in ("test_accuracy", "control_accuracy"):
        assert small[key]["mean"] == pytest.approx(statistics.fmean(small[key]["runs"]))
        assert small[key]["std"] == pytest.approx(statistics.stdev(small[key]["runs"]))
        assert len(small[key]["runs"]) == 3
    assert {"low", "mean", "high"} <= small["gain"].keys()
    assert small["gain"]["mean"] == pytest.approx(small["test_accuracy"]["mean"] - small["control_accuracy"]["mean"])
    assert isinstance(small["parameters"], int)
    assert 0 <= small["ece"] <= 1 and 0 < small["agreement"] <= 1
    assert report["mlflow"]["experiment_id"] == "1" and report["mlflow"]["run_id"] == "abc"


def test_without_a_control_nothing_is_claimed(digits, metrics_file):
    report = build(digits, metrics_file, control=False, seeds=(4,))
    small = report["students"]["small"]
    assert small["control_accuracy"] is None and small["gain"] is None
    assert small["test_accuracy"]["std"] is None
    html = page(report)
    assert "No control was trained" in html and "(one seed)" in html and "control of small" not in html


def test_the_page_is_made_from_the_json_alone(report, tmp_path):
    written, html = write_report(tmp_path, report)
    again = json.loads(written.read_text())
    assert page(again) == html.read_text()


class Page(HTMLParser):
    """What a browser would load, and every id."""

    def __init__(self, html):
        super().__init__()
        self.loads, self.ids, self.tags = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "data", "action", "srcset") or (name in ("href", "xlink:href") and tag != "a"):
                self.loads.append(value)
        self.loads = [target for target in self.loads if not target.startswith("data:image/png;base64,")]


@pytest.mark.parametrize("students", [("small",), ("small", "tiny")])
def test_the_page_loads_nothing_runs_nothing_and_names_each_part_once(digits, metrics_file, students):
    html = page(build(digits, metrics_file, students=students))
    found = Page(html)
    assert all(target.startswith("#") for target in found.loads)
    assert "url(http" not in html and "@import" not in html
    assert "script" not in found.tags
    assert len(found.ids) == len(set(found.ids))
    assert {target[1:] for target in found.loads} <= set(found.ids)


def test_every_plot_is_well_formed_and_takes_the_colour_of_the_page(report):
    plots = re.findall(r"<svg.*?</svg>", page(report), flags=re.DOTALL)
    assert len(plots) == 6
    for plot in plots:
        root = ElementTree.fromstring(plot)
        assert root.attrib["role"] == "img" and root.attrib["aria-label"]
        assert "currentColor" in plot
        assert "#010203" not in plot and "mathdefault" not in plot


def test_text_from_elsewhere_is_shown_and_never_run(digits, metrics_file):
    report = build(digits, metrics_file, reason=HOSTILE)
    report["transfer_set"]["first_bad_rows"] = [HOSTILE]
    report["notes"].append(HOSTILE)
    report["recipe"]["transfer_set"]["label"] = HOSTILE
    html = page(report)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3


def test_the_same_report_gives_the_same_page(report):
    assert page(report) == page(copy.deepcopy(report))


def test_the_page_says_what_was_reused_and_why_the_rest_was_built(digits, metrics_file):
    html = page(build(digits, metrics_file, reason="teacher weights changed"))
    assert "reused" in html and "teacher weights changed" in html and "15,000" in html


def test_notes_say_what_flatters_or_harms_the_figures(digits, metrics_file):
    told = " ".join(build(digits, metrics_file)["notes"])
    assert "Trained with augmentation (affine): teacher wide." in told
    assert "Teacher trees gives probabilities; they were floored at 0.001" in told


@pytest.mark.parametrize(
    ("dropped", "told"),
    [
        ({}, "3 test rows those of train rows, 1 test rows those of validation rows; test figures may flatter"),
        ({"train": 4, "validation": 0}, "Dropped were 4 train rows."),
    ],
)
def test_rows_of_two_splits_are_told_by_split(digits, dropped, told):
    found = {"train/validation": 0, "train/test": 3, "validation/test": 1}
    counted = digits.report | {"duplicates_across_splits": found, "dropped_duplicates": dropped}
    assert told in " ".join(notes(recipe_of(["small"]), counted))


def test_curves_keep_the_last_word_on_a_step_drop_what_is_not_finite_and_stay_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    records = [{"run": "a", "step": step, "key": "k", "value": 1.0, "time": 0.0} for step in range(3000)]
    records += [{**records[-1], "value": 2.0}, {**records[0], "key": "other", "value": float("nan")}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + '{"run": "a", "st')
    found = curves(path)
    assert found["a"].keys() == {"k"}
    assert found["a"]["k"][-1] == [2999, 2.0]
    assert len(found["a"]["k"]) <= POINTS_OF_A_CURVE
    assert curves(tmp_path / "missing.jsonl") == {}


@pytest.mark.parametrize(
    ("gain", "tone"),
    [
        ({"low": 0.01, "mean": 0.02, "high": 0.03, "conclusion": "helps"}, "helps"),
        ({"low": -0.03, "mean": -0.02, "high": -0.01, "conclusion": "hurts"}, "hurts"),
        ({"low": 0.01, "mean": 0.02, "high": 0.03, "conclusion": "open"}, "open"),
        ({"low": None, "mean": 0.02, "high": None, "conclusion": "open"}, "open"),
        (None, "open"),
    ],
)
def test_a_verdict_has_the_tone_of_its_conclusion(report, gain, tone):
    report["students"]["small"]["gain"] = gain
    assert f'<section class="card verdict {tone}">' in page(report)


def test_one_seed_is_told_without_an_interval_everywhere(digits, metrics_file):
    report = build(digits, metrics_file, seeds=(4,))
    small = report["students"]["small"]
    assert small["gain"]["low"] is None and small["gain"]["high"] is None
    figures = headline_figures(report)
    assert "students.small.gain.mean" in figures and "students.small.gain.low" not in figures
    for told in (page(report), note(report)):
        assert "No verdict: " in told and "give `train.seeds` at least two" in told.replace("&#39;", "'")
        assert "no interval" in told


def test_how_many_verdicts_stand_there_is_told_where_there_are_several(digits, metrics_file):
    assert remarks(build(digits, metrics_file)) == []
    several = build(digits, metrics_file, students=("small", "tiny", "flat"))
    (told,) = remarks(several)
    assert told.startswith("3 verdicts stand here") and "14 %" in told
    assert told in page(several) and told in note(several)
    assert remarks(build(digits, metrics_file, students=("small", "tiny"), control=False)) == []


def test_with_uneven_classes_the_headline_says_what_the_commonest_answer_would_reach(digits, metrics_file):
    report = build(digits, metrics_file, share=0.627)
    (told,) = remarks(report)
    assert told == "The classes are uneven: who always answers '1' has an accuracy of 62.7 %."
    assert told in note(report) and told.replace("'", "&#39;") in page(report)
    assert remarks(build(digits, metrics_file, share=0.15)) == []


def test_classes_stand_in_the_order_of_what_the_student_loses(report):
    found = report["students"]["small"]["by_class"]
    lost = {
        name: ensemble - student
        for name, ensemble, student in zip(
            found["classes"], found["recall"]["ensemble"], found["recall"]["student"], strict=True
        )
    }
    table = class_table(found)
    names = ["wide", "trees", "ensemble", "student", "control"]
    assert table["groups"][0] == {"title": "recall", "names": names}
    assert [group["title"] for group in table["groups"]] == ["recall", "precision", "F1", "average precision"]
    assert [row["name"] for row in table["rows"]] == sorted(lost, key=lost.get, reverse=True)
    assert [row["lost"] for row in table["rows"]] == sorted(lost.values(), reverse=True)
    html = page(report)
    assert "Where small loses" in html and html.index("Where small loses") < html.index("Surest mistakes of small")


def test_a_class_without_a_test_row_is_in_no_table_and_many_classes_do_not_flood_the_page():
    logits = torch.randn(297, 100, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(1, 100).repeat(3)
    table = class_table(
        table_of_classes.by_class({"ensemble": [logits], "student": [logits]}, labels, [*map(str, range(100))])
    )
    assert "0" not in [row["name"] for row in table["rows"]]
    assert len(table["rows"]) + table["left_out"] == 99 and len(table["rows"]) < 50


def test_a_mistake_is_shown_with_its_image_or_its_values_under_their_names(report):
    html = page(report)
    assert f'<img src="data:image/png;base64,{PNG}" alt="row a.png">' in html and "98.4 %" in html
    report["recipe"]["transfer_set"]["inputs"] = ["width", "height"]
    values = [{"column": "features", "values": [3.14159, 2.0], "of": 2}]
    report["students"]["small"]["mistakes"] = [{**MISTAKE, "label": HOSTILE, "inputs": values}]
    html = page(report)
    assert "width 3.142, height 2" in html and "<img" not in html and HOSTILE not in html


def test_a_figure_that_would_be_the_recipes_invention_is_a_dash(digits, metrics_file):
    report = build(digits, metrics_file)
    invented = {"nll": None, "ece": None, "reliability": None, "kl": None}
    report["teachers"]["trees"] |= invented
    report["ensemble"] |= invented
    small = report["students"]["small"]
    small["ensemble"] |= invented
    small |= {"kl": None}
    html = page(report)
    rows = {
        row.split("</td>")[0]: row for row in re.findall(r"<td><span class=.dot.></span>(.*?)</tr>", html, re.DOTALL)
    }
    dashes = {name: row.count("<td>\N{EN DASH}</td>") for name, row in rows.items()}
    assert dashes == {"wide": 0, "trees": 3, "teachers together": 2, "small": 1, "control of small": 0}
    assert "keeps the class only" in html


def test_headline_and_note_say_what_the_report_says(report):
    figures = headline_figures(report)
    assert figures["students.small.gain.mean"] == round(report["students"]["small"]["gain"]["mean"], 4)
    assert figures["teachers.wide.test_accuracy"] == round(report["teachers"]["wide"]["test_accuracy"], 4)
    text = note(report)
    assert report["students"]["small"]["verdict"] in text and "| control of small |" in text
    many = note({**report, "teachers": dict.fromkeys(map(str, range(999)), report["teachers"]["wide"])}, out=Path("o"))
    assert len(many) <= 8000 and "more, in the report" in many and many.endswith("- results: `o`")


def test_numbers_are_short():
    assert [short(1234567), short(1210), short(0.05)] == ["1.23 M", "1.21 k", "0.05"]
    assert [seconds(12.34), seconds(600), seconds(7200)] == ["12.3 s", "10.0 min", "2.0 h"]


def test_every_key_of_a_report_is_told(report):
    told = (Path(__file__).parents[1] / "docs/reference/report.md").read_text()
    for key in {*report, *report["students"]["small"], *report["teachers"]["wide"], *report["stages"][0]}:
        assert key == "accuracy" or re.search(rf"`{key}[`.\[]", told), key  # of a teacher it is `test_accuracy` too
