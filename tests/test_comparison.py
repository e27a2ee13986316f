"""Paired differences: what is resampled, and tables as they come back from their files."""

import numpy as np
import pandas as pd
import pytest

from evaluation import bootstrap, comparison, scores
from inference.scope import Scope

MEASURES = dict.fromkeys(bootstrap.MASK_MEASURES, 0.5)


def of_patients(lesion: list | None, gain: np.ndarray) -> dict[str, pd.DataFrame]:
    """Two tables of masks of 200 images; the second is better by `gain`."""
    images = pd.Index([f"i{k}" for k in range(200)], name="image")
    first = pd.DataFrame(MEASURES, index=images)
    second = first.add(gain, axis=0)
    columns = {} if lesion is None else {"lesion": lesion}
    return {name: t.assign(**columns) for name, t in (("a", first), ("b", second))}


def test_masks_are_resampled_by_patient_where_they_are_known():
    patients = [f"p{k // 20}" for k in range(200)]
    gain = np.repeat(np.random.default_rng(0).normal(0, 0.1, 10), 20)
    widths = {}
    for name, lesion in {"patients": patients, "images": None}.items():
        _, differences = comparison.compare_masks(of_patients(lesion, gain))
        row = differences.loc[("b - a", "jaccard")]
        assert row["value"] == pytest.approx(gain.mean())
        widths[name] = row["high"] - row["low"]
    # ten independent values, not two hundred: about sqrt(20) times as wide
    assert 3 < widths["patients"] / widths["images"] < 6


class Alone:
    """What write_scores and read_scores need of an ensemble."""

    task, k_folds = 3, None

    def __init__(self, folder) -> None:
        self.folder, self.flags, self.weight_hashes = folder, [], {"run": "hash"}

    def file(self, ending):
        return self.folder / ending


def test_classes_and_ids_that_look_like_numbers_or_gaps(tmp_path):
    classes = ["0", "1", "NA"]
    table = pd.DataFrame(
        {
            "lesion": ["01", "1", "NA", "02"],
            "fold": 0,
            "truth": ["0", "1", "NA", "1"],
            "0": [0.8, 0.1, 0.1, 0.3],
            "1": [0.1, 0.8, 0.1, 0.4],
            "NA": [0.1, 0.1, 0.8, 0.3],
        },
        index=pd.Index(["001", "NA", "1e3", "null"], name="image"),
    )
    scope = Scope(Alone(tmp_path), "fold", False)
    scores.write_scores(scope, {}, {}, table)
    _, read = scores.read_scores(scope)
    read = read.loc[table.index]
    assert read["truth"].tolist() == table["truth"].tolist()
    assert read["lesion"].tolist() == table["lesion"].tolist()
    found, _ = comparison.compare_classes({"a": read, "b": read[[*read.columns[:3], *classes]]})
    assert found.loc[("a", "accuracy"), "value"] == 1.0
