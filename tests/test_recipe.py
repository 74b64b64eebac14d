"""The recipe: strict, frozen, and every error has its place."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from orchestrator.recipe.checks import class_problems
from orchestrator.recipe.load import changed, load_recipe
from orchestrator.recipe.model import Recipe, Tracking, public
from orchestrator.recipe.shipped import name_for, recipes, starter, starters
from orchestrator.running.run import smoke
from teachers.errors import RecipeError

ROOT = Path(__file__).parents[1]
DIGITS = (ROOT / "recipes" / "digits.yaml").read_text()


def complaint(tmp_path: Path, text: str, *overrides: str) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as found:
        load_recipe(path, overrides)
    assert found.value.exit_code == 2
    return str(found.value).replace(str(path), "r.yaml")


def line_of(text: str, needle: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if needle in line)


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert load_recipe(recipes()[name]).format == 1


@pytest.mark.parametrize("job", starters())
def test_every_starter_is_a_valid_recipe_that_is_named_after_its_file(tmp_path: Path, job: str) -> None:
    (tmp_path / "my-data.yaml").write_text(starter(job, tmp_path / "my-data.yaml"))
    assert load_recipe(tmp_path / "my-data.yaml").name == "my-data"
    assert {"image_folder", "table"} <= set(starters())


def test_a_recipe_that_is_called_as_a_starter_is_named_with_its_folder(tmp_path: Path) -> None:
    assert "xgboost" in starter("recipes/table", tmp_path / "mine.yaml")
    assert "xgboost" not in starter("table", tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "file,name", [("my run (2).yaml", "my-run-2"), ("2024.yaml", "r-2024"), ("x" * 80, "x" * 64), ("é.yaml", "r")]
)
def test_any_file_gives_a_name_that_a_recipe_may_have(tmp_path: Path, file: str, name: str) -> None:
    assert name_for(Path(file)) == name
    (tmp_path / "r.yaml").write_text(DIGITS.replace("name: digits\ntask", f"name: {name}\ntask"))
    assert load_recipe(tmp_path / "r.yaml").name == name


def test_what_a_recipe_starts_from_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--from tabel: there is none of that name, did you mean table"):
        starter("tabel", tmp_path / "r.yaml")


def test_names_with_hyphens_are_taken_and_what_a_name_is_is_told_in_words(tmp_path: Path) -> None:
    hyphens = (
        DIGITS.replace("name: digits\ntask", "name: my-run\ntask")
        .replace("wide", "resnet-50")
        .replace("small", "a-small")
    )
    (tmp_path / "r.yaml").write_text(hyphens)
    assert load_recipe(tmp_path / "r.yaml").name == "my-run"
    told = complaint(tmp_path, DIGITS.replace("name: digits\ntask", "name: my run\ntask"))
    assert told.endswith(
        "name: a name begins with a letter and has letters, digits, _ and -, at most 64 (found 'my run')"
    )
    told = complaint(
        tmp_path, DIGITS.replace("    wide:", "").replace("  small:", "  2small:").replace("  wide:\n", "  wide one:\n")
    )
    assert "teachers.wide one: a name begins with a letter" in told and "pattern" not in told


def test_what_an_anchor_names_is_said_once_and_keys_beside_it_win(tmp_path: Path) -> None:
    text = DIGITS.replace("train: {steps: 600, augment: affine}", "train: &long {steps: 600, augment: affine}")
    text = text.replace("train: {steps: 600, augment: affine, seed: 1}", "train: {<<: *long, seed: 1, steps: 5}")
    (tmp_path / "r.yaml").write_text(text)
    found = load_recipe(tmp_path / "r.yaml").teachers
    trained = {name: teacher.train for name, teacher in found.items() if teacher.kind == "module"}
    assert trained["deep"] == trained["wide"].model_copy(update={"seed": 1, "steps": 5})  # type: ignore[union-attr]
    where = line_of(text, "<<: *long")
    told = complaint(tmp_path, text.replace("<<: *long, seed: 1", "<<: *long, sed: 1"))
    assert told.startswith(f"r.yaml:{where}:") and "did you mean seed?" in told


def test_a_misspelt_key_is_named_with_its_place_and_the_nearest_key(tmp_path: Path) -> None:
    text = DIGITS.replace("    objective:", "    objectve:")
    line = line_of(text, "objectve")
    assert f"r.yaml:{line}:5: students.small.objectve: unknown key, did you mean objective?" in complaint(
        tmp_path, text
    )


def test_all_errors_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        DIGITS.replace("width: 24}", "width: 24}\n    replics: 2")
        .replace("steps: 1600", "steps: many")
        .replace("name: digits}", "name: digit}")
    )
    told = complaint(tmp_path, text).splitlines()
    assert [line.split(": ")[1] for line in told] == [
        "transfer_set.source.name",
        "teachers.wide.replics",
        "students.small.train.steps",
    ]


def test_a_key_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    assert "teachers: stands twice" in complaint(tmp_path, DIGITS + "\nteachers: {}\n")


def test_a_wrong_type_says_what_was_found(tmp_path: Path) -> None:
    assert "learning_rate: input should be a valid number" in complaint(tmp_path, DIGITS.replace("5.0e-3", "fast"))


def test_an_unknown_kind_names_the_kinds_there_are(tmp_path: Path) -> None:
    assert "did you mean sklearn?" in complaint(tmp_path, DIGITS.replace("kind: sklearn, name", "kind: sklern, name"))


def test_an_unknown_loss_that_is_no_import_string_is_refused(tmp_path: Path) -> None:
    assert "objective.0.loss" in complaint(tmp_path, DIGITS.replace("loss: soft", "loss: sofd"))


def test_a_term_that_hears_only_teachers_of_weight_0_is_refused(tmp_path: Path) -> None:
    """Also where another of the student's teachers, whom this term does not hear, has a weight."""
    term = "{loss: soft, combine: weighted, teachers: [wide], teacher_weights: {wide: 0, deep: 1}}"
    told = complaint(tmp_path, DIGITS, f"students.small.objective=[{term}, {{loss: soft}}]")
    assert "students.small: objective.0 hears ['wide'] alone, whose teacher_weights are all 0" in told


def test_a_teacher_that_is_trained_here_learns_classes_of_the_transfer_set_and_no_others() -> None:
    """`plan` says so; some of them, in any order, it may."""
    digits = [str(number) for number in range(10)]
    some = "teachers.{}={{kind: {}, classes: ['3', '1'], class_map: {{}}, {}}}"
    module = some.format("wide", "module", "model: 'teachers.zoo:mlp', train: {steps: 5}")
    trees = some.format("trees", "sklearn", "model: 'sklearn.ensemble:ExtraTreesClassifier'")
    assert [*class_problems(load_recipe(ROOT / "recipes" / "digits.yaml", [module, trees]), digits)] == []
    strange = [text.replace("'1'", "'one'") for text in (module, trees)]
    told = [*class_problems(load_recipe(ROOT / "recipes" / "digits.yaml", strange), digits)]
    assert [line.partition(" are not")[0] for line in told] == [
        "teachers.wide.classes: ['one']",
        "teachers.trees.classes: ['one']",
    ]


def test_a_gain_that_no_run_could_show_is_refused_before_it(tmp_path: Path) -> None:
    gain = "students.small.require={gain: 0.01}"
    one_seed = complaint(tmp_path, DIGITS, gain, "students.small.train.seeds=[0]")
    assert "students.small.require.gain" in one_seed and "no second seed" in one_seed
    assert "there is no control" in complaint(tmp_path, DIGITS, gain, "students.small.control=false")
    load_recipe(ROOT / "recipes" / "digits.yaml", [gain, "students.small.train.seeds=[0, 1]"])


def test_a_student_that_hears_none_of_its_teachers_is_refused(tmp_path: Path) -> None:
    told = complaint(tmp_path, DIGITS, "students.small.objective=[{loss: hard}]")
    assert "students.small: no term listens to the teachers ['wide', 'deep', 'trees']; add `{loss: soft}`" in told


def test_augmentation_is_a_name_an_import_string_or_a_list_of_them(tmp_path: Path) -> None:
    path = ROOT / "recipes" / "digits.yaml"
    given = {"flip": ["flip"], "[flip, 'mine:fn', cutout]": ["flip", "mine:fn", "cutout"], "null": []}
    for text, steps in given.items():
        assert load_recipe(path, [f"students.small.train.augment={text}"]).students["small"].train.augments == steps
    for text, where in (("cutuot", "augment"), ("[flip, cutuot]", "augment.1")):
        told = complaint(tmp_path, DIGITS, f"students.small.train.augment={text}")
        assert f"students.small.train.{where}: expected one of" in told and "did you mean cutout?" in told
        assert len(told.splitlines()) == 1
    assert "at least 1" in complaint(tmp_path, DIGITS, "students.small.train.augment=[]")


def test_broken_yaml_has_its_place(tmp_path: Path) -> None:
    assert complaint(tmp_path, "format: 1\nname: [unclosed\n").startswith("r.yaml:3:1: not YAML")


def test_a_missing_file_says_what_to_do() -> None:
    with pytest.raises(RecipeError, match="collegium init"):
        load_recipe("no/such/recipe.yaml")


def test_overrides_reach_lists_and_are_checked_like_the_file(tmp_path: Path) -> None:
    path = ROOT / "recipes" / "digits.yaml"
    recipe = load_recipe(path, ["students.small.objective.0.temperature=4", "students.small.train.steps=5"])
    small = recipe.students["small"]
    assert (small.objective[0].temperature, small.train.steps) == (4.0, 5)  # type: ignore[union-attr]
    assert "-o students.small.train.stps: unknown key, did you mean steps?" in complaint(
        tmp_path, DIGITS, "students.small.train.stps=5"
    )
    assert "has 2 entries" in complaint(tmp_path, DIGITS, "students.small.objective.7.weight=1")
    assert "expected `path.to.key=value`" in complaint(tmp_path, DIGITS, "students.small")


def test_a_student_that_names_no_such_teacher_is_told_the_nearest(tmp_path: Path) -> None:
    text = DIGITS.replace("teachers: [wide, deep, trees]", "teachers: [wide, deep, tree]")
    assert (
        f"r.yaml:{line_of(text, '[wide, deep, tree]')}:28: students.small.teachers.2: no teacher or student is called 'tree', did you mean trees?"
        in complaint(tmp_path, text)
    )


def test_a_cycle_of_assistants_is_refused_with_its_path(tmp_path: Path) -> None:
    recipe = yaml.safe_load(DIGITS)
    small = recipe["students"].pop("small")
    for name, teacher in (("a", "b"), ("b", "c"), ("c", "a")):
        recipe["students"][name] = small | {"teachers": [teacher]}
    assert "a -> b -> c -> a" in complaint(tmp_path, yaml.safe_dump(recipe))


def test_assistants_come_before_those_they_teach() -> None:
    recipe = yaml.safe_load(DIGITS)
    small = recipe["students"].pop("small")
    recipe["students"] = {"last": small | {"teachers": ["middle"]}, "middle": small, "other": small}
    loaded = Recipe.model_validate(recipe)
    assert loaded.learners_in_order() == [["middle", "other"], ["last"]]
    assert loaded.assistants() == ["middle"]


def test_soft_targets_of_a_teacher_that_keeps_labels_only_are_refused(tmp_path: Path) -> None:
    text = DIGITS.replace("arguments: {n_estimators: 300}", "arguments: {n_estimators: 300}\n    encoding: label")
    assert "teacher 'trees' keeps only labels" in complaint(tmp_path, text)


def test_a_recipe_is_frozen() -> None:
    recipe = load_recipe(ROOT / "recipes" / "digits.yaml")
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


def test_the_public_copy_holds_no_password() -> None:
    uri = "https://me:${SECRET}@mlflow.example/x"
    recipe = load_recipe(ROOT / "recipes" / "digits.yaml", [f"tracking.uri='{uri}'"])
    assert public(recipe)["tracking"]["uri"] == uri
    unchecked = recipe.model_copy(update={"tracking": Tracking(uri="https://me:secret@mlflow.example/x")})
    assert public(unchecked)["tracking"]["uri"] == "https://mlflow.example/x"


def test_reading_a_recipe_imports_no_heavy_package() -> None:
    code = (
        "import sys; from orchestrator.recipe.load import load_recipe; import orchestrator.cli.main;"
        f"load_recipe({str(ROOT / 'recipes' / 'digits.yaml')!r});"
        "print([name for name in ('torch', 'ray', 'mlflow', 'numpy', 'pyarrow', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("format: 1\nname: t\nsource: {kind: csv, path: {{ data }}}\n", "3:28", "a template that was not filled in"),
        ("format: 1\n{% if x %}\nname: t\n", "2:2", "cannot start any token"),
        ("format: 1\nname: &n [*n]\n", "2:7", "an anchor that holds itself"),
        ("a: &a {b: &b {c: *a}}\n", "1:4", "an anchor that holds itself"),
        ("format: 1\nname: " + "[" * 3000, "2:", "nested too deeply"),
        ("name: " + "{a: " * 3000, "1:", "nested too deeply"),
        ("\n".join(["a: &a [1, 1, 1, 1, 1, 1, 1]", *(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in pairwise("abcdefgh"))]), "", "more than 100,000 values"),
        ("? [a, b]\n: 1\n", "1:3", "a key that is no word"),
        ("format: 1\nname: 2024-13-45\n", "2:7", "put it in quotes"),
        ("a: !!int abc\n", "1:4", "put it in quotes"),
        ("a: !!bool perhaps\n", "1:4", "put it in quotes"),
        ("a: !!timestamp never\n", "1:4", "put it in quotes"),
        ("a: !!python/object:os.system x\n", "1:4", "could not determine a constructor"),
        ("a: *nobody\n", "1:4", "undefined alias"),
        ("a: 1\n---\nb: 2\n", "2:1", "another document"),
        ("a: " + "9" * 5000, "1:4", "put it in quotes"),
    ],
)  # fmt: skip
def test_what_is_no_yaml_of_a_recipe_is_told_in_one_line_with_its_place(
    tmp_path: Path, text: str, place: str, said: str
) -> None:
    told = complaint(tmp_path, text)
    assert told.startswith(f"r.yaml:{place}") and said in told and "\n" not in told


@pytest.mark.parametrize("value", ["{{ name }}", "&n [*n]", "[" * 3000, "!!int x", "2024-13-45", "*nobody", "%"])
def test_an_override_that_is_no_yaml_is_told_in_one_short_line(tmp_path: Path, value: str) -> None:
    told = complaint(tmp_path, DIGITS, f"name={value}")
    assert told.startswith("-o name=") and "is not YAML" in told and len(told) < 400 and "\n" not in told


def test_a_recipe_that_is_no_text_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9\n".encode("latin-1"))
    for path, said in ((tmp_path, "is a folder"), (tmp_path / "latin.yaml", "is not text in UTF-8 .byte 10.")):
        with pytest.raises(RecipeError, match=said):
            load_recipe(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "transfer_set.classes=[no, yes]",
            "transfer_set.classes.0: expected text, found the truth value that YAML reads",
        ),
        ("transfer_set.classes=[0, 1]", "transfer_set.classes.1: expected text, found the number 1; put it in quotes"),
        ("transfer_set.classes=[2020-01-01]", "found the date 2020-01-01; put it in quotes"),
    ],
)
def test_words_that_yaml_reads_otherwise_are_asked_for_in_quotes(tmp_path: Path, override: str, said: str) -> None:
    assert said in complaint(tmp_path, DIGITS, override)


# ---- recipes that the program changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        ["students.small.objective=[{loss: soft, ramp: {steps: 100}}]"],
        ["students.small.objective=[{loss: soft, ramp: {share: 0.5}}]"],
        ["students.small.train.steps=null", "students.small.train.epochs=3", "students.small.objective=[{loss: soft, ramp: {steps: 5000}}]"],
        ["teachers.wide.outputs={h: {layer: '1'}}", "students.small.hints=[{loss: hint, teacher: wide, output: h, ramp: {steps: 100}}]"],
        ["transfer_set.labelled=1500"],
        ["transfer_set.labelled={train: 900, validation: 90}"],
        ["teachers.wide.require={accuracy: 0.9}"],
        ["students.small.train.early_stopping={patience: 2}", "students.small.train.evaluate_every=1000"],
        ["students={}", "cohorts={trio: {method: mutual, teachers: [wide], members: {a: {model: 'students.models:mlp'}, b: {model: 'students.models:mlp'}}, objective: [{loss: peer, ramp: {steps: 90}}, {loss: hard}, {loss: soft}], train: {steps: 400}}}"],
    ],
)  # fmt: skip
def test_a_smoke_run_takes_whatever_the_run_takes(tmp_path: Path, overrides: list[str]) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(DIGITS)
    made = smoke(load_recipe(path, overrides))
    assert not made.problems() and made.transfer_set.limit == 256
    assert all(learner.train.steps == 20 for learner in made.learners.values())


def test_a_recipe_that_the_program_spoils_is_told_by_who_did() -> None:
    document = load_recipe(recipes()["digits"]).model_dump(mode="json")
    document["students"]["small"]["train"]["steps"] = 0
    with pytest.raises(RecipeError, match=r"^--smoke: students.small.train.steps: .*greater than or equal to 1"):
        changed(document, "--smoke")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("students.small.control=true", "students.small.control: there are no labels to train a control with"),
        ("students.small.require={accuracy: 0.5}", "students.small.require: nothing can be judged without labels"),
        ("teachers.trees={kind: sklearn, model: 'sklearn.ensemble:ExtraTreesClassifier'}", "teachers.trees: there are no labels to train it with"),
        ("transfer_set.labelled=100", "transfer_set.labelled: there are no labels to keep"),
    ],
)  # fmt: skip
def test_what_needs_labels_is_refused_where_there_are_none(tmp_path: Path, override: str, said: str) -> None:
    text = DIGITS.replace("label: digit", "label: null")
    own = [
        "teachers={mine: {kind: callable, function: 'mine:teach', output: logits}}",
        "transfer_set.labelled=null",
        "students.small.teachers=[mine]",
        "students.small.control=false",
        "students.small.require=null",
    ]
    assert said in complaint(tmp_path, text, *own, override)
