"""A recipe as Python's users have it: a mapping, with paths and functions in it; and functions that have no module."""

import json
import linecache
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from orchestrator import Recipe, load_recipe, plan, run
from orchestrator.jobs.parcel import pack
from orchestrator.recipe.shipped import find
from orchestrator.stages.code import users_code
from teachers.errors import RecipeError
from teachers.users_code.code import UsersCode, let_go
from teachers.users_code.digest import inputs_of
from teachers.users_code.imports import load, use_user_path

MAIN = sys.modules["__main__"]
Cell = Callable[[str], None]


def hears_nothing(width: int = 4) -> None:
    """Stands for a network of the user's."""


def iris(**teacher: Any) -> dict[str, Any]:
    """A recipe as it may stand in a notebook."""
    forest = {"kind": "sklearn", "model": "sklearn.ensemble:ExtraTreesClassifier", "arguments": {"n_estimators": 5}}
    return {
        "format": 1,
        "name": "iris",
        "transfer_set": {"source": {"kind": "sklearn", "name": "iris"}, "inputs": "features", "label": "target"},
        "teachers": {"one": teacher or forest},
        "students": {
            "small": {"model": "students.models:mlp", "teachers": ["one"], "train": {"steps": 20, "seeds": [0]}}
        },
    }


# --- a mapping ------------------------------------------------------------------------------------------------------------


def test_a_mapping_is_the_recipe_that_its_file_would_be() -> None:
    file = find("digits")
    assert Recipe.from_dict(yaml.safe_load(file.read_text())) == load_recipe(file)


def test_what_python_has_instead_of_text_numbers_and_lists_is_taken() -> None:
    given = iris()
    given["transfer_set"] |= {
        "source": {"kind": "csv", "path": Path("a") / "b.csv"},
        "inputs": ("x", "y"),
        "limit": np.int64(9),
    }
    given["students"]["small"] |= {"model": hears_nothing, "arguments": {"width": np.float32(2)}}
    given["students"]["small"]["train"] |= {"seeds": np.arange(2)}
    recipe = Recipe.from_dict(given)
    assert recipe.transfer_set.source.path == "a/b.csv" and recipe.transfer_set.inputs == ["x", "y"]  # type: ignore[union-attr]
    assert recipe.students["small"].model == f"{__name__}:hears_nothing"
    assert recipe.students["small"].train.seeds == [0, 1]


def test_mistakes_in_a_mapping_are_told_all_at_once_by_key_with_the_nearest() -> None:
    given = iris()
    given["students"]["small"]["train"]["stps"] = given["transfer_set"].pop("inputs")
    with pytest.raises(RecipeError) as told:
        Recipe.from_dict(given)
    assert sorted(str(told.value).splitlines()) == [
        "students.small.train.stps: unknown key, did you mean steps?",
        "transfer_set.inputs: is missing",
    ]
    with pytest.raises(RecipeError, match=r"students\.small\.teachers\.0: no teacher or student is called 'on'"):
        Recipe.from_dict({**iris(), "students": {"small": {"model": "students.models:mlp", "teachers": ["on"]}}})


@pytest.mark.parametrize("function", [lambda: None, Recipe.from_dict])
def test_a_function_that_no_other_process_finds_by_name_is_refused_with_its_key(function: Any) -> None:
    given = iris()
    given["students"]["small"]["model"] = function
    with pytest.raises(RecipeError, match=r"students\.small\.model: .* has no name of its own"):
        Recipe.from_dict(given)


def test_plan_and_run_take_a_mapping_and_refuse_one_as_they_refuse_a_file(tmp_path: Path) -> None:
    assert plan(iris(), tmp_path).record()["stages"][0]["stage"] == "prepare"
    for refuses in (plan, run):
        with pytest.raises(RecipeError, match="nme: unknown key, did you mean name"):
            refuses({**iris(), "nme": 1}, tmp_path)
        with pytest.raises(RecipeError, match="there is no such file"):
            refuses(tmp_path / "no.yaml", tmp_path)
    assert not [*tmp_path.iterdir()]


# --- functions that have no module ----------------------------------------------------------------------------------------


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """Runs text as a notebook does: in `__main__`, with its lines where Python looks for the source of what has no file."""
    monkeypatch.chdir(tmp_path)
    use_user_path(tmp_path)
    before, names, modules = dict(vars(MAIN)), [], set(sys.modules)

    def runs(text: str) -> None:
        source, name = textwrap.dedent(text), f"/ipykernel_{os.getpid()}/{len(names)}.py"
        names.append(name)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        exec(compile(source, name, "exec"), vars(MAIN))

    yield runs
    let_go()
    sys.path.remove(str(tmp_path))
    for name in names:
        del linecache.cache[name]
    for name in set(vars(MAIN)) - set(before):
        delattr(MAIN, name)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def of(name: str, **beside: Any) -> dict[str, str]:
    return inputs_of({"function": f"__main__:{name}", **beside})


def test_comments_docstrings_formatting_and_the_cell_itself_decide_nothing(cell: Cell) -> None:
    cell("def ask(batch, k=2):\n    return [k, batch]\n")
    before = of("ask")
    cell(
        "# why\n\n\n@(lambda f: f)\ndef other(): ...\n\ndef ask(batch, k = 2):\n    '''What.'''\n    return [k,  # one\n            batch]\n"
    )
    assert of("ask") == before and "code of __main__:ask" in before
    cell("def ask(batch, k=2):\n    return [batch, k]\n")
    assert of("ask") != before


USES = {
    "a function": ("def helps(x): return x + 1", "def helps(x): return x + 2", "helps(batch)"),
    "a class": (
        "class Helps:\n    def __call__(self, x): return x",
        "class Helps:\n    def __call__(self, x): return -x",
        "Helps()(batch)",
    ),
    "a number": ("few = 1", "few = 2", "few"),
    "an array": ("few = np.ones(3)", "few = np.zeros(3)", "few @ batch"),
    "a tensor": ("few = torch.ones(3)", "few = torch.zeros(3)", "few @ batch"),
    "an object": ("net = Net(); net.w = 1", "net = Net(); net.w = 2", "net(batch)"),
    "a method of an object": (
        "draw = np.random.default_rng(1).normal",
        "draw = np.random.default_rng(2).normal",
        "draw()",
    ),
    "what a function made": ("def makes(k): return lambda x: x * k\nf = makes(1)", "f = makes(2)", "f(batch)"),
    "a nested use": ("few = 1", "few = 2", "(lambda: few)()"),
    "a module": ("import brings", "", "brings.few"),
    "an import inside": ("", "", "__import__('brings').few"),
}


@pytest.mark.parametrize("before,after,body", USES.values(), ids=USES.keys())
def test_all_that_a_function_uses_decides_and_is_named(cell: Cell, before: str, after: str, body: str) -> None:
    Path("brings.py").write_text("few = 1\n")
    cell("import numpy as np, torch\nclass Net:\n    def __call__(self, x): return self.w * x\n")
    cell(before)
    cell(f"def ask(batch): return {body}")
    first = of("ask")
    cell("unused = 1")
    assert of("ask") == first
    cell(after)
    if "brings" in body:
        Path("brings.py").write_text("few = 2\n")
    changed = {name for name in first if of("ask")[name] != first[name]}
    assert len(changed) == 1 and "code of __main__:ask" not in changed


@pytest.mark.parametrize("how", ["default", "decorator", "base"])
def test_what_was_used_where_a_function_or_class_was_defined_decides(cell: Cell, how: str) -> None:
    text = {
        "default": "few = {}\ndef ask(batch, k=few): return k\nfew = 0",
        "decorator": "import functools\ndef wraps(f):\n    @functools.wraps(f)\n    def g(batch): return f(batch) * {}\n    return g\n@wraps\ndef ask(batch): return batch",
        "base": "class Base:\n    few = {}\nclass Net(Base): pass\ndef ask(batch): return Net().few",
    }[how]
    cell(text.format(1))
    first = of("ask")
    cell(text.format(2))
    assert of("ask") != first
    cell(text.format(1))
    assert of("ask") == first


def test_an_import_in_a_cell_that_cannot_be_followed_is_refused_unless_files_are_listed(cell: Cell) -> None:
    Path("w.txt").write_text("1")
    cell("import importlib\ndef ask(batch): return importlib.import_module(batch['name'])\n")
    with pytest.raises(RecipeError, match=r"function: __main__:ask: .*import_module.* cannot be followed"):
        of("ask")
    assert "file w.txt" in of("ask", files=["w.txt"])


def test_what_no_process_can_take_is_refused_by_name(cell: Cell) -> None:
    cell("import threading\nlock = threading.Lock()\ndef ask(batch): return lock\n")
    with pytest.raises(RecipeError, match="__main__:ask uses lock, a lock, which cannot be taken to another process"):
        of("ask")
    with pytest.raises(
        RecipeError, match=r"__main__:asks: no cell of this notebook.*name a module of yours: `mine:asks`"
    ):
        load("__main__:asks")


def test_a_function_without_source_counts_by_what_it_was_compiled_to(cell: Cell) -> None:
    digests = []
    for text in ("def ask(b): return b + 1", "\n\ndef ask(b): return b + 1", "def ask(b): return b + 2"):
        exec(compile(text, "<stdin>", "exec"), vars(MAIN))
        digests.append(of("ask")["code of __main__:ask"])
    assert digests[0] == digests[1] != digests[2]


SAYS = """
import numpy as np
from sklearn.linear_model import LogisticRegression
from torch import nn
x = np.random.default_rng(0).normal(size=(40, 3))
regression = LogisticRegression().fit(x, x[:, 0] > 0)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x): return self.layer(x)
import torch; torch.manual_seed(0)
net = Net()
def ask(batch): return regression.predict_proba(batch) + net(torch.ones(1, 3)).detach().numpy()
"""


def test_the_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    tail = "\nfrom teachers.users_code.digest import inputs_of\nimport json; print(json.dumps(inputs_of({'function': '__main__:ask'})))\n"
    script.write_text(SAYS + tail)
    seen = {
        subprocess.run(
            [sys.executable, script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(seen) == 1 and {"code of __main__:net", "version of scikit-learn"} <= set(json.loads(seen.pop()))


def test_another_process_runs_what_it_got_by_value_with_the_users_modules(cell: Cell, tmp_path: Path) -> None:
    Path("brings.py").write_text("few = 40\n")
    cell("import brings\nmore = 2\ndef helps(x): return x + more\ndef ask(batch): return helps(brings.few)\n")
    code = UsersCode.of([{"function": "__main__:ask"}], tmp_path)
    (tmp_path / "code.pickle").write_bytes(pickle.dumps(code))
    worker = """
        import pickle
        from pathlib import Path
        from teachers.users_code.imports import load, use_user_path
        use_user_path(pickle.loads(Path("code.pickle").read_bytes()))
        print(load("__main__:ask")({}))
    """
    done = subprocess.run([sys.executable, "-P", "-c", textwrap.dedent(worker)], capture_output=True, text=True)
    assert done.stdout.strip() == "42", done.stderr


def test_a_cell_that_is_run_again_meanwhile_changes_nothing_of_a_run_that_goes_on(cell: Cell, tmp_path: Path) -> None:
    cell("def ask(batch): return 1\n")
    recipe = Recipe.from_dict(iris(kind="callable", function="__main__:ask", output="logits"))
    with users_code(recipe, tmp_path):
        before = of("ask")
        cell("def ask(batch): return 2\n")
        assert load("__main__:ask")({}) == 1 and of("ask") == before
    assert load("__main__:ask")({}) == 2 and of("ask") != before


def test_a_job_does_not_take_a_notebook_along(cell: Cell, tmp_path: Path) -> None:
    cell("def ask(batch): return 1\n")
    (tmp_path / "r.yaml").touch()
    recipe = Recipe.from_dict(iris(kind="callable", function=MAIN.ask, output="logits"))
    with pytest.raises(RecipeError, match="__main__:ask is defined in a notebook or script"):
        pack(recipe, tmp_path / "r.yaml", installed=True)


SCRIPT = """
import json, linecache, sys
from pathlib import Path
import numpy as np
import ray
from torch import nn

from orchestrator import run

OFFSET = np.float32(1)

def rule(batch):
    x = batch["features"]
    return np.stack([-x[:, 2], OFFSET - abs(x[:, 2] - 4), x[:, 2] - 5], 1)

class Net(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.layer = nn.Linear(input_shape[0], num_classes)

    def forward(self, x):
        return self.layer(x)

def told(recipe):
    report = run(recipe, "out", until="distill").report
    return {f"{s['stage']}/{s['name']}": s["reason"] for s in report["stages"] if s.get("part", "").startswith(("train-0", "student"))}

if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)  # both runs are on it
    recipe = json.loads(Path("recipe.json").read_text())
    recipe["teachers"]["one"]["function"], recipe["students"]["small"]["model"] = rule, Net
    first = told(recipe)
    OFFSET = np.float32(2)
    print(json.dumps([first, told(recipe)]))
"""


@pytest.mark.campaign
def test_a_script_runs_its_own_functions_and_networks_and_labels_again_only_for_what_they_use(tmp_path: Path) -> None:
    given = iris(kind="callable", function="a:b", output="logits", require=None)
    given["students"]["small"]["control"] = False
    (tmp_path / "recipe.json").write_text(json.dumps(given))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first == {"label/one": "not built before", "distill/small": "not built before"}
    assert second == {"label/one": "code of __main__:OFFSET changed", "distill/small": "labels of one changed"}
