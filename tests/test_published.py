"""Three published networks' answers to CIFAR-100's test rows, put together: figures that others have published."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from students.measuring.evaluate import evaluate_teachers
from students.objective.fitted import fitted_weights
from students.runs.run import Source
from teachers.config.transfer_set import TransferSetConfig
from teachers.models.scores import to_logits
from teachers.preparing.prepare import prepare
from teachers.soft_targets.schema import Spec
from teachers.soft_targets.store import SoftTargetStore

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "cifar100_published_teachers"
NAMES = ("wideresnet_16_4", "densenet_bc_100", "lenet_5")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not here")


def evaluated(folder, floor, **split):
    """All that evaluation says of the three, from stores as labelling writes them."""
    source = {"kind": "parquet", "path": str(FOLDER / f"{NAMES[0]}.parquet")}
    rows = {"source": source, "inputs": "row", "label": "label", "id": "row", "split": {"stratify": False, **split}}
    data = prepare(TransferSetConfig.model_validate(rows), folder / "prepared")
    sources = []
    for name in NAMES:
        table = pq.read_table(FOLDER / f"{name}.parquet")
        said = torch.tensor(np.stack(table["probabilities"].to_numpy(zero_copy_only=False)))
        logits = to_logits(said, "probabilities", floor).numpy()
        stores = {}
        for segment in data.of("validation") + data.of("test"):
            about = (segment.name, segment.digest, "dense", data.classes, segment.num_rows, segment.num_rows)
            store = SoftTargetStore.create(folder / name / segment.name, Spec(name, name, *about))
            ids = np.array([int(each) for each in data.ids(segment).to_pylist()])
            store.commit(0, data.keys(segment), {"logits": logits[ids]})
            store.seal()
            stores[segment.name] = store.folder
        sources.append(Source(name, stores))
    return data, sources, evaluate_teachers(data.folder, sources)


def test_the_ensembles_have_the_published_accuracies_to_four_digits(tmp_path):
    _, _, found = evaluated(tmp_path, 1e-6, validation=0.00025, test=0.9995)
    by = {each["combine"]: each["figures"]["accuracy"] for each in found["combinations"] if "combine" in each}
    assert f"{by['mean_probability']:.4f}" == "0.7837"
    assert f"{by['mean_logits']:.4f}" == "0.7904"
    assert f"{found['teachers']['wideresnet_16_4']['accuracy']:.4f}" == "0.7542"  # of 9,996 rows; of all .7543
    assert found["teachers"]["lenet_5"]["accuracy"] == pytest.approx(0.1246, abs=2e-4)


def test_labelled_rows_make_the_three_better_than_their_mean_and_calibrated_they_silence_the_bad_one(tmp_path):
    data, sources, found = evaluated(tmp_path, 1e-6, validation=0.1, test=0.8)
    single, *rules = found["combinations"]
    by = {each["combine"]: each for each in rules}
    mean, fitted = by["mean_logits"], by["fitted"]
    assert fitted["counts"]["lenet_5"] < 0.3 < fitted["counts"]["wideresnet_16_4"]
    assert fitted["figures"]["accuracy"] > mean["figures"]["accuracy"] > single["figures"]["accuracy"]
    assert fitted["figures"]["nll"] < mean["figures"]["nll"]
    calibrated = [dataclasses.replace(each, calibrate="temperature") for each in sources]
    weights = fitted_weights(calibrated, data)
    assert weights["lenet_5"] < 0.1
