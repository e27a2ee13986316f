import cls_train
import pytest

import training.loop
from datasets.batches import Batches


@pytest.mark.parametrize("sampling", ["ones", "balanced"])
def test_a_training_draws_its_classes_as_told(sampling, root, eagerly, blank_charts, monkeypatch):
    made = []

    class Watched(Batches):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(training.loop, "Batches", Watched)
    tiny = {"backbone": "tiny", "weights": "none", "image_size": 32, "batch_size": 8, "epochs": 1}
    tiny |= {"num_folds": 2, "folds": (0,), "lesion_view": "whole", "class_weight": "ones"}
    cls_train.main(cls_train.Settings(**tiny, sampling=sampling))
    train, held_out = made
    assert held_out.chances is None
    if sampling == "ones":
        assert train.chances is None
        return
    classes = train.targets[train.rows].argmax(axis=1)
    shares = [train.chances[classes == label].sum() for label in sorted(set(classes))]
    assert shares == pytest.approx([1 / len(shares)] * len(shares)) and len(shares) > 2
