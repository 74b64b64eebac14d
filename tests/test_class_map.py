"""Which of a teacher's classes is which of the transfer set's: by name, by lines, by a file, several onto one."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from orchestrator.recipe.model import Recipe
from orchestrator.stages.keys import hearing
from teachers.errors import RecipeError
from teachers.soft_targets.alignment import Alignment
from teachers.soft_targets.class_map import mapped, resolved
from teachers.tasks.space import Space

OURS = ("a", "b", "c")
CLASSES = Space("classification", OURS)


def said(names, rows=6, seed=0):
    return 3 * torch.randn(rows, len(names), generator=torch.Generator().manual_seed(seed))


def test_classes_are_mapped_by_name_in_whatever_order():
    theirs = ("b", "c", "a")
    alignment, logits = Alignment.of(theirs, CLASSES, None), said(theirs)
    assert alignment.known.all()
    assert torch.equal(alignment(logits), logits[:, [2, 0, 1]])
    same = Alignment.of(OURS, CLASSES, None)
    assert same(logits) is logits


def test_a_class_map_renames_and_drops_and_names_that_match_need_no_line():
    theirs = ("felis", "b", "noise")
    alignment, logits = Alignment.of(theirs, CLASSES, {"felis": "a", "noise": None}), said(theirs)
    assert alignment.known.tolist() == [True, True, False]
    assert torch.equal(alignment(logits)[:, :2], logits[:, :2])


def test_the_probabilities_of_several_classes_that_are_one_add_up():
    theirs = ("b", "zh-cn", "a", "zh-tw", "zh-hk")
    lines = {"zh-cn": "c", "zh-tw": "c", "zh-hk": "c"}
    alignment, logits = Alignment.of(theirs, CLASSES, lines), said(theirs)
    p = softmax(logits.double().numpy(), axis=1)
    expected = np.stack([p[:, 2], p[:, 0], p[:, 1] + p[:, 3] + p[:, 4]], 1)
    np.testing.assert_allclose(alignment(logits).double().softmax(1), expected, rtol=1e-5)


def test_what_a_teacher_does_not_know_of_a_row_it_knows_of_no_class():
    theirs = ("b", "zh-cn", "a", "zh-tw")
    logits = said(theirs)
    logits[2] = torch.nan
    found = Alignment.of(theirs, CLASSES, {"zh-cn": "c", "zh-tw": "c"})(logits)
    assert found[2].isnan().all() and found[[0, 1, 3, 4, 5]].isfinite().all()


def test_others_are_what_no_line_names_and_the_transfer_set_does_not_have():
    theirs = ("a", "x", "y", "z", "q")
    assert mapped(theirs, OURS, {"z": "b", "others": None}) == {"a": "a", "x": None, "y": None, "z": "b", "q": None}
    assert mapped(theirs, OURS, {"z": "b", "others": "c"}) == {"a": "a", "x": "c", "y": "c", "z": "b", "q": "c"}
    own = mapped(("others", "a"), OURS, {"others": "b"})  # a class of that name is one
    assert own == {"others": "b", "a": "a"}
    with pytest.raises(RecipeError, match="'y' are not in the transfer set"):
        mapped(("others", "y"), OURS, {"others": None})


def test_a_file_is_a_dictionary_of_which_the_lines_that_fit_count(tmp_path):
    (tmp_path / "iso.csv").write_text("aaa,a\nbbb,b\nxxx,x\nnobody-says-it,c\ndropped,\n\n", "utf-8")
    file = {"file": str(tmp_path / "iso.csv")}
    theirs = ("aaa", "bbb", "c", "dropped")
    found = mapped(theirs, OURS, resolved(file))
    assert found == {"aaa": "a", "bbb": "b", "c": "c", "dropped": None}
    over = mapped(theirs, OURS, resolved({**file, "bbb": None}))
    assert over["bbb"] is None
    with pytest.raises(RecipeError, match=r"'xxx' are not in the transfer set.*`others: null`"):
        mapped((*theirs, "xxx"), OURS, resolved(file))
    assert mapped((*theirs, "xxx"), OURS, resolved({**file, "others": None}))["xxx"] is None


def test_the_content_of_a_file_decides_how_a_teacher_is_heard_and_not_its_name(tmp_path):
    for name, line in (("one", "aaa,a"), ("two", "aaa,a"), ("other", "aaa,b")):
        (tmp_path / f"{name}.csv").write_text(line)

    def heard(name):
        teacher = {
            "kind": "callable",
            "function": "m:f",
            "output": "logits",
            "class_map": {"file": f"{tmp_path / name}.csv"},
        }
        rows = {"source": {"kind": "parquet", "path": "x"}, "inputs": "x", "label": "y"}
        recipe = Recipe.model_validate({"format": 1, "name": "r", "transfer_set": rows, "teachers": {"one": teacher}})
        return hearing(recipe, "one")

    assert heard("one") == heard("two") != heard("other")
    assert heard("one")["class_map"] == {"file": {"aaa": "a"}}
    with pytest.raises(RecipeError, match=r"teachers\.one\.class_map: .*missing\.csv cannot be read"):
        heard("missing")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("a,b,c", r"line 1 has 3 columns, expected two"),
        ("x,a\ny,b\nx,c", r"line 3 maps 'x' to 'c', and a line before otherwise"),
    ],
)
def test_a_file_that_is_no_map_is_told_with_its_line(lines, told, tmp_path):
    (tmp_path / "map.csv").write_text(lines)
    with pytest.raises(RecipeError, match=told):
        resolved({"file": str(tmp_path / "map.csv")})


@pytest.mark.parametrize(
    ("teacher_classes", "class_map", "told"),
    [
        (["a", "b", "c", "z"], None, r"'z' are not in the transfer set.*class_map"),
        (["a", "b"], None, r"does not know the classes 'c'.*class_map"),
        (["a", "b"], {"q": "a"}, r"\['q'\], which the teacher does not have"),
        (["a", "b"], {"b": "q"}, r"'q' are not in the transfer set"),
        (["a", "z"], {"others": "q"}, r"'q' are not in the transfer set"),
        (["a", "z"], {}, r"'z' are not in the transfer set"),
    ],
)
def test_a_class_that_goes_nowhere_is_an_error_that_names_it(teacher_classes, class_map, told):
    with pytest.raises(RecipeError, match=told):
        mapped(teacher_classes, OURS, class_map)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_only_probabilities_of_one_class_of_many_add_up(task):
    with pytest.raises(RecipeError, match=r"several .* mapped to \['a'\].*only probabilities"):
        Alignment.of(("a", "x"), Space(task, ("a",)), {"x": "a"})


def test_a_row_that_is_of_a_class_which_takes_no_part_is_one_of_which_nothing_is_known():
    """A store that keeps classes only has the same number for all that are left: to call the first of them would be a guess."""
    theirs = ("a", "b", "noise")
    label = torch.tensor([[0.0, -9.0, -9.0], [-9.0, -9.0, 0.0]])
    found = Alignment.of(theirs, CLASSES, {"noise": None}, 1e-3)(label.log_softmax(1))
    assert found[0, :2].argmax() == 0 and not found[0, :2].isnan().any()
    assert found[1].isnan().all()
    unsure = Alignment.of(theirs, CLASSES, {"noise": None}, 1e-3)(torch.tensor([[1.0, 0.0, 3.0]]))
    assert not unsure[:, :2].isnan().any()
