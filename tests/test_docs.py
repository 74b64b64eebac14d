"""The documents: what is made is up to date, every link leads somewhere, everything that a user can name is told."""

import ast
import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from benchmarks import record
from docs.render.figures import Figure, records
from docs.render.pages import made
from docs.render.rows import ACCURACY, SPEED
from docs.render.tables import walked
from orchestrator.cli.main import collegium
from orchestrator.cli.predict import SOME_BAD
from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.model import Recipe
from orchestrator.recipe.shipped import MODELINE, SCHEMA, recipes, schema_from
from teachers import errors
from teachers.process.environment import VARIABLES
from teachers.soft_targets.encodings.table import ENCODINGS
from teachers.soft_targets.schema import Commit, Spec
from tests import warm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
WRITTEN = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "deploy/README.md", *DOCS.rglob("*.md")]
CODE = [path for package in ("orchestrator", "students", "teachers") for path in sorted((ROOT / package).rglob("*.py"))]
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PREFIXED = re.compile(r"(COLLEGIUM|RAY|MLFLOW|AWS|GOOGLE|HF|OMP|TUNE)_[A-Z0-9_]*[A-Z0-9]")


def test_what_make_docs_makes_is_what_is_there() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in made().items() if path.read_text("utf-8") != text]
    assert not stale, "run `make docs`"


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.read_text().splitlines()) <= 250


def anchors(text: str) -> set[str]:
    """Of its headings, as GitHub makes them: lower case, no punctuation, blanks as hyphens."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def links(path: Path) -> Iterator[tuple[str, Path, str]]:
    """(as it is written, the file that it leads to, the anchor) of every relative link."""
    for target in LINK.findall(FENCED.sub("", path.read_text("utf-8"))):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            yield target, (path.parent / file).resolve() if file else path, anchor


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target, file, anchor in links(path):
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, left = set(), [README]
    while left:
        page = left.pop()
        reached.add(page)
        left += [file for _, file, _ in links(page) if file.suffix == ".md" and file not in reached]
    assert not set(DOCS.rglob("*.md")) - reached


def test_the_readme_and_the_reference_name_every_command() -> None:
    names = [" ".join(path) for path, _ in walked(collegium)]
    assert not [name for name in names if f"`{name}`" not in README.read_text()]
    assert set(anchors((DOCS / "reference/commands.md").read_text())) == {
        "commands",
        *(name.replace(" ", "-") for name in names),
    }


def test_the_readme_names_every_shipped_recipe() -> None:
    rows = [line.split("|")[1] for line in README.read_text().splitlines() if line.startswith("| `")]
    assert not [name for name in recipes() if not any(f"`{name}`" in row for row in rows)]


def test_the_reference_tells_the_meaning_of_every_key_of_the_recipe() -> None:
    schema = Recipe.model_json_schema()
    pages = "".join(path.read_text() for path in (DOCS / "reference/recipe").glob("*.md"))
    for name, model in schema["$defs"].items():
        for key, field in model.get("properties", {}).items():
            assert f"| `{key}` |" in pages, (name, key)
            decides = "const" in field or "enum" in field or "pattern" in field  # which of several models it is
            assert field.get("description") or decides, (name, key)
    index = (DOCS / "reference/recipe.md").read_text()
    assert not [key for key in schema["properties"] if f"| `{key}` |" not in index]


def recipes_shown() -> Iterator[Any]:
    """Whole ones and parts."""
    for path in WRITTEN:
        for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)):
            yield pytest.param(yaml.safe_load(block), id=f"{path.stem}-{number}")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """The recipe's, looked at once: that takes longer than to hold a document against it."""
    made = Recipe.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(made)
    return made


@pytest.mark.parametrize("document", list(recipes_shown()))
def test_every_recipe_in_the_documents_is_one_and_every_part_fits_into_one(
    document: dict[str, Any], schema: dict[str, Any]
) -> None:
    if "format" in document:
        Recipe.model_validate(document)
    known = schema["$defs"]["StudentConfig"]["properties"] | schema["properties"]
    for key, part in document.items():
        jsonschema.Draft202012Validator({**known[key], "$defs": schema["$defs"]}).validate(part)


def test_the_readme_shows_the_recipe_that_is_shipped() -> None:
    text = "".join(
        line for line in recipes()["digits"].read_text().splitlines(keepends=True) if not line.startswith("#")
    )
    assert text in README.read_text()


def test_the_tutorial_of_ones_own_is_accepted_as_it_is_typed(tmp_path: Path) -> None:
    text = (DOCS / "tutorial/your-own.md").read_text()
    for name, body in re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(body)
    done = warm.run(["plan", "mine.yaml", "--check"], tmp_path, os.environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_exit_code_is_told() -> None:
    text = (DOCS / "reference/exit-codes.md").read_text()
    codes = {error.exit_code for error in vars(errors).values() if hasattr(error, "exit_code")} | {
        0,
        SOME_BAD,
        3,
        130,
        141,
        143,
    }
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == codes


def test_every_field_and_column_of_a_store_is_told() -> None:
    text = (DOCS / "reference/store-format.md").read_text()
    record = {"rows" if name == "num_rows" else name for name in Commit.__dataclass_fields__} - {"shard"}
    columns = {
        f"{encoding.output}.{field.name}"
        for kept in ENCODINGS.values()
        for encoding in kept.values()
        for field in encoding.fields(2)
    }
    assert not [name for name in {*Spec.__dataclass_fields__, *record, *columns} if f"`{name}`" not in text]
    assert not [name for kept in ENCODINGS.values() for name in kept if f"| `{name}` |" not in text]


def test_every_environment_variable_that_the_code_reads_or_sets_is_told_and_no_other() -> None:
    code = [path for path in CODE if path.name != "environment.py" or path.parent.name != "process"]
    assert {name for path in code for name in variables_of(path)} - set(VARIABLES) == set()
    spelled = set(re.findall(r"[A-Z][A-Za-z0-9_]+", "".join(path.read_text() for path in code)))
    assert set(VARIABLES) - spelled == set()


def variables_of(path: Path) -> Iterator[str]:
    """What a module gives to `os.environ`, and every text that looks like such a name: those that stand in a table."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PREFIXED.fullmatch(node.value):
            yield node.value
        for name in given_to_environ(node):
            if isinstance(name, ast.Constant):
                yield str(name.value)
            elif isinstance(name, ast.Name | ast.Attribute) and (value := constant(path, name)) is not None:
                yield value


def given_to_environ(node: ast.AST) -> Iterator[ast.expr]:
    def is_environ(at: ast.AST) -> bool:
        return isinstance(at, ast.Attribute) and at.attr == "environ"

    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_environ(node.func.value):
        yield from node.args[:1]
    elif isinstance(node, ast.Subscript) and is_environ(node.value):
        yield node.slice
    elif isinstance(node, ast.Compare) and is_environ(node.comparators[0]):
        yield node.left
    elif isinstance(node, ast.keyword) and node.arg == "envvar":
        yield node.value


def constant(path: Path, name: ast.Name | ast.Attribute) -> str | None:
    """The value of a module's constant, `NAME` or `module.NAME`; None for what is no constant."""
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    at = module if isinstance(name, ast.Name) else getattr(module, getattr(name.value, "id", ""), None)
    value = getattr(at, name.id if isinstance(name, ast.Name) else name.attr, None)
    return value if isinstance(value, str) else None


def resolved(line: str, folder: Path) -> Path:
    """The schema that a YAML language server finds for the first line of a file in `folder`."""
    found = re.match(r"# yaml-language-server: \$schema=(\S+)\s*$", line)
    assert found, line
    target = found[1]
    if target.startswith("file:"):
        from urllib.parse import unquote, urlsplit

        return Path(unquote(urlsplit(target).path))
    assert "#" not in target
    return folder / target


@pytest.mark.parametrize("target", ["recipe.yaml", "deeper/recipe.yaml", "with a blank #1/recipe.yaml"])
def test_an_editor_finds_the_schema_of_what_init_writes_and_it_accepts_the_recipe(tmp_path: Path, target: str) -> None:
    path = tmp_path / target
    path.parent.mkdir(exist_ok=True)
    assert warm.run(["init", target], tmp_path, os.environ).returncode == 0
    schema = json.loads(resolved(path.read_text().splitlines()[0], path.parent).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    editor = jsonschema.Draft202012Validator(schema)
    editor.validate(yaml.safe_load(path.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        editor.validate({**yaml.safe_load(path.read_text()), "techers": {}})
    assert load_recipe(path).name == "recipe"
    assert load_recipe(path, ["name=digits"]) == load_recipe(recipes()["digits"])


@pytest.mark.parametrize("environment", [".venv/lib", "a folder/lib", "lib#2"])
@pytest.mark.parametrize("folder", [".", "recipes/deeper"])
def test_a_project_that_holds_its_environment_names_the_schema_so_that_both_can_move(
    tmp_path: Path, environment: str, folder: str
) -> None:
    schema = tmp_path / environment / SCHEMA.name
    line = f"{MODELINE}{schema_from(tmp_path / folder, tmp_path, schema)}"
    assert resolved(line, tmp_path / folder).resolve() == schema
    assert (str(tmp_path) in line) == (environment != ".venv/lib")  # an editor takes no blank in a path


def test_every_shipped_recipe_names_the_schema() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert resolved(path.read_text().splitlines()[0], path.parent).resolve() == SCHEMA


def test_a_recorded_figure_is_added_to_those_before_and_says_where_it_comes_from(tmp_path: Path) -> None:
    for seconds in (64, 45):
        file = record.add("make", "make run", {"run_s": seconds}, tmp_path)
    before, now = yaml.safe_load(file.read_text())
    assert (before["figures"], now["figures"]) == ({"run_s": 64}, {"run_s": 45})
    assert {"command", "commit", "day", "machine"} < set(now) and now["machine"]["python"] and now["machine"]["cores"]


def test_a_row_shows_the_newest_figure_and_what_it_was_before(tmp_path: Path) -> None:
    for figures in ({"run_s": 64}, {"other": 1}, {"run_s": 45}):
        file = record.add("make", "make run", figures, tmp_path)
    cells = list(Figure("a run", "make", "{run_s} s", "<= 60 s").cells(yaml.safe_load(file.read_text())))
    assert cells == ["a run", "45 s; earlier 64 s", "<= 60 s", "`make run`"]


@pytest.mark.parametrize("figure", [*SPEED.values(), *ACCURACY.values()], ids=lambda figure: figure.what[:40])
def test_every_row_of_figures_has_a_record(figure: Figure) -> None:
    assert figure.newest_first(records(figure.record))
