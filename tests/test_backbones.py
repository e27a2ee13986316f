import subprocess
import sys
from pathlib import Path

import pytest

from misc_utils.errors import UserError
from models.backbones import BACKBONES, backbone, check_image_size

ROOT = Path(__file__).resolve().parent.parent


def test_the_rows_the_specification_names_are_there():
    assert list(BACKBONES) == [
        "unet",
        "tiny",
        "vgg16",
        "vgg19",
        "densenet121",
        "densenet169",
        "densenet201",
        "inception_v3",
        "resnet50",
        "xception",
        "efficientnet_v2_b0",
        "efficientnet_v2_s",
        "convnext_tiny",
        "mobilenet_v3",
        "efficientnet_lite0",
    ]
    assert all(row.name == name for name, row in BACKBONES.items())


@pytest.mark.parametrize("row", BACKBONES.values(), ids=list(BACKBONES))
def test_skips_come_finest_first_and_lie_above_the_bottom(row):
    levels = [level for level, _ in row.skips] + [row.bottom[0]]
    assert levels == sorted(set(levels))
    assert row.minimum_size % 32 == 0


def test_only_our_own_blocks_have_no_imagenet_weights():
    without = [name for name, row in BACKBONES.items() if row.application is None]
    assert without == ["unet", "tiny"]


def test_densenet_is_tapped_behind_relu_and_vgg_before_its_last_pooling():
    for name in ("densenet121", "densenet169", "densenet201"):
        layers = [layer for _, layer in (*BACKBONES[name].skips, BACKBONES[name].bottom)]
        assert all(layer.endswith("relu") for layer in layers)
    assert BACKBONES["vgg16"].bottom == (4, "block5_conv3")
    assert BACKBONES["vgg19"].bottom == (4, "block5_conv4")


def test_an_unknown_name_is_refused_with_the_list():
    assert backbone("vgg16") is BACKBONES["vgg16"]
    with pytest.raises(UserError, match=r"'vgg61'.*tiny.*vgg16.*mobilenet_v3"):
        backbone("vgg61")


def test_image_sizes_a_backbone_cannot_take_are_refused():
    for name, row in BACKBONES.items():
        check_image_size(name, row.minimum_size)
        check_image_size(name, 224)
    with pytest.raises(UserError, match="image_size 64: xception takes multiples of 32 from 96 on"):
        check_image_size("xception", 64)
    for size in (0, 100, -32):
        with pytest.raises(UserError, match=f"image_size {size}: tiny takes multiples of 32"):
            check_image_size("tiny", size)
    with pytest.raises(UserError, match="Unknown backbone"):
        check_image_size("vgg61", 64)


def test_the_tables_are_read_without_keras():
    code = (
        "import sys, models.backbones, models.losses;"
        "assert models.losses.SEGMENTATION_LOSSES and models.losses.CLASS_WEIGHTS;"
        "sys.exit('keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
