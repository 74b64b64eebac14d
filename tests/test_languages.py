"""Published language identifiers as teachers, and the messages that they are asked about."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.recipe.load import load_recipe
from orchestrator.recipe.shipped import recipes
from teachers.models import languages
from teachers.models.adapters import load_teacher
from teachers.sources.catalogues import messages
from teachers.tasks.space import Space
from teachers.transfer_set.columns import Column

LACKING = "collegium[languages] is not installed: nobody to compare with"
gcld3, pycld2 = (pytest.importorskip(name, reason=LACKING) for name in ("gcld3", "pycld2"))
langid = pytest.importorskip("py3langid.langid", reason=LACKING)

SAID = {
    "de": "Das Passwort ist zu kurz, bitte wählen Sie ein anderes.",
    "fi": "Salasana on liian lyhyt, ole hyvä ja valitse toinen.",
    "ja": "パスワードが短すぎます。別のものを選んでください。",
    "uk": "Пароль занадто короткий, будь ласка, оберіть інший.",
    "hsb": "Hesło je překrótke, wubjer prošu druhe.",
}
CODES = ("de", "fi", "ja", "uk")


def batch(*texts: str) -> dict[str, Any]:
    return {"text": np.array(texts or [*SAID.values()], object)}


@pytest.mark.parametrize("who", [languages.cld2, languages.cld3, languages.langid])
def test_an_identifier_says_probabilities_of_the_codes_that_it_is_asked_for(who: Any) -> None:
    p, known = who(batch(), CODES)
    assert p.shape == (5, 4) and [CODES[place] for place in p[:4].argmax(1)] == [*CODES] and known[:4].all()
    np.testing.assert_allclose(p[:4].sum(1), 1, atol=1e-6)
    assert (p[:4].max(1) > 0.5).all()
    reversed_p, _ = who(batch(), CODES[::-1])
    np.testing.assert_allclose(reversed_p[:4], p[:4, ::-1])


@pytest.mark.parametrize("who", [languages.cld2, languages.cld3, languages.langid])
def test_of_a_language_that_is_not_asked_for_an_identifier_knows_nothing(who: Any) -> None:
    _, known = who(batch(SAID["ja"], SAID["uk"]), ("de", "fi"))
    assert not known.any()


@pytest.mark.parametrize("who", [languages.cld2, languages.cld3, languages.langid])
def test_odd_text_stops_no_identifier(who: Any) -> None:
    p, known = who(batch("", "\0\1", "x\0y", "\N{PILE OF POO}", "\ufffe", " " * 100_000), CODES)
    assert p.shape == (6, 4) and np.isfinite(p[known]).all()
    assert who({"text": np.empty(0, object)}, CODES)[0].shape == (0, 4)


def test_identifiers_say_what_their_libraries_say() -> None:
    p, _ = languages.cld3(batch(), CODES)
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=10_000)
    found = [identifier.FindLanguage(text).probability for text in [*SAID.values()][:4]]
    np.testing.assert_allclose(p[:4].max(1), found)
    own = dict(langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True).rank(SAID["uk"]))
    asked = np.array([own[code] for code in CODES])
    np.testing.assert_allclose(languages.langid(batch(SAID["uk"]), CODES)[0][0], asked / asked.sum())
    mixed = f"{SAID['de']} {SAID['ja']}"
    percent = {code: share for _, code, share, _ in pycld2.detect(mixed, bestEffort=True)[2]}
    np.testing.assert_allclose(
        languages.cld2(batch(mixed), CODES)[0][0],
        [percent.get(code, 0) / (percent["de"] + percent["ja"]) for code in CODES],
    )


def test_messages_are_texts_of_one_language_without_placeholders() -> None:
    table = messages(at_most=300).to_pylist()
    per = Counter(row["language"] for row in table)
    assert len(per) > 60 and min(per.values()) >= 200 and max(per.values()) == 300 and "en" in per
    texts = [row["text"] for row in table]
    assert len(set(texts)) == len(texts)
    assert not any("%(" in text or "{" in text or "</" in text for text in texts)
    assert all(sum(map(str.isalpha, text)) >= 12 for text in texts)
    assert len({row["message"] for row in table}) < len(table) / 10
    german = {row["message"]: row["text"] for row in table if row["language"] == "de"}
    assert german.get("Please correct the errors below.", "Bitte die").startswith("Bitte")


def test_the_recipe_asks_each_identifier_for_classes_that_lead_to_languages_of_the_rows() -> None:
    recipe = load_recipe(recipes()["languages"])
    there = set(messages()["language"].to_pylist())
    assert len(there) == 67 and recipe.transfer_set.labelled_by_split["train"] == 5 * len(there)
    unknown = set(there)
    for teacher in recipe.teachers.values():
        targets = {(teacher.class_map or {}).get(code, code) for code in teacher.classes or ()}
        assert targets <= there
        unknown -= targets
    assert unknown == {"ckb", "dsb", "hsb", "os"}


def scores_of(batch: Any, classes: tuple[str, ...]) -> np.ndarray:
    """A user's function that has to know what it is asked for."""
    return np.array([[float(name in text) for name in classes] for text in batch["text"]])


def test_a_function_that_takes_classes_gets_their_names(tmp_path: Path) -> None:
    config = (
        load_recipe(recipes()["languages"])
        .teachers["cld2"]
        .model_copy(update={"function": "tests.test_languages:scores_of", "classes": ["b", "a"], "output": "logits"})
    )
    about: Any = {"columns": [Column("text", "text", (), (), ())], "space": Space("classification", ("a", "b"))}
    teacher = load_teacher(config, trained=None, trust=(), device="cpu", user_path=tmp_path, **about)
    np.testing.assert_array_equal(np.asarray(teacher({"text": np.array(["a", "xb"], object)})), [[0, 1], [1, 0]])
