"""No secret stands in a recipe or goes where a recipe goes; `${NAME}` is read where the user's code is called."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.main import collegium
from orchestrator.recipe.load import check, load_recipe
from orchestrator.recipe.model import Recipe, public
from orchestrator.tracking.server import resolve_uri
from students.config.terms import ImportedTerm
from students.objective.bound import bound_loss
from teachers.config.secrets import looks_like, looks_like_by_name, without_password
from teachers.config.teacher import CallableTeacher
from teachers.config.transfer_set import ImportSource
from teachers.errors import EnvironmentUnfit, RecipeError, UsersCodeError
from teachers.models.adapters import load_teacher
from teachers.models.folder import ModelConfig, save_model
from teachers.models.modules import build_module
from teachers.models.teacher import Teacher
from teachers.process import variables
from teachers.process.log_lines import Carried
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

ROOT = Path(__file__).parents[1]
VALUE = "hush-0123456789"
SECRETS = {
    "postgresql://me:hidden@db/mlflow": "a URI with a password",
    "http://me:hid/den@mlflow:5000": "a URI with a password",
    "mysql+pymysql://me:hid@den@db:3306/x": "a URI with a password",
    "redis://:hidden1@cache:6379/0": "a URI with a password",
    "https://hidden0123456789abcdef@github.example/x.git": "a token",
    "https://store.example/x?sv=2022&sig=hidden%2Babc": "a URI with a secret",
    "s3://box/x?X-Amz-Signature=hidden0123": "a URI with a secret",
    "hf_" + "hidden" * 5: "a token",
    "ghp_" + "hidden0" * 5: "a token",
    "Bearer hidden0123456789abc": "a token",
    "eyJhbGciOiJIUzI1NiJ9.eyJoaWRkZW4iOiJ5ZXMifQ.hidden-hidden": "a token",
    "AKIA" + "HIDDEN01" * 2: "a key",
    "-----BEGIN RSA PRIVATE KEY-----\nhidden": "a key",
}
HARMLESS = [
    "http://mlflow:5000", "https://mlflow.example/team@x", "http://server:8080/model@v2", "sqlite:////home/me@work/mlflow.db",
    "s3://box/prefix/me@work", "abfss://container2024@account.dfs.core.windows.net/x", "git@github.com:me/x.git",
    "postgresql://me@db/mlflow", "postgresql://me:${PASSWORD}@db/mlflow", "https://x.example/?page_token=2&key=rows", "Basic 2-door-hatchback-1990", "Bearer ${TOKEN}",
    "teachers.zoo:conv_net", "sk-learn-extra-trees-classifier", "openai/whisper-large-v3", "[MASK]", "d41d8cd98f00b204e9800998ecf8427e",
]  # fmt: skip


def digits(tmp_path: Path, text: str = "") -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text((ROOT / "recipes" / "digits.yaml").read_text() + text)
    return file


@pytest.mark.parametrize("secret", SECRETS)
def test_a_value_that_looks_like_a_secret_is_refused_where_it_stands_and_not_said(tmp_path: Path, secret: str) -> None:
    file = digits(tmp_path, f"tracking:\n  uri: {json.dumps(secret)}\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(RecipeError) as found:
        load_recipe(file)
    said = f"{file}:{line}:3: tracking.uri: looks like {SECRETS[secret]}"
    assert str(found.value).startswith(said) and "put it in the environment: ${NAME}" in str(found.value)
    with pytest.raises(RecipeError) as overridden:
        load_recipe(digits(tmp_path), [f"students.small.arguments.nested={json.dumps({'of': [secret]})}"])
    assert "-o students.small.arguments.nested.of.0: looks like" in str(overridden.value)
    for error in (found, overridden):
        assert "hidden" not in str(error.value).lower()


def test_a_recipe_made_in_python_is_looked_at_too() -> None:
    document = load_recipe(ROOT / "recipes" / "digits.yaml").model_dump(mode="json")
    document["tracking"]["uri"] = "http://me:hidden@mlflow:5000"
    with pytest.raises(RecipeError, match=r"tracking.uri: looks like a URI with a password"):
        check(Recipe.model_validate(document))


@pytest.mark.parametrize("value", HARMLESS)
def test_what_is_no_secret_is_taken(value: str) -> None:
    assert looks_like(value) == ""


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("password", "x", "a password"),
        ("db_password", "${PASSWORD}", ""),
        ("apiKey", "0123456789abcdef", "a key"),
        ("secret_key", "/etc/key", ""),
        ("token", "0123456789abcdef0", "a token"),
        ("token", "mean", ""),
        ("pad_token", "<pad-0123456789012>", ""),
        ("key", "column_of_rows_1", ""),
    ],
)
def test_an_argument_says_by_its_name_what_it_holds(name: str, value: str, found: str) -> None:
    assert looks_like_by_name(name, value) == found


def test_names_of_classes_are_no_names_of_arguments(tmp_path: Path) -> None:
    load_recipe(digits(tmp_path), ["teachers.trees.class_map={password: '0', token: '1'}"])
    with pytest.raises(RecipeError, match=r"students.small.arguments.password: looks like a password"):
        load_recipe(digits(tmp_path), ["students.small.arguments.password=hunter2"])


USER = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":/@"), max_size=10)
PASSWORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(USER, PASSWORD)
def test_a_password_is_left_out_whatever_is_in_it(user: str, password: str) -> None:
    shown = without_password(f"postgresql+psycopg://{user}:{password}@db.example:5432/mlflow")
    assert shown == "postgresql+psycopg://db.example:5432/mlflow"


@pytest.mark.parametrize("uri", ["sqlite:////home/me@work/x.db", "http://mlflow:5000/x", "s3://box/me@work"])
def test_an_address_without_a_password_stays_as_it_is(uri: str) -> None:
    assert without_password(uri) == uri


def test_secret_fields_of_an_address_are_left_out() -> None:
    assert (
        without_password("https://x/y?user=me&password=hidden&sslmode=on")
        == "https://x/y?user=me&password=***&sslmode=on"
    )


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module whose functions say what they were called with."""
    (tmp_path / "secretly.py").write_text(
        "import numpy as np, pyarrow as pa, torch\n"
        "heard = []\n"
        "def teach(batch, **given):\n"
        "    heard.append(given)\n"
        "    return np.zeros((len(batch['x']), 2), np.float32)\n"
        "def fail(batch, token):\n"
        "    raise ValueError(f'the server says no to {token}')\n"
        "def network(num_classes, **given):\n"
        "    heard.append(given)\n"
        "    return torch.nn.Linear(3, num_classes)\n"
        "def rows(**given):\n"
        "    heard.append(given)\n"
        "    return pa.table({'x': [1.0], 'y': [0]})\n"
        "def loss(student, target, *, temperature, token):\n"
        "    heard.append({'token': token})\n"
        "    return student.sum(-1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HUSH", VALUE)
    sys.modules.pop("secretly", None)
    return tmp_path


def heard() -> Any:
    return sys.modules["secretly"].heard


COLUMNS = (Column("x", "number", (3,), (0.0,) * 3, (1.0,) * 3),)
BATCH = {"x": np.zeros((2, 3), np.float32)}
GIVEN = {"token": "${HUSH}", "nested": [{"auth": "Bearer ${HUSH}"}], "text": "$${HUSH}", "number": 1}
PUT_IN = {"token": VALUE, "nested": [{"auth": f"Bearer {VALUE}"}], "text": "${HUSH}", "number": 1}


def a_teacher(name: str, arguments: dict[str, Any]) -> Teacher:
    config = CallableTeacher(kind="callable", function=f"secretly:{name}", arguments=arguments, output="logits")
    about: dict[str, Any] = {
        "columns": COLUMNS,
        "space": Space("classification", ("a", "b")),
        "trained": None,
        "trust": [],
        "device": "cpu",
    }
    return load_teacher(config, **about, user_path=Path.cwd())


def test_arguments_have_the_value_where_they_are_used_and_nowhere_else(mine: Path) -> None:
    from teachers.sources.imported import imported_digest

    a_teacher("teach", GIVEN)(BATCH)
    assert heard()[-1] == PUT_IN
    module = build_module("secretly:network", GIVEN, num_classes=2, input_shape=(3,))
    assert heard()[-1] == PUT_IN
    save_model(
        mine / "model",
        module.state_dict(),
        ModelConfig("secretly:network", GIVEN, Space("classification", ("a", "b")), {"function": None}),
    )
    term = ImportedTerm(loss="secretly:loss", arguments={"token": "${HUSH}"})
    bound_loss("classification", term)(torch.zeros(1, 2), torch.zeros(1, 2))
    assert heard()[-1] == {"token": VALUE}
    assert not any(VALUE.encode() in path.read_bytes() for path in (mine / "model").iterdir())
    source = ImportSource(kind="import", function="secretly:rows", arguments=GIVEN)
    digest = imported_digest(source)
    os.environ["HUSH"] = "another value"
    assert imported_digest(source) == digest


def test_a_key_holds_the_name_and_the_record_of_its_stage_too(mine: Path) -> None:
    from orchestrator.stages.trainings import training_stages

    changed = ["students.small.arguments.token='${HUSH}'", "tracking.uri='http://me:${HUSH}@mlflow:5000'"]
    recipe = load_recipe(ROOT / "recipes" / "digits.yaml", changed)
    labels = dict.fromkeys(recipe.students["small"].teachers, "1")
    stage = training_stages(recipe, "small", "prepared", labels)["student", 0]
    assert "${HUSH}" in json.dumps(stage.document()) and VALUE not in json.dumps([stage.document(), public(recipe)])
    os.environ["HUSH"] = "another value"
    assert training_stages(recipe, "small", "prepared", labels)["student", 0].key == stage.key
    assert resolve_uri(recipe.tracking.uri, mine) == "http://me:another value@mlflow:5000"


def test_what_users_code_raises_does_not_say_the_value(mine: Path) -> None:
    teacher = a_teacher("fail", {"token": "${HUSH}"})
    with pytest.raises(UsersCodeError, match=r"the server says no to \$\{HUSH\}") as found:
        teacher(BATCH)
    assert VALUE not in str(found.value)


def test_a_variable_that_is_missing_is_told_by_plan_with_its_name_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    command = ["plan", str(digits(tmp_path)), "--out", str(tmp_path / "o")]
    for changed in ("students.small.arguments.token=${NOT_THERE}", "tracking.uri=http://me:${NOT_THERE}@mlflow:5000"):
        done = CliRunner().invoke(collegium, [*command, "-o", changed])
        assert isinstance(done.exception, EnvironmentUnfit)
        assert str(done.exception).startswith(
            f"{changed.partition('=')[0]}: there is no variable NOT_THERE in the environment of "
        )


def test_a_worker_without_a_variable_says_which_and_where(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUSH")
    with pytest.raises(EnvironmentUnfit, match=r"nested.0.auth: there is no variable HUSH in the environment of"):
        build_module("secretly:network", {"nested": GIVEN["nested"]}, num_classes=2, input_shape=(3,))


def test_an_estimators_arguments_which_are_kept_in_its_file_take_no_variable(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"teachers.trees.arguments.x: an estimator keeps its arguments in its file"):
        load_recipe(digits(tmp_path), ["teachers.trees.arguments.x='${HUSH}'"])


def test_a_process_that_is_given_work_has_the_variable_and_nothing_shows_its_value(mine: Path) -> None:
    import pickle

    variables.carry(["HUSH"])
    carried = Carried.from_here()
    assert VALUE not in repr(carried)
    code = (
        "import os, pickle, sys; pickle.loads(sys.stdin.buffer.read()).take_up(); "
        "from teachers.process.log_lines import Carried; print(os.environ['HUSH'], *Carried.from_here().variables)"
    )
    without = {name: value for name, value in os.environ.items() if name != "HUSH"}
    for environment, expected in [(without, VALUE), ({**without, "HUSH": "its own"}, "its own")]:
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickle.dumps(carried), env=environment, capture_output=True, cwd=ROOT
        )
        assert done.stdout.decode().strip() == f"{expected} HUSH", done.stderr.decode()


def test_a_job_says_which_variables_go_along_and_which_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.jobs.submission import make

    monkeypatch.setenv("HUSH", VALUE)
    changed = ["students.small.arguments.token=${HUSH}", "students.small.arguments.other=${ELSEWHERE}"]
    made = make(digits(tmp_path), changed, "/shared/out", variables=["HUSH"])
    assert [note for note in made.notes if "ELSEWHERE" in note] == [
        "the recipe reads ELSEWHERE from the environment: pass it on with --env ELSEWHERE, or set it on the cluster"
    ]
    assert made.runtime_env()["env_vars"]["HUSH"] == VALUE and VALUE not in json.dumps(made.shown())
    assert VALUE not in made.entrypoint and VALUE.encode() not in made.zipped


def test_a_comment_with_a_secret_is_not_submitted(tmp_path: Path) -> None:
    from orchestrator.jobs.submission import make

    file = digits(tmp_path, "# uri: postgresql://me:hid/den@db/mlflow\n")
    with pytest.raises(RecipeError, match=rf"{file}:\d+: looks like a URI with a password; everybody on the cluster"):
        make(file, [], "/shared/out")
