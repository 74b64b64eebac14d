"""What of the user's code is in a key, what of it is not and said so, and that no other version of it runs."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import pytest

from orchestrator.recipe.model import Recipe
from orchestrator.stages import keys
from orchestrator.stages.code import code_of_choices, code_problems, users_code
from orchestrator.stages.reasons import difference
from orchestrator.stages.stages import Stage, Stages
from orchestrator.stages.trainings import training_stages
from teachers.config.strict import IMPORT_PATTERN
from teachers.config.teacher import CallableTeacher, CheckpointTeacher, ModuleTeacher, TeacherTrain
from teachers.errors import CollegiumError, RecipeError
from teachers.storage.seal import write_seal
from teachers.users_code.calls import calling
from teachers.users_code.code import UsersCode, let_go
from teachers.users_code.digest import NAMES_CODE, distributions_of, inputs_of, one_look
from teachers.users_code.imports import load, use_user_path
from teachers.users_code.meaning import source_digest


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory of a user, whose modules are found and forgotten."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    use_user_path(tmp_path)
    yield tmp_path
    let_go()
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def of(name: str, **beside: Any) -> dict[str, str]:
    return inputs_of({"function": name, **beside})


def in_python(code: str, cwd: Path, **environment: str) -> str:
    """The output of a fresh process."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- what decides -------------------------------------------------------------------------------------------------------


def test_comments_docstrings_and_blank_lines_decide_nothing(here: Path) -> None:
    plain = "x = 1\n\ndef fn(a):\n    if a:\n        return x\n    return 2\n"
    told = '"""What."""\n# why\nx = 1  # one\n\n\ndef fn(a):\n    """How."""\n    if a:\n        """Then."""\n        return x\n    return 2\n'
    path = here / "mine.py"
    assert source_digest(plain.encode(), path) == source_digest(told.encode(), path)
    assert source_digest(plain.encode(), path) != source_digest(plain.replace("2", "3").encode(), path)


def test_docstrings_of_a_module_that_asks_for_them_decide(here: Path) -> None:
    text = '"""{}"""\ndef fn(): return __doc__\n'
    one, other = (source_digest(text.format(what).encode(), here / "mine.py") for what in ("a", "b"))
    assert one != other


def test_an_edited_module_is_named_where_a_stage_is_built_again(here: Path) -> None:
    def built() -> str:
        stage = Stage("label", "api", {}, {"rows": "1", **of("api:ask")})
        return Stages(here / "out").build(stage, lambda folder: (write_seal(folder, []), {})).reason

    write(here, "api.py", "import words\ndef ask(batch): return words.few\n")
    write(here, "words.py", "few = 1\n")
    assert built() == "not built before"
    write(here, "words.py", "few = 1  # how few\n")
    assert built() == "unchanged"
    write(here, "words.py", "few = 2\n")
    assert built() == "code of words.py changed"


def test_code_that_changed_is_told_before_the_weights_that_came_of_it(here: Path) -> None:
    config = ModuleTeacher(kind="module", model="net:make", train=TeacherTrain(steps=1))

    def decided_by(weights: str) -> dict[str, Any]:
        return keys.label_stage(config, "wide", ("train-0", "1"), weights, ["a", "b"], "s").document()

    write(here, "net.py", "def make(num_classes): return 1\n")
    before = decided_by("w1")
    write(here, "net.py", "def make(num_classes): return 2\n")
    assert difference(before, decided_by("w2")) == "code of net.py changed, teacher weights changed"


def test_a_listed_file_counts_by_content(here: Path) -> None:
    write(here, "mine.py", "def fn(): ...\n")
    write(here, "w.txt", "1")
    before = of("mine:fn", files=["w.txt"])
    assert set(before) == {"code of mine.py", "file w.txt"}
    (here / "w.txt").touch()
    assert of("mine:fn", files=["w.txt"]) == before
    write(here, "w.txt", "2")
    assert of("mine:fn", files=["w.txt"]) != before
    with pytest.raises(RecipeError, match=r"files: there is no file or folder w2\.txt"):
        of("mine:fn", files=["w2.txt"])


@pytest.mark.parametrize("nested", [False, True])
def test_an_argument_that_is_a_path_counts_by_content(here: Path, nested: bool) -> None:
    write(here, "mine.py", "def fn(): ...\n")
    arguments = {"all": [{"weights": "w.txt"}]} if nested else {"weights": "w.txt", "width": 3, "mode": "fast"}
    before = of("mine:fn", arguments=arguments)
    write(here, "w.txt", "1")
    there = of("mine:fn", arguments=arguments)
    write(here, "w.txt", "2")
    assert len({json.dumps(each) for each in (before, there, of("mine:fn", arguments=arguments))}) == 3


def test_a_folder_counts_by_names_and_contents_and_beyond_a_bound_by_sizes_and_times(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "mine.py", "def fn(): ...\n")
    write(here, "data/a/x.txt", "1")
    file = write(here, "data/y.txt", "2")

    def now() -> str:
        return of("mine:fn", files=["data"])["file data"]

    before = now()
    os.utime(file, ns=(1, 1))
    assert now() == before
    write(here, "data/y.txt", "3")
    assert now() != before
    monkeypatch.setattr("teachers.users_code.digest.LARGEST_FILES", 1)
    large = now()
    os.utime(file, ns=(2, 2))
    assert now() != large


def test_every_import_string_of_a_recipe_is_among_the_fields_that_count_and_has_files_beside_it() -> None:
    schema = Recipe.model_json_schema()

    def names_code(field: Any) -> bool:
        return f'"pattern": {json.dumps(IMPORT_PATTERN)}' in json.dumps(field)

    found = set()
    for name, model in schema["$defs"].items():
        own = {key for key, field in model.get("properties", {}).items() if names_code(field)}
        found |= own
        assert not own or "files" in model["properties"], name
    assert found == set(NAMES_CODE)


def test_a_module_on_pythonpath_counts_by_content(tmp_path: Path) -> None:
    write(tmp_path, "here/mine.py", "import lib.deep\ndef fn(): ...\n")
    write(tmp_path, "there/lib/__init__.py", "")
    code = """
        from pathlib import Path; from teachers.users_code.digest import inputs_of; from teachers.users_code.imports import use_user_path
        use_user_path(Path.cwd()); print(sorted(inputs_of({"function": "mine:fn"}).items()))
    """
    seen = set()
    for text in ("x = 1\n", "x = 2\n"):
        write(tmp_path, "there/lib/deep.py", text)
        seen.add(in_python(code, tmp_path / "here", PYTHONPATH=str(tmp_path / "there")))
    assert len(seen) == 2
    assert all("code of lib/deep.py" in each for each in seen)


def test_an_editable_install_counts_by_content_and_an_installed_distribution_by_version(tmp_path: Path) -> None:
    write(tmp_path, "here/mine.py", "import near\ndef fn(): ...\n")
    write(tmp_path, "here/near.py", "import edited, solid\n")
    site = tmp_path / "site-packages"
    code = f"""
        import site; site.addsitedir({str(site)!r})
        from pathlib import Path; from teachers.users_code.digest import inputs_of; from teachers.users_code.imports import use_user_path
        use_user_path(Path.cwd()); print(*sorted(inputs_of({{"function": "mine:fn"}}).items()))
    """
    write(tmp_path, "source/edited.py", "x = 1\n")
    write(site, "edited.pth", f"{tmp_path / 'source'}\n")
    write(site, "edited-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: edited\nVersion: 1\n")
    write(site, "edited-1.dist-info/RECORD", "edited.pth,,\nedited.py,,\n")
    write(site, "solid/__init__.py", "x = 1\n")
    write(site, "solid_things-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: solid-things\nVersion: 1\n")
    write(site, "solid_things-1.dist-info/RECORD", "solid/__init__.py,,\n")
    first = in_python(code, tmp_path / "here")
    assert "('version of solid-things', '1')" in first
    assert "code of edited.py" in first and "solid/__init__" not in first
    write(tmp_path, "source/edited.py", "x = 2\n")
    second = in_python(code, tmp_path / "here")
    assert second != first
    write(site, "solid_things-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: solid-things\nVersion: 2\n")
    assert in_python(code, tmp_path / "here") == second.replace("things', '1'", "things', '2'")


def test_the_distributions_of_a_package_are_those_that_python_knows() -> None:
    for top, names in packages_distributions().items():
        assert [name for name, _ in distributions_of(top)] == sorted(set(names))
    assert distributions_of("no_such_package") == ()


def test_an_imported_library_counts_by_its_version_and_is_not_imported_for_that(here: Path) -> None:
    write(here, "mine.py", "import yaml.nodes\nfrom sklearn.ensemble import RandomForestClassifier\ndef fn(): ...\n")
    found = of("mine:fn")
    assert found["version of PyYAML"] == version("PyYAML")
    assert found["version of scikit-learn"] == version("scikit-learn")
    asked = "from teachers.users_code.digest import inputs_of; inputs_of({'function': 'torch.nn.functional:relu'}); import sys; print('torch' in sys.modules)"
    assert in_python(asked, here) == "False"


# --- imports that are calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\nimportlib.import_module('other')\n",
        "from importlib import import_module as get\nget(name='other')\n",
        "__import__('other')\n",
    ],
)
def test_an_import_by_a_literal_is_followed(here: Path, text: str) -> None:
    write(here, "mine.py", text)
    write(here, "other.py", "x = 1\n")
    assert "code of other.py" in of("mine:fn")


def test_a_relative_import_by_a_literal_is_followed(here: Path) -> None:
    write(here, "pack/__init__.py", "from importlib import import_module\nimport_module('.deep', __package__)\n")
    write(here, "pack/deep.py", "import_module = __import__('importlib').import_module\n")
    assert "code of pack/deep.py" in of("pack:fn")


@pytest.mark.parametrize(
    "line",
    [
        "importlib.import_module(name)",
        "get(f'models.{name}')",
        "__import__(name)",
        "importlib.util.spec_from_file_location('other', name)",
        "runpy.run_path(name)",
        "exec(open(name).read())",
        "eval(compile(text, name, 'eval'))",
    ],
)
def test_an_import_that_cannot_be_followed_is_refused_by_name_and_line(here: Path, line: str) -> None:
    head = "import importlib, importlib.util, runpy\nfrom importlib import import_module as get\n"
    write(here, "mine.py", f"{head}def fn(name):\n    text = open(name).read()\n    return {line}\n")
    write(here, "words.txt", "")
    recipe = recipe_of({"kind": "callable", "function": "mine:fn", "output": "logits"})
    (problem,) = code_problems(recipe)
    assert problem.startswith("teachers.t.function: mine:fn: mine.py:5: ")
    assert "cannot be followed" in problem
    assert of("mine:fn", files=["words.txt"])


@pytest.mark.parametrize("line", ["model.eval()", "eval('1 + 1')", "eval(f'F.{name}')", "frame.eval(name)"])
def test_what_only_looks_like_running_a_file_is_not_refused(here: Path, line: str) -> None:
    write(here, "mine.py", f"def fn(name, model, frame):\n    return {line}\n")
    assert of("mine:fn")


# --- keys of stages -----------------------------------------------------------------------------------------------------


def recipe_of(teacher: dict[str, Any], **more: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "format": 1,
            "name": "r",
            "transfer_set": {"source": {"kind": "sklearn", "name": "iris"}, "inputs": "features", "label": "target"},
            "teachers": {"t": teacher},
            "students": {"s": {"model": "students.models:mlp", "teachers": ["t"]}},
            **more,
        }
    )


def label_key(config: Any, statistics: str = "s") -> str:
    return keys.label_stage(config, "t", ("train-0", "rows"), "w", ["a", "b"], statistics).key


def test_a_callable_teacher_is_asked_again_for_no_statistics_and_no_preprocess(here: Path) -> None:
    write(here, "mine.py", "def ask(batch): ...\n")
    config = CallableTeacher(kind="callable", function="mine:ask", output="logits")
    other = CallableTeacher(kind="callable", function="mine:ask", output="logits", preprocess={"normalise": None})
    assert label_key(config) == label_key(config, "other statistics") == label_key(other)
    versioned = CallableTeacher(kind="callable", function="mine:ask", output="logits", version="2")
    assert label_key(config) != label_key(versioned)


def test_the_code_of_a_trusted_architecture_is_in_the_key_of_what_it_says(here: Path) -> None:
    write(here, "nets.py", "def net(): return 1\n")
    document = {"model": "nets:net", "arguments": {}, "preprocess": {"columns": [], "function": None}}
    write(here, "yesterday/config.json", json.dumps({"format": 1, "classes": ["a", "b"], **document}))
    config = CheckpointTeacher(kind="checkpoint", path="yesterday")
    before = label_key(config)
    write(here, "nets.py", "def net(): return 2\n")
    assert label_key(config) != before
    within_an_ensemble = {"model": "students.models:mlp", "arguments": {"members": [document]}}
    write(here, "yesterday/config.json", json.dumps({"format": 1, **within_an_ensemble}))
    ensemble = label_key(config)
    write(here, "nets.py", "def net(): return 3\n")
    assert label_key(config) != ensemble


@pytest.mark.parametrize("key", ["model", "augment", "preprocess", "loss", "combine"])
def test_files_beside_any_import_string_of_a_student_are_in_its_key(here: Path, key: str) -> None:
    write(here, "mine.py", "def fn(): ...\n")
    write(here, "words.txt", "1")
    beside = {"files": ["words.txt"]}
    student: dict[str, Any] = {"model": "students.models:mlp", "teachers": ["t"], "objective": [{"loss": "soft"}]}
    student |= {
        "model": {"model": "mine:fn", **beside},
        "augment": {"train": {"augment": ["flip", "mine:fn"], **beside}},
        "preprocess": {"preprocess": {"function": "mine:fn", **beside}},
        "loss": {"objective": [{"loss": "mine:fn", **beside}]},
        "combine": {"objective": [{"loss": "soft", "combine": "mine:fn", **beside}]},
    }[key]
    teacher = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
    recipe = recipe_of(teacher, students={"s": student})

    def now() -> tuple[str, str]:
        trained = training_stages(recipe, "s", "rows", {"t": "labels"})
        return trained["student", 0].key, keys.evaluate_stage(recipe, "s", "rows", "student", {"t": "labels"}).key

    before = now()
    write(here, "words.txt", "2")
    assert now()[0] != before[0]
    assert (now()[1] != before[1]) == (key in ("model", "preprocess", "combine"))


def test_code_that_only_trials_of_a_search_name_decides_what_the_study_is_of(here: Path) -> None:
    write(here, "nets.py", "def one(): ...\n")
    write(here, "losses.py", "def loss(): ...\n")
    space = {"model": {"choice": ["nets:one"]}, "objective.0.loss": {"choice": ["soft", "losses:loss"]}}
    teacher = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}
    recipe = recipe_of(teacher, search={"student": "s", "metric": "validation.accuracy", "trials": 1, "space": space})
    assert code_of_choices(recipe).keys() == {"code of nets.py", "code of losses.py"}


def test_a_source_of_ones_own_counts_by_code_arguments_files_and_version(here: Path) -> None:
    source = {"kind": "import", "function": "rows:load", "arguments": {"n": 3}}
    teacher = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier"}

    def stage(labelled: Any = 3, **more: Any) -> Stage:
        transfer_set = {"source": {**source, **more}, "inputs": "x", "label": "y", "labelled": labelled}
        return keys.prepare_stage(recipe_of(teacher, transfer_set=transfer_set), "not used")

    write(here, "rows.py", "def load(n): ...\n")
    before = stage()
    assert stage(labelled={"train": 3}).key == before.key
    assert len({before.key, stage(version="2").key, stage(arguments={"n": 4}).key, stage(files=["rows.py"]).key}) == 4
    write(here, "rows.py", "def load(n): return n\n")
    assert stage().inputs.keys() == before.inputs.keys() == {"source", "code of rows.py"}
    assert stage().key != before.key


# --- what is opened while it is called ----------------------------------------------------------------------------------

READS = """
    import logging, sys
    from pathlib import Path
    from teachers.users_code.calls import calling
    from teachers.users_code.code import UsersCode
    from teachers.users_code.imports import load, use_user_path
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    use_user_path(Path.cwd())
    document = {"function": "mine:fn", "files": FILES, "version": None, "arguments": {}}
    use_user_path(UsersCode.of([document], Path.cwd(), out=Path("out").absolute()))
    for _ in range(2):
        with calling("function", "mine:fn"):
            load("mine:fn")()
"""


def test_a_file_that_is_read_and_not_listed_is_warned_of_once_by_name(tmp_path: Path) -> None:
    for name in ("words.txt", "listed/a.txt", "out/seal.json", "inner.py", "new.txt", "threads.txt"):
        write(tmp_path, name, "")
    text = """
        import threading, tempfile, json
        def read(name): open(name).close()
        def fn():
            import inner
            for name in ("words.txt", "listed/a.txt", "out/seal.json", json.__file__, "/etc/hostname"):
                read(name)
            open("new.txt", "a").close()
            tempfile.TemporaryFile().close()
            thread = threading.Thread(target=read, args=("threads.txt",)); thread.start(); thread.join()
    """
    write(tmp_path, "mine.py", text)
    (tmp_path / "tmp").mkdir()
    told = in_python(READS.replace("FILES", '["listed"]'), tmp_path, TMPDIR=str(tmp_path / "tmp")).splitlines()
    assert [line.partition(", ")[0] for line in told] == ["mine:fn reads words.txt", "mine:fn reads threads.txt"]
    assert "`files: [words.txt]`" in told[0]


def test_a_file_that_is_read_on_import_is_warned_of_too(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "words = open('words.txt').read()\ndef fn(): ...\n")
    write(tmp_path, "words.txt", "")
    (tmp_path / "tmp").mkdir()
    told = in_python(READS.replace("FILES", "[]"), tmp_path, TMPDIR=str(tmp_path / "tmp"))
    assert told.startswith("mine:fn reads words.txt, which is in no key")


@pytest.fixture
def server() -> Iterator[int]:
    """The port of something that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()
        listening.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                try:
                    listening.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        ended.set()
        thread.join()


CONNECTS = {
    "plainly": "socket.create_connection(('127.0.0.1', port)).close()",
    "whatever it catches": "try: socket.create_connection(('127.0.0.1', port)).close()\n    except Exception: pass",
    "in a thread": "with ThreadPoolExecutor(1) as pool: pool.submit(ask, port).result()",
}


@pytest.mark.parametrize("how", CONNECTS)
def test_a_function_whose_answers_come_from_elsewhere_needs_a_version(here: Path, server: int, how: str) -> None:
    head = "import socket\nfrom concurrent.futures import ThreadPoolExecutor\n"
    head += "def ask(port): socket.create_connection(('127.0.0.1', port)).close()\n"
    write(here, "mine.py", f"{head}def fn(port):\n    {CONNECTS[how]}\n    return 7\n")
    document: dict[str, Any] = {"function": "mine:fn", "version": None}
    use_user_path(UsersCode.of([document], here))
    with (
        pytest.raises(
            RecipeError, match=rf"^version: mine:fn opens a connection to 127.0.0.1:{server}.*give a `version"
        ),
        calling("function", "mine:fn"),
    ):
        load("mine:fn")(server)
    use_user_path(UsersCode.of([{**document, "version": "1"}], here))
    with calling("function", "mine:fn"):
        assert load("mine:fn")(server) == 7


def test_a_network_that_opens_a_connection_is_warned_of(
    here: Path, server: int, caplog: pytest.LogCaptureFixture
) -> None:
    write(here, "mine.py", f"import socket\ndef fn(port):\n    {CONNECTS['plainly']}\n")
    use_user_path(UsersCode.of([{"model": "mine:fn"}], here))
    for _ in range(2):
        with calling("model", "mine:fn"):
            load("mine:fn")(server)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"mine:fn opens a connection to 127.0.0.1:{server}" in warning


# --- no other version runs ----------------------------------------------------------------------------------------------


def code_of(name: str, folder: Path) -> UsersCode:
    return UsersCode.of([{"function": name}], folder)


def test_a_process_that_has_imported_an_older_version_runs_the_newer_one(here: Path) -> None:
    """Both of one size and second: Python's own cache of compiled modules would give the older one."""
    for number in (1, 2, 3):
        write(here, "inner.py", f"x = {number}\n")
        write(here, "mine.py", "from inner import x\ndef fn(): return x\n")
        use_user_path(code_of("mine:fn", here))
        assert load("mine:fn")() == number


def test_a_module_that_was_imported_before_anything_was_known_of_it_is_imported_anew(here: Path) -> None:
    write(here, "mine.py", "def fn(): return 1\n")
    assert load("mine:fn")() == 1
    write(here, "mine.py", "def fn(): return 2\n")
    use_user_path(code_of("mine:fn", here))
    assert load("mine:fn")() == 2


def test_an_unchanged_module_is_not_imported_again(here: Path) -> None:
    write(here, "mine.py", "state = []\ndef fn(): return state\n")
    use_user_path(code_of("mine:fn", here))
    load("mine:fn")().append(1)
    write(here, "mine.py", "# why\nstate = []\ndef fn(): return state\n")
    use_user_path(code_of("mine:fn", here))
    assert load("mine:fn")() == [1]


def test_a_module_that_was_edited_since_the_run_began_is_refused(here: Path) -> None:
    write(here, "mine.py", "def fn():\n    import late\n    return late.x\n")
    write(here, "late.py", "x = 1\n")
    code = code_of("mine:fn", here)
    write(here, "late.py", "x = 2\n")
    use_user_path(code)
    with pytest.raises(CollegiumError, match=r"late\.py has changed since this run began"):
        load("mine:fn")()


def test_all_keys_of_a_run_are_about_the_code_that_lay_there_when_it_began(here: Path) -> None:
    write(here, "mine.py", "x = 1\n")
    with one_look():
        before = of("mine:fn")
        write(here, "mine.py", "x = 2\n")
        assert of("mine:fn") == before
    assert of("mine:fn") != before


def test_two_runs_in_one_process_with_an_edit_between_are_about_different_code(here: Path) -> None:
    recipe = recipe_of({"kind": "callable", "function": "mine:ask", "output": "logits"})
    found = []
    for number in (1, 2):
        write(here, "mine.py", f"def ask(): return {number}\n")
        with users_code(recipe, here):
            found.append((load("mine:ask")(), label_key(recipe.teachers["t"])))
    assert [number for number, _ in found] == [1, 2]
    assert found[0][1] != found[1][1]


def test_modules_of_an_earlier_folder_are_not_found_from_a_later_one(tmp_path: Path) -> None:
    write(tmp_path, "a/mine.py", "def fn(): return 'a'\n")
    write(tmp_path, "b/mine.py", "def fn(): return 'b'\n")
    code = """
        from pathlib import Path
        from teachers.users_code.code import UsersCode; from teachers.users_code.imports import load, use_user_path
        for name in "ab":
            use_user_path(Path(name)); use_user_path(UsersCode.of([{"function": "mine:fn"}], Path(name))); print(load("mine:fn")())
    """
    assert in_python(code, tmp_path).split() == ["a", "b"]


WORKERS = """
    import os, subprocess, sys, ray
    from pathlib import Path
    from orchestrator.cluster.cluster import CODE, cluster
    from orchestrator.cluster.environment import set_environment
    from teachers.users_code.code import UsersCode; from teachers.users_code.imports import load, use_user_path
    def ask(_): return os.getpid(), load("mine:fn")(), os.getcwd(), os.environ.get(CODE)
    def code_of(number):
        Path("mine.py").write_text(f"def fn(): return {number}")
        use_user_path(Path.cwd())
        return UsersCode.of([{"function": "mine:fn"}], Path.cwd())
"""


@pytest.mark.ray
def test_a_worker_runs_the_runs_own_version_in_the_runs_folder_whatever_it_holds(tmp_path: Path) -> None:
    """Ray was started by somebody else, in another folder, and keeps its workers between two runs of one process."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    joins = textwrap.dedent(WORKERS) + textwrap.dedent("""
        code = code_of(3)
        with cluster(sys.argv[1], code=code.digest) as joined:
            (found,) = joined.map(ask, [0], user_path=code)
        print(found[1], found[2] == os.getcwd(), found[3] == code.digest)
    """)
    starts = textwrap.dedent(WORKERS) + textwrap.dedent(f"""
        set_environment()
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        os.chdir("../here")
        seen = []
        for number in (1, 2):
            code = code_of(number)
            with cluster(code=code.digest) as joined:
                seen += joined.map(ask, [0], user_path=code)
                joined._started_here = False
        print(seen[0][0] == seen[1][0], [each[1] for each in seen], {{each[2] for each in seen}} == {{os.getcwd()}})
        address = ray.get_runtime_context().gcs_address
        subprocess.run([sys.executable, "-P", "-c", {joins!r}, address], check=True)
    """)
    told = in_python(starts, tmp_path / "there", RAY_raylet_start_wait_time_s="300").splitlines()
    assert told[-2:] == ["True [1, 2] True", "3 True True"]
