import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import torch

from students.tasks import class_table, classification
from teachers.tasks.space import Space
from tests.judged_rows import Rows, classes


def some_logits(rows: int = 400, classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, generator=generator)
    return logits, (logits + 2 * torch.randn(rows, classes, generator=generator)).argmax(-1)


def metered(logits: torch.Tensor, labels: torch.Tensor) -> classification.ClassMeter:
    meter = classification.ClassMeter(Space("classification", tuple(map(str, range(logits.shape[-1])))))
    meter.update(logits, labels)
    return meter


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_recalls_are_those_of_scikit_learn():
    logits, labels = some_logits()
    labels = labels.clamp(max=4)  # classes 5 and 6 have no row
    expected = sklearn.metrics.recall_score(labels, logits.argmax(-1), average=None, labels=range(5))
    assert metered(logits, labels).recalls() == [*map(pytest.approx, expected), None, None]


def test_the_table_of_classes_holds_supports_and_the_mean_recall_of_seeds():
    (one, labels), (other, _) = some_logits(), some_logits(seed=1)
    labels = labels.clamp(max=5)
    found = class_table.by_class({"student": [one, other], "ensemble": [one]}, labels, "abcdefg")
    recalls = [
        sklearn.metrics.recall_score(labels, logits.argmax(-1), average=None, labels=range(6))
        for logits in (one, other)
    ]
    assert found["classes"] == [*"abcdefg"]
    assert found["support"] == [*np.bincount(labels, minlength=7)]
    assert found["recall"]["student"][:6] == pytest.approx(np.mean(recalls, 0))
    assert found["recall"]["ensemble"][:6] == pytest.approx(recalls[0])
    assert found["recall"]["student"][6] is None


def test_average_precision_precision_and_f1_by_class_are_those_of_scikit_learn():
    logits, labels = some_logits()
    logits = (2 * logits).round() / 2  # many rows are equally sure
    labels = labels.clamp(max=4)  # classes 5 and 6 have no row
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    found = class_table.by_class({"student": [logits]}, labels, "abcdefg")
    ranked = [sklearn.metrics.average_precision_score(labels == number, p[:, number]) for number in range(5)]
    assert found["average_precision"]["student"] == [*map(pytest.approx, ranked), None, None]
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
        labels, logits.argmax(-1), labels=range(7), zero_division=0
    )
    assert found["precision"]["student"] == pytest.approx(precision)
    assert found["recall"]["student"][:5] == pytest.approx(recall[:5])
    assert found["f1"]["student"] == pytest.approx(f1)
    assert found["said"]["student"] == [*np.bincount(logits.argmax(-1), minlength=7)]


def test_a_class_that_is_never_said_has_no_precision_and_who_gives_no_probabilities_is_not_ranked():
    logits = torch.tensor([[2.0, 1.0, 0.0]]).repeat(4, 1)
    found = class_table.by_class({"a": [logits]}, torch.tensor([0, 0, 0, 1]), "xyz", class_only={"a"})
    assert found["precision"]["a"] == [0.75, None, None]
    assert found["recall"]["a"] == [1.0, 0.0, None]
    assert found["average_precision"]["a"] == [None, None, None]


def test_rare_classes_have_fewer_than_half_an_even_share_of_the_rows():
    logits, _ = some_logits(rows=100, classes=3)
    labels = torch.tensor([0] * 60 + [1] * 25 + [2] * 15)
    found = class_table.by_class({"student": [logits]}, labels, "abc")
    assert found["rare"]["classes"] == ["c"]
    assert found["rare"]["average_precision"]["student"] == found["average_precision"]["student"][2]


def test_confusions_are_those_of_scikit_learn_and_the_largest_come_first():
    logits, labels = some_logits()
    found = class_table.confusion(logits, labels)
    matrix = sklearn.metrics.confusion_matrix(labels, logits.argmax(-1), labels=range(7))
    assert found["matrix"] == matrix.tolist()
    assert [rows for *_, rows in found["largest"]] == sorted(matrix[~np.eye(7, dtype=bool)], reverse=True)[
        : len(found["largest"])
    ]
    assert all(matrix[true, said] == rows for true, said, rows in found["largest"])


def test_of_many_classes_the_largest_confusions_are_told_and_no_matrix():
    logits, labels = some_logits(rows=2000, classes=150)
    found = class_table.confusion(logits, labels)
    matrix = sklearn.metrics.confusion_matrix(labels, logits.argmax(-1), labels=range(150))
    np.fill_diagonal(matrix, 0)
    assert found["matrix"] is None and len(found["largest"]) == class_table.LARGEST
    assert found["largest"][0][2] == matrix.max()


def test_a_class_that_is_never_said_and_never_true_counts_in_no_f1():
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    assert metered(logits, torch.tensor([0, 1])).figures()["macro_f1"] == 1.0


def test_calibration_error_is_the_formula_of_guo():
    logits, labels = some_logits()
    p = scipy.special.softmax(logits.double().numpy(), axis=1)
    confidence, right = p.max(1), p.argmax(1) == labels.numpy()
    expected = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    bins = metered(logits, labels).reliability()
    assert len(bins) == 15
    assert sum(bin["count"] for bin in bins) == 400
    assert classification.expected_calibration_error(bins) == pytest.approx(expected, abs=1e-12)


def test_who_is_always_sure_and_always_right_is_calibrated():
    labels = torch.arange(5)
    bins = metered(1e4 * torch.eye(5), labels).reliability()
    assert classification.expected_calibration_error(bins) == 0.0
    assert [bin["count"] for bin in bins] == [0] * 14 + [5]
    assert bins[0] == {"confidence": None, "accuracy": None, "count": 0}


def test_kl_is_that_of_scipy_and_zero_to_oneself():
    model, _ = some_logits(seed=0)
    ensemble, _ = some_logits(seed=1)
    p, q = (scipy.special.softmax(logits.double().numpy(), axis=1) for logits in (ensemble, model))
    assert classification.kl(ensemble, model) == pytest.approx(scipy.stats.entropy(p, q, axis=1).mean(), abs=1e-12)
    assert classification.kl(model, model + 3.0) == pytest.approx(0.0, abs=1e-9)  # a constant changes no distribution


def test_every_figure_is_finite_where_a_class_has_no_probability():
    logits = torch.tensor([[0.0, -1e4], [-1e4, 0.0]])
    found = Rows(classes(2), torch.tensor([1, 0])).figures(logits, logits.flip(0))
    assert found["nll"] == 100.0
    assert np.isfinite([value for value in found.values() if isinstance(value, float)]).all()


def test_agreement_is_symmetric_with_ones_on_the_diagonal():
    said = {name: some_logits(seed=seed)[0] for seed, name in enumerate("abc")}
    matrix = np.array(Rows(classes(7), torch.zeros(400)).agreement(said)["matrix"])
    assert (matrix == matrix.T).all()
    assert (matrix.diagonal() == 1).all()
    assert matrix[0, 2] == (said["a"].argmax(-1) == said["c"].argmax(-1)).double().mean()
