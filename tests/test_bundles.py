"""Answers that leave the house: by key, signed, without weights and inputs; the receiver's student is the sender's."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from teachers.bundles.export import Leaving, export_bundle
from teachers.bundles.manifest import MANIFEST, SIGNATURE, Manifest, verify, write_manifest
from teachers.bundles.noise import noisy_labels, sigma_for
from teachers.bundles.signing import Signer, make_keys
from teachers.bundles.unpack import import_bundle
from teachers.config.predictions import PredictionsTeacher
from teachers.config.transfer_set import TransferSetConfig
from teachers.errors import CollegiumError, RecipeError, StoreError
from teachers.labelling.predictions import fill
from teachers.labelling.shard import LabelTask
from teachers.models.predictions import Predictions
from teachers.preparing.prepare import prepare
from teachers.soft_targets.reader import SoftTargets
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore
from teachers.storage.seal import write_seal
from teachers.transfer_set.answers import Answered, answered_segments
from teachers.transfer_set.transfer_set import TransferSet
from tests import faults, warm

ROWS, CLASSES = 240, ("ant", "bee", "cow", "dog")
RNG = np.random.default_rng(3)
X = RNG.normal(size=ROWS).astype(np.float32)
SAID = {name: RNG.normal(scale=3, size=(ROWS, 4)).astype(np.float32) for name in ("big", "old", "odd")}
NAMES = {"big": CLASSES, "old": CLASSES, "odd": CLASSES[::-1]}
"""One of them has the classes in another order."""


def made(folder: Path, salt: str = "between us") -> TransferSetConfig:
    folder.mkdir(parents=True, exist_ok=True)
    label = np.array(CLASSES)[np.arange(ROWS) % 4]
    parquet.write_table(
        pa.table({"id": [f"row {n}" for n in range(ROWS)], "x": X, "y": label}), folder / "rows.parquet"
    )
    source = {"kind": "parquet", "path": str(folder / "rows.parquet")}
    return TransferSetConfig.model_validate(
        {"source": source, "inputs": "x", "label": "y", "id": "id", "key_salt": salt}
    )


def rows_of(out: Path) -> TransferSet:
    """Prepared and sealed, as a run leaves them."""
    data = prepare(made(out), out / "prepared" / "a")
    write_seal(data.folder, data.files())
    return data


def labelled(out: Path, data: TransferSet, encoding: Any = "dense", unknown: int = 0) -> None:
    """Stores of what everybody says; of the first `unknown` rows of each segment nobody knows anything."""
    for name, said in SAID.items():
        for segment in data.segments:
            spec = Spec(
                name, f"digest of {name}", segment.name, segment.digest, encoding, NAMES[name], segment.num_rows, 64
            )
            store = SoftTargetStore.create(out / "soft_targets" / f"{name}-{segment.digest[:12]}", spec)
            rows = [int(each.removeprefix("row ")) for each in data.ids(segment).to_pylist()]
            logits = said[rows].copy()
            logits[:unknown] = np.nan
            for number in range(store.num_shards):
                first, count = store.shard_rows(number)
                store.commit(
                    number, data.keys(segment)[first : first + count], {"logits": logits[first : first + count]}
                )
            store.seal()


@pytest.fixture(scope="module")
def sender(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Answered]]:
    out = tmp_path_factory.mktemp("sender")
    labelled(out, rows_of(out))
    return out, [*answered_segments(sorted((out / "soft_targets").iterdir()), out / "prepared")]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    private = tmp_path_factory.mktemp("keys") / "acme"
    return private, make_keys(private)


def exported(sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], folder: Path, **leaving: Any) -> Manifest:
    given = {"name": "theirs", "licence": "CC BY 4.0", "signer": Signer.open(keys[0])}
    return export_bundle(sender[1], folder, Leaving(**leaving), **given)[0]


def received(
    bundle: Path, key: Path, folder: Path, salt: str = "between us"
) -> dict[str, tuple[list[str], np.ndarray]]:
    """What the stores of the receiver say, who has prepared the rows itself: {teacher: (ids, logits [N, C])}."""
    how = made(folder, salt)
    data = prepare(how, folder / "prepared")
    found = {}
    for each in import_bundle(bundle, folder / "theirs", key)[1]:
        told = {"kind": "predictions", "path": str(each.path), "sample_key": "sample_key", "scores": each.scores}
        config = PredictionsTeacher.model_validate({**told, "output": each.output, "max_missing": each.missing})
        classes = Predictions.open(config, data.space).classes
        tasks = []
        for segment in data.segments:
            spec = Spec(each.name, "theirs", segment.name, segment.digest, "dense", classes, segment.num_rows, 64)
            store = SoftTargetStore.create(folder / f"{each.name}-{segment.name}", spec)
            tasks.append(LabelTask(data.folder, segment.name, store.folder))
        fill(each.name, config, tasks, how)
        said = torch.cat([SoftTargets.open(task.store).said() for task in tasks]).numpy()
        ids = [str(one) for segment in data.segments for one in data.ids(segment)]
        found[each.name] = ids, said[:, [classes.index(name) for name in CLASSES]]
    return found


def of_sender(name: str, ids: list[str]) -> np.ndarray:
    """In the order of CLASSES."""
    return SAID[name][[int(each.removeprefix("row ")) for each in ids]][
        :, [NAMES[name].index(each) for each in CLASSES]
    ]


def test_the_receiver_has_what_each_teacher_said_by_its_own_rows_and_names(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = exported(sender, keys, tmp_path / "bundle")
    assert [(voice.name, voice.rows, voice.keeps) for voice in manifest.voices] == [
        (name, ROWS, "scores") for name in ("big", "odd", "old")
    ]
    for name, (ids, said) in received(tmp_path / "bundle", keys[1], tmp_path / "mine").items():
        np.testing.assert_allclose(log_softmax(said, 1), log_softmax(of_sender(name, ids), 1), atol=6e-3)


def test_no_weight_no_input_and_no_id_leaves(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle")
    files = sorted(path.name for path in (tmp_path / "bundle").iterdir())
    assert files == ["big.arrow", MANIFEST, SIGNATURE, "odd.arrow", "old.arrow"]
    for name in ("big", "odd", "old"):
        assert pa.ipc.open_file(tmp_path / "bundle" / f"{name}.arrow").schema.names == ["sample_key", "scores"]
    assert not any(b"row 1" in path.read_bytes() for path in (tmp_path / "bundle").iterdir())


def test_who_has_another_salt_finds_no_row_and_is_told_why(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle", teachers=("big",))
    with pytest.raises(CollegiumError, match="key_salt"):
        received(tmp_path / "bundle", keys[1], tmp_path / "mine", salt="another")


def test_scores_softened_before_they_leave_are_the_distribution_at_that_temperature(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle", teachers=("big",), temperature=4.0)
    ids, said = received(tmp_path / "bundle", keys[1], tmp_path / "mine")["big"]
    np.testing.assert_allclose(softmax(said, 1), softmax(of_sender("big", ids) / 4, 1), atol=2e-3)


def test_of_the_largest_probabilities_the_rest_is_spread_over_the_other_classes(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle", teachers=("odd",), top_k=2)
    ids, said = received(tmp_path / "bundle", keys[1], tmp_path / "mine")["odd"]
    p = softmax(of_sender("odd", ids).astype(np.float64), 1)
    smallest = np.argsort(p, 1)[:, :2]
    np.put_along_axis(p, smallest, np.take_along_axis(p, smallest, 1).mean(1, keepdims=True), 1)
    floored = (1 - 1e-3) * p + 1e-3 / 4
    np.testing.assert_allclose(softmax(said, 1), floored, atol=1e-3)


@pytest.mark.parametrize("rule", ["mean_probability", "mean_logits"])
def test_several_leave_as_one_whatever_the_order_of_their_classes(
    rule: str, sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (voice,) = exported(sender, keys, tmp_path / "bundle", combine=rule).voices
    assert (voice.name, voice.teachers) == ("ensemble", 3)
    ids, said = received(tmp_path / "bundle", keys[1], tmp_path / "mine")["ensemble"]
    each = np.stack([log_softmax(of_sender(name, ids).astype(np.float64), 1) for name in SAID])
    mean = np.exp(each).mean(0) if rule == "mean_probability" else softmax(each.mean(0), 1)
    np.testing.assert_allclose(softmax(said, 1), mean, atol=2e-3)


def test_rows_of_which_a_teacher_knows_nothing_stay_unknown(keys: tuple[Path, Path], tmp_path: Path) -> None:
    data = rows_of(tmp_path / "out")
    labelled(tmp_path / "out", data, unknown=5)
    answered = [*answered_segments(sorted((tmp_path / "out/soft_targets").iterdir()), tmp_path / "out/prepared")]
    for way, leaving in {"all": {}, "some": {"top_k": 1}, "one": {"labels": True}}.items():
        exported((tmp_path, answered), keys, tmp_path / way, teachers=("big",), **leaving)
        (each,) = import_bundle(tmp_path / way, tmp_path / f"lines {way}", keys[1])[1]
        printed = yaml.safe_load("\n".join(["teachers:", *each.lines]))["teachers"]["big"]
        assert each.missing <= PredictionsTeacher.model_validate(printed).max_missing < each.missing + 0.001
        _, said = received(tmp_path / way, keys[1], tmp_path / f"mine {way}")["big"]
        assert np.isnan(said).all(1).sum() == 5 * len(data.segments) and np.isnan(said).any(1).sum() == 5 * len(
            data.segments
        )


# ---- noise


@pytest.mark.parametrize("epsilon,delta,answers", [(0.5, 1e-5, 1), (2.04, 1e-5, 100), (8.19, 1e-6, 10_000)])
def test_the_noise_is_the_least_that_keeps_the_promise_of_the_renyi_accountant(
    epsilon: float, delta: float, answers: int
) -> None:
    sigma = sigma_for(epsilon, delta, answers)

    def promised(order: float) -> float:  # of the n-fold Gaussian mechanism of sensitivity sqrt(2), at this order
        return answers * order * 2 / (2 * sigma**2) + math.log(1 / delta) / (order - 1)

    best = minimize_scalar(promised, bounds=(1 + 1e-9, 1e7), method="bounded", options={"xatol": 1e-9}).fun
    grid = min(promised(1 + 10**at) for at in np.linspace(-4, 6, 20_001))
    assert min(best, grid) == pytest.approx(epsilon, rel=1e-6)


def test_noise_is_normal_and_is_drawn_anew() -> None:
    from teachers.bundles.noise import _normal

    drawn = _normal((200_000,))
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.02 and np.abs(drawn).max() < 8.3
    votes = np.tile([3, 2, 0, 0], (20_000, 1))
    flipped = np.mean(noisy_labels(votes, 1.0) != 0)
    beaten = 1 - np.mean((np.array([3, 2, 0, 0]) + RNG.normal(size=(200_000, 4))).argmax(1) == 0)
    assert flipped == pytest.approx(beaten, abs=0.02)
    assert (noisy_labels(votes, 3.0) != noisy_labels(votes, 3.0)).any()


def test_of_noisy_votes_the_class_alone_leaves_and_the_manifest_says_what_is_promised(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = exported(sender, keys, tmp_path / "bundle", epsilon=1e6, delta=1e-5)
    (voice,) = manifest.voices
    assert (voice.name, voice.teachers, voice.keeps, voice.output) == ("votes", 3, "labels", "classes")
    assert manifest.privacy is not None and manifest.privacy.answers == ROWS
    assert manifest.privacy.sigma == pytest.approx(sigma_for(1e6, 1e-5, ROWS))
    ids, said = received(tmp_path / "bundle", keys[1], tmp_path / "mine")["votes"]
    votes = sum(np.eye(4)[of_sender(name, ids).argmax(1)] for name in SAID)
    clear = votes.max(1) > np.sort(votes, 1)[:, -2]
    assert clear.sum() > 100 and (said.argmax(1) == votes.argmax(1))[clear].all()  # so little noise changes no majority


def test_without_noise_nothing_is_called_private(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    manifest = exported(sender, keys, tmp_path / "bundle")
    assert manifest.privacy is None and b"privat" not in (tmp_path / "bundle" / MANIFEST).read_bytes()


# ---- what is no bundle


def one_byte(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)


def _link(bundle: Path) -> None:
    shutil.copy(bundle / "big.arrow", bundle.parent / "elsewhere.arrow")
    (bundle / "big.arrow").unlink()
    (bundle / "big.arrow").symlink_to(bundle.parent / "elsewhere.arrow")


TAMPERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an answer": (lambda bundle: one_byte(bundle / "big.arrow"), "SHA-256"),
    "the manifest": (lambda bundle: one_byte(bundle / MANIFEST), "not signed by the owner"),
    "the signature": (lambda bundle: one_byte(bundle / SIGNATURE), "not signed by the owner"),
    "an empty signature": (lambda bundle: (bundle / SIGNATURE).write_bytes(b""), "not signed by the owner"),
    "a file that is gone": (lambda bundle: (bundle / "big.arrow").unlink(), "there is no such file"),
    "a file cut short": (lambda bundle: os.truncate(bundle / "big.arrow", 100), "100 bytes"),
    "a file that nobody named": (lambda bundle: (bundle / "setup.py").write_text("print(1)"), "nobody vouches"),
    "a link": (_link, "is a link"),
    "no manifest": (lambda bundle: (bundle / MANIFEST).unlink(), "there is no such file"),
}


@pytest.mark.parametrize("tamper,told", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_bundle_that_is_not_what_was_signed_is_refused_and_nothing_of_it_written(
    tamper: Callable[[Path], None],
    told: str,
    sender: tuple[Path, list[Answered]],
    keys: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    exported(sender, keys, tmp_path / "bundle")
    tamper(tmp_path / "bundle")
    for act in (lambda: verify(tmp_path / "bundle", keys[1]), lambda: received_only(tmp_path, keys[1])):
        with pytest.raises(StoreError, match=told):
            act()
    assert not list((tmp_path / "into").glob("*")) if (tmp_path / "into").exists() else True


def received_only(folder: Path, key: Path) -> None:
    import_bundle(folder / "bundle", folder / "into", key)


def test_every_single_byte_counts(sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path) -> None:
    exported(sender, keys, tmp_path / "bundle", teachers=("big",), labels=True)
    for path in (tmp_path / "bundle").iterdir():
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
            with pytest.raises(StoreError):
                verify(tmp_path / "bundle", keys[1])
        path.write_bytes(whole)
    verify(tmp_path / "bundle", keys[1])


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "above": ({"file": "../escape.arrow"}, "file"),
    "absolute": ({"file": "/tmp/escape.arrow"}, "file"),
    "a program": ({"file": "run.py"}, "file"),
    "windows": ({"file": "..\\escape.arrow"}, "file"),
    "unknown key": ({"run": "rm"}, "run"),
    "no classes": ({"names": []}, "names"),
    "a line of a recipe": ({"name": "big:\n  evil"}, "name"),
}


@pytest.mark.parametrize("change,told", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_signed_manifest_that_is_hostile_or_of_no_version_is_refused(
    change: dict[str, Any], told: str, sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    exported(sender, keys, bundle, teachers=("big",))
    document = json.loads((bundle / MANIFEST).read_bytes())
    document["voices"][0] |= change
    payload = json.dumps(document).encode()
    (bundle / MANIFEST).write_bytes(payload)
    (bundle / SIGNATURE).write_bytes(Signer.open(keys[0]).sign(payload))
    with pytest.raises(StoreError, match=told):
        import_bundle(bundle, tmp_path / "into", keys[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_signed_file_of_other_columns_or_rows_than_its_manifest_says_is_refused(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    manifest = exported(sender, keys, bundle, teachers=("big",))
    (voice,) = manifest.voices
    for changed in ({"rows": ROWS - 1}, {"names": [*CLASSES, "emu"]}, {"keeps": "labels"}, {"names": [*CLASSES[::-1]]}):
        document = manifest.model_copy(update={"voices": [voice.model_copy(update=changed)]})
        write_manifest(bundle, document, Signer.open(keys[0]))
        with pytest.raises(StoreError, match="made otherwise"):
            import_bundle(bundle, tmp_path / "into", keys[1])


def test_the_key_of_somebody_else_proves_nothing(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle")
    with pytest.raises(StoreError, match="not signed by the owner"):
        verify(tmp_path / "bundle", make_keys(tmp_path / "eve"))


def test_a_signature_of_any_length_is_read_no_farther_than_one(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle")
    os.truncate(tmp_path / "bundle" / SIGNATURE, 1 << 40)  # a file with a hole, larger than memory
    with pytest.raises(StoreError, match="not signed by the owner"):
        verify(tmp_path / "bundle", keys[1])


def test_keys_are_their_owners_alone_and_are_never_overwritten(tmp_path: Path) -> None:
    public = make_keys(tmp_path / "mine")
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600 and public.name == "mine.pub"
    with pytest.raises(RecipeError, match="there already"):
        make_keys(tmp_path / "mine")
    for path in (public, tmp_path / "absent"):
        with pytest.raises(RecipeError, match=r"keygen|cannot be read"):
            Signer.open(path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nobody of that name": ({"teachers": ("bog",)}, "nobody called 'bog'"),
    "epsilon alone": ({"epsilon": 1.0}, "go together"),
    "two cuts": ({"top_k": 2, "labels": True}, "one of them"),
    "all of them": ({"top_k": 4}, "expected 1 to 3"),
    "one vote": ({"teachers": ("big",), "epsilon": 1.0, "delta": 1e-5}, "nothing to combine"),
    "no such rule": ({"combine": "best"}, "expected one of"),
    "of numbers": ({"combine": "median"}, "not of such answers"),
    "noise and scores": ({"epsilon": 1.0, "delta": 1e-5, "top_k": 2}, "nothing else"),
    "softened labels": ({"labels": True, "temperature": 2.0}, "no scores leave"),
    "noise without end": ({"epsilon": 1e-17, "delta": 1e-5}, "1e-6 to 1e9"),
}


@pytest.mark.parametrize("leaving,told", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_together_leaves_nothing_behind(
    leaving: dict[str, Any], told: str, sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told):
        exported(sender, keys, tmp_path / "bundle", **leaving)
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_never_written_over(
    sender: tuple[Path, list[Answered]], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    exported(sender, keys, tmp_path / "bundle")
    with pytest.raises(RecipeError, match="there already"):
        exported(sender, keys, tmp_path / "bundle")


def test_a_store_that_keeps_the_class_only_has_no_scores_to_let_leave(keys: tuple[Path, Path], tmp_path: Path) -> None:
    data = rows_of(tmp_path / "out")
    labelled(tmp_path / "out", data, "label")
    answered = [*answered_segments(sorted((tmp_path / "out/soft_targets").iterdir()), tmp_path / "out/prepared")]
    with pytest.raises(RecipeError, match="keeps the class only"):
        exported((tmp_path, answered), keys, tmp_path / "bundle")
    exported((tmp_path, answered), keys, tmp_path / "bundle", labels=True)
    ids, said = received(tmp_path / "bundle", keys[1], tmp_path / "mine")["big"]
    assert (said.argmax(1) == of_sender("big", ids).argmax(1)).all()


# ---- two companies


@pytest.mark.campaign
def test_who_has_the_bundle_and_its_own_inputs_reaches_the_same_student(tmp_path: Path) -> None:
    """By the commands, each company in a folder of its own."""
    rows = ["transfer_set.key_salt=between us"]
    small = [*faults.SMALLEST.overrides, *rows]
    for company in ("sender", "receiver"):
        (tmp_path / company).mkdir()

    def collegium(company: str, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = warm.run(words, tmp_path / company, environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    collegium("sender", "evaluate", "digits", *(f"-o{each}" for each in small))
    collegium("sender", "bundle", "keygen", "acme")
    told = collegium("sender", "bundle", "export", "out/digits", "said", "--sign", "acme", "--licence", "CC-BY-4.0")
    assert "weights-free" in told
    (tmp_path / "sender/said").rename(tmp_path / "receiver/said")
    (tmp_path / "sender/acme.pub").rename(tmp_path / "receiver/acme.pub")
    assert "whole" in collegium("receiver", "bundle", "verify", "said", "--key", "acme.pub")
    teachers = yaml.safe_load(collegium("receiver", "bundle", "import", "said", "theirs", "--key", "acme.pub"))
    mine = [f"teachers={json.dumps(teachers['teachers'])}", *small[1:]]
    collegium("receiver", "evaluate", "digits", *(f"-o{each}" for each in mine))
    (theirs,), (ours,) = (faults.accuracies(tmp_path / company / "out/digits") for company in ("sender", "receiver"))
    assert ours == pytest.approx(theirs, abs=1.5 / 360) and ours > 0.8
