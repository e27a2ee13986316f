import numpy as np
import pytest

from misc_utils.errors import UserError
from models.classifier import build_classifier
from models.trained import load_classifier, load_segmenter
from models.unet import build_segmenter
from models.weights import save_weights

OLD = {"backbone": "tiny", "image_size": 32, "dropout": 0.0, "regularizer": "l2"}  # as ever


@pytest.mark.parametrize("number", [7, 8])
def test_a_classifier_comes_back_with_its_classes(tmp_path, number):
    file = tmp_path / "run.weights.h5"
    model = build_classifier("tiny", image_size=32, weights="none", num_classes=number)
    save_weights(model, file)
    again = load_classifier(OLD, file, number)
    assert again.output.shape == (None, number)
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    if number == 7:  # of the challenge: what is loaded where no number is given
        load_classifier(OLD, file)
    else:
        with pytest.raises(UserError, match=r"\(8,\), not \(7,\)"):
            load_classifier(OLD, file)


def test_runs_that_do_not_say_how_wide_their_decoder_is_have_the_usual_one(tmp_path):
    settings = {"backbone": "tiny", "image_size": 32, "up": "deconv", "batch_norm": False}
    for said, filters in (({}, 32), ({"decoder_filters": 4}, 4)):
        model = build_segmenter(
            "tiny", image_size=32, weights="none", batch_norm=False, decoder_filters=filters
        )
        save_weights(model, tmp_path / "a.weights.h5")
        found = load_segmenter(settings | said, tmp_path / "a.weights.h5")
        assert found.get_layer("decoder0_conv1").filters == filters
