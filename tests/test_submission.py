"""What goes along with a job, and what never does; nothing here talks to a cluster."""

import io
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.jobs import ending
from orchestrator.cli.main import collegium
from orchestrator.cluster.capacity import AUTOSCALING
from orchestrator.jobs.client import Job, exit_code
from orchestrator.jobs.submission import Submission, make
from orchestrator.recipe.along import NAMES_DATA
from orchestrator.recipe.shipped import SCHEMA
from teachers.errors import RecipeError
from teachers.users_code.imports import SUBMITTED

RECIPE = """
format: 1
name: my_digits
task: classification
transfer_set: {source: {kind: sklearn, name: digits}, inputs: image, label: digit, limit: 100}
teachers:
  mine: {kind: callable, function: "job_mine:teach", output: logits}
students:
  small: {model: "students.models:mlp", teachers: [mine], objective: [{loss: soft, combine: "job_rules.combine:rule"}], train: {steps: 20, seeds: [0]}}
"""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with much in it that is no code of this recipe."""
    files = {
        "recipe.yaml": RECIPE,
        "job_mine.py": "from job_deeper.values import SCALE\ndef teach(columns): ...\n",
        "job_deeper/values.py": "SCALE = 1\n",
        "job_rules/__init__.py": "",
        "job_rules/combine.py": "from . import weights\ndef rule(logits, *, temperature, known, labels=None): ...\n",
        "job_rules/weights.py": "",
        "job_unused.py": "",
        "teachers/__init__.py": "raise SystemExit('the wrong one')",
        "data/rows.parquet": "rows",
        ".venv/lib/python3.11/site-packages/job_thing.py": "",
        "out/my_digits/prepared/rows.arrow": "rows",
        ".env": "HF_TOKEN=hidden",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "nothing"))  # so that what is put on the path here is taken off again
    for name in [name for name in sys.modules if name.startswith("job_")]:  # packages of another test's folder
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def submission(user: Path, *overrides: str, out: str | None = "/shared/out", **given: object) -> Submission:
    return make(user / "recipe.yaml", overrides, out, user_path=user, **given)  # type: ignore[arg-type]


def shipped(made: Submission) -> set[str]:
    return set(ZipFile(io.BytesIO(made.zipped)).namelist())


def test_the_users_modules_that_a_recipe_reaches_go_along_and_nothing_else_of_the_users(user: Path) -> None:
    names = {name.partition("/")[2] for name in shipped(submission(user)) if name.startswith(SUBMITTED)}
    assert names == {
        *("recipe.yaml", "job_mine.py", "job_deeper/values.py"),
        *("job_rules/__init__.py", "job_rules/combine.py", "job_rules/weights.py"),
    }


def test_all_of_collegium_goes_along_and_with_installed_nothing_of_it(user: Path) -> None:
    root = Path(__file__).parents[1]
    ours = {
        str(path.relative_to(root))
        for package in ("teachers", "students", "orchestrator")
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = shipped(submission(user))
    assert ours <= found
    assert {"orchestrator/recipes/digits.yaml", "orchestrator/recipe/recipe.schema.json"} <= found
    assert not [name for name in found if name.endswith((".pyc", ".arrow", ".parquet", ".env"))]
    assert all(name.startswith(SUBMITTED) for name in shipped(submission(user, installed=True)))


def test_the_same_submission_has_the_same_id_and_another_has_another(user: Path) -> None:
    first = submission(user)
    assert first.name.startswith("my-digits-") and first.name == submission(user).name
    others = [submission(user, out="/shared/other"), submission(user, "students.small.train.steps=9")]
    (user / "job_deeper" / "values.py").write_text("SCALE = 2\n")
    assert len({made.name for made in [first, *others, submission(user)]}) == 4


def test_what_is_shipped_runs_from_any_folder_with_the_users_modules_last(user: Path, tmp_path: Path) -> None:
    """As Ray does it: the zip is unpacked somewhere, that place stands on PYTHONPATH, the command begins elsewhere."""
    made = submission(user, verb="plan")
    place, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "students").mkdir()
    (elsewhere / "students" / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    ZipFile(io.BytesIO(made.zipped)).extractall(place)
    environment = os.environ | made.environment | {"PYTHONPATH": str(place), "RAY_ADDRESS": "local"}
    command = made.entrypoint.replace("exec python", f"exec {sys.executable}").replace(
        "/shared/out", str(tmp_path / "o")
    )
    done = subprocess.run(command, shell=True, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "prepare/transfer_set" in done.stdout
    code = (
        "import sys, teachers; from pathlib import Path; from teachers.users_code.imports import use_user_path; use_user_path(Path.cwd())"
        "; print(teachers.__file__); print(sys.path[-1])"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert told.stdout.split() == [str(place / "teachers" / "__init__.py"), str(place / SUBMITTED)], told.stderr


def test_the_file_of_a_class_map_goes_along_and_is_found_where_a_node_keeps_it(user: Path, tmp_path: Path) -> None:
    (user / "maps").mkdir()
    (user / "maps" / "names.csv").write_text("nought,0\n")
    said = {"class_map": "{file: maps/names.csv, others: null}", "classes": "[nought, one]"}
    made = submission(user, *(f"teachers.mine.{key}={value}" for key, value in said.items()))
    assert "maps/names.csv" in made.parcel.modules()
    place, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    ZipFile(io.BytesIO(made.zipped)).extractall(place)
    code = (
        "from pathlib import Path; from orchestrator.recipe.load import load_recipe; from orchestrator.recipe.shipped import find;"
        "from teachers.soft_targets.class_map import resolved; import sys;"
        "print(resolved(load_recipe(find('recipe.yaml'), sys.argv[1:]).teachers['mine'].class_map))"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", code, *(f"teachers.mine.{key}={value}" for key, value in said.items())],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert told.stdout == "{'file': {'nought': '0'}, 'others': None}\n", told.stderr


def test_every_field_that_is_a_path_is_known_to_be_one() -> None:
    """By what the schema tells of it: data, or files that code reads, or parts of a source."""
    schema = json.loads(SCHEMA.read_text())
    objects = [schema, *schema["$defs"].values()]
    told = [
        (name, field.get("description", "")) for each in objects for name, field in each.get("properties", {}).items()
    ]
    named = {name for name, text in told if re.match(r"(A|The|Files?|`\*)\b[^.:;,]*\b(file|folder)s?\b", text)}
    assert {"path", "files"} <= named <= {*NAMES_DATA, "files", "train", "validation", "test", "annotations"}


@pytest.mark.parametrize(
    ("overrides", "out", "told"),
    [
        ((), None, "a job needs --out"),
        ((), "out/x", "--out out/x is relative, and a cluster has no folder of yours"),
        (("transfer_set.source={kind: parquet, path: data}",), "/o", "-o transfer_set.source.path=/shared/data"),
        (("teachers.old={kind: checkpoint, path: models/old}",), "/o", "teachers.old.path: models/old is relative"),
        (("teachers.mine.files=[words.txt]",), "/o", "teachers.mine: words.txt is relative"),
        (("students.small.arguments={from: job_mine.py}",), "/o", "students.small: job_mine.py is relative"),
        (
            ("students.small.preprocess.tokenizer={path: tok}",),
            "/o",
            "students.small.preprocess.tokenizer.path: tok is relative",
        ),
        (
            ("teachers.path={kind: predictions, path: said.csv, output: logits, by_row_number: true}",),
            "/o",
            "teachers.path.path: said.csv is relative",
        ),
        (("teachers.hub={kind: huggingface, path: hub}",), "/o", "teachers.hub.path: hub is relative"),
        (
            ("teachers.graph={kind: onnx, path: net.onnx, output: logits, preprocess: {normalise: null}}",),
            "/o",
            "teachers.graph.path: net.onnx is relative",
        ),
        (
            (
                "students.small.preprocess={encoder: {path: /shared/a}}",
                "search={student: small, trials: 2, space: {preprocess.encoder.path: {choice: [/shared/a, b]}}}",
            ),
            "/o",
            "preprocess.encoder.path: b is relative",
        ),
        (
            ("teachers.mine.class_map={file: ../names.csv}",),
            "/o",
            "teachers.mine.class_map.file: ../names.csv lies above",
        ),
        (
            ("teachers.mine.class_map={file: none.csv}",),
            "/o",
            "teachers.mine.class_map.file: there is no file none.csv",
        ),
        (("tracking.uri=http://me:hidden@mlflow:5000",), "/o", "-o tracking.uri: looks like a URI with a password"),
        (("students.small.objectve=1",), "/o", "did you mean objective?"),
    ],
)
def test_what_cannot_work_on_a_cluster_is_refused_before_anything_is_sent(
    user: Path, overrides: tuple[str, ...], out: str | None, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        submission(user, *overrides, out=out)
    assert told in str(caught.value) and "hidden" not in str(caught.value)


def test_a_module_that_is_not_here_must_be_there(user: Path) -> None:
    made = submission(user, "teachers.mine.function=only_there:teach")
    assert made.notes == ["only_there:teach: there is no such module here; it must be installed on the cluster"]


def dry_run(user: Path, *arguments: str, **environment: str) -> Result:
    command = ["submit", str(user / "recipe.yaml"), "--out", "/shared/out", "--dry-run", *arguments]
    return CliRunner().invoke(collegium, command, env=environment)


def test_a_dry_run_shows_all_but_the_values_of_what_is_passed_on(user: Path) -> None:
    done = dry_run(user, "--json", "--env", "HF_TOKEN", HF_TOKEN="hidden", AWS_SECRET_ACCESS_KEY="hidden")
    shown = json.loads(done.stdout)
    assert shown["runtime_env"]["env_vars"] == {
        "HF_TOKEN": "***",
        "COLLEGIUM_VERSION": "0.1.0",
        "RAY_JOB_STOP_WAIT_TIME_S": "30",
    }
    assert shown["entrypoint"] == "exec python -P -m orchestrator run recipe.yaml --out /shared/out"
    assert shown["ships"]["yours"][-1] == "recipe.yaml"
    assert "hidden" not in done.output
    assert "not passed on: AWS_SECRET_ACCESS_KEY" in " ".join(shown["notes"])
    assert "hidden" not in dry_run(user, "--env", "HF_TOKEN", HF_TOKEN="hidden").output


def test_a_comparison_is_submitted_with_what_it_is_asked(user: Path) -> None:
    done = dry_run(user, "--json", "--verb", "compare", "--methods", "soft,teacher_label", "--seeds", "5", "--tune")
    assert json.loads(done.stdout)["entrypoint"] == (
        "exec python -P -m orchestrator compare recipe.yaml --out /shared/out --methods soft,teacher_label --seeds 5 --tune"
    )
    refused = dry_run(user, "--teachers")
    assert refused.exit_code == 2 and "--teachers is of `compare`; say --verb compare" in refused.output


def test_with_autoscaling_the_job_knows_that_nodes_may_come(user: Path) -> None:
    """It is another job than the one without: that may have been refused."""
    plain, growing = (json.loads(dry_run(user, "--json", *more).stdout) for more in ((), ("--autoscaling",)))
    told = growing["runtime_env"]["env_vars"].items() - plain["runtime_env"]["env_vars"].items()
    assert told == {(AUTOSCALING, "1")} and plain["id"] != growing["id"]


@pytest.mark.parametrize(
    ("uri", "goes"),
    [
        ("http://mlflow.lab:5000", True),
        ("http://me:hidden@mlflow.lab:5000", False),
        ("http://localhost:5000", False),
        ("sqlite:////home/me/mlflow.db", False),
    ],
)
def test_the_tracking_server_goes_along_where_it_has_no_password_and_is_not_this_machine(
    user: Path, uri: str, goes: bool
) -> None:
    shown = json.loads(dry_run(user, "--json", MLFLOW_TRACKING_URI=uri).stdout)
    assert (shown["runtime_env"]["env_vars"].get("MLFLOW_TRACKING_URI") == uri) == goes
    assert "hidden" not in json.dumps(shown)


@pytest.mark.parametrize("name", ["NOT_SET_ANYWHERE", "RAY_AUTH_TOKEN"])
def test_a_variable_that_is_not_there_or_is_the_clusters_token_is_not_passed_on(user: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"--env {name}"):
        submission(user, variables=[name])


def started(made: Submission, path: Path, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
    """The job's command as a head starts it that has `path` as its PATH."""
    place = tmp_path / "unpacked"
    ZipFile(io.BytesIO(made.zipped)).extractall(place)
    environment = made.environment | {"PATH": str(path), "PYTHONPATH": str(place)}
    return subprocess.run(
        ["/bin/sh", "-c", made.entrypoint], cwd=tmp_path, env=environment, capture_output=True, text=True
    )


def test_a_job_that_is_started_by_another_python_than_the_clusters_says_which_and_what_to_do(
    user: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "other", symlinks=True)
    done = started(submission(user), tmp_path / "other" / "bin", tmp_path)
    assert done.returncode == 4 and done.stderr.count("\n") == 1, done.stderr
    assert f"the cluster's head: {tmp_path / 'other' / 'bin' / 'python'}, which has no Ray" in done.stderr
    assert "PATH=/its/environment/bin:$PATH ray start" in done.stderr


def test_a_head_without_any_python_is_unfit_and_the_job_says_so(user: Path, tmp_path: Path) -> None:
    done = started(submission(user), tmp_path / "nothing", tmp_path)
    failed = Job("mine-1", "FAILED", done.returncode, None, None, None, None, "")
    assert exit_code(failed) == 4 and "no `python` can be started" in ending(failed)


def test_a_job_that_meets_another_collegium_ends_with_both_versions() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "orchestrator", "plan"],
        env=os.environ | {"COLLEGIUM_VERSION": "9.9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "has Collegium 0.1.0, the job was submitted by 9.9" in done.stderr
