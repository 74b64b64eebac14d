"""Import strings: what they load, what decides them, and whose packages win."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from teachers.errors import RecipeError
from teachers.users_code.digest import inputs_of
from teachers.users_code.imports import load, use_user_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def digest(folder: Path, name: str) -> str:
    """In a fresh process: no module is remembered."""
    code = f"from pathlib import Path; from teachers.users_code.digest import *; from teachers.users_code.imports import *; use_user_path(Path({str(folder)!r})); print(sorted(inputs_of({{'model': {name!r}}}).items()))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_users_code_counts_with_all_that_it_imports_from_its_directory(tmp_path: Path) -> None:
    write(tmp_path, "mine_a.py", "import mine_b\nimport numpy\ndef fn(): return mine_b.x\n")
    write(tmp_path, "mine_b.py", "x = 1\n")
    write(tmp_path, "mine_c.py", "y = 1\n")
    before = digest(tmp_path, "mine_a:fn")
    write(tmp_path, "mine_c.py", "y = 2\n")
    assert digest(tmp_path, "mine_a:fn") == before
    write(tmp_path, "mine_b.py", "x = 2\n")
    assert digest(tmp_path, "mine_a:fn") != before


def test_relative_imports_of_a_users_package_count_too(tmp_path: Path) -> None:
    write(tmp_path, "pack/__init__.py", "")
    write(tmp_path, "pack/a.py", "from .inner import b\nfrom . import c\ndef fn(): ...\n")
    write(tmp_path, "pack/inner/__init__.py", "")
    write(tmp_path, "pack/inner/b.py", "")
    write(tmp_path, "pack/c.py", "")
    seen = [digest(tmp_path, "pack.a:fn")]
    for name in ("pack/inner/b.py", "pack/c.py", "pack/__init__.py", "pack/a.py"):
        with (tmp_path / name).open("a") as file:
            file.write(f"changed_{len(seen)} = 1\n")
        seen.append(digest(tmp_path, "pack.a:fn"))
    assert len(set(seen)) == 5


def test_an_installed_package_counts_by_its_version_and_ours_by_the_stage() -> None:
    installed = inputs_of({"model": "sklearn.ensemble:ExtraTreesClassifier"})
    assert installed == {"version of scikit-learn": version("scikit-learn")}
    assert inputs_of({"model": "teachers.zoo:conv_net"}) == {}


def test_what_is_not_there_is_told_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no module 'not_there'"):
        load("not_there:fn")
    with pytest.raises(RecipeError, match="no module"):
        inputs_of({"model": "not_there:fn"})
    with pytest.raises(RecipeError, match="has no 'convnet'"):
        load("teachers.zoo:convnet")


def test_a_users_folder_named_teachers_does_not_hide_ours(tmp_path: Path) -> None:
    write(tmp_path, "teachers/__init__.py", "raise SystemExit('the wrong one')\n")
    code = "from pathlib import Path; from teachers.users_code.imports import *; use_user_path(Path.cwd()); check_own_packages(); print('ours')"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "ours\n"


def test_a_start_that_would_take_a_foreign_package_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "students/__init__.py", "")
    code = (
        f"import sys; from teachers.errors import *; from teachers.users_code import imports; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try: imports.check_own_packages()\nexcept EnvironmentUnfit as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "package 'students' would come from" in done.stdout


def test_the_users_path_stands_last(tmp_path: Path) -> None:
    use_user_path(tmp_path)
    assert sys.path[-1] == str(tmp_path)
    sys.path.remove(str(tmp_path))
