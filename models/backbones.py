"""Table of encoders: which network, how its input is scaled, from which layers the skips come.

In: the name of a row. Out: a `Backbone`, plain strings and numbers, without loading Keras.
Level i is a feature map of image_size / 2**i pixels, level 0 being the finest. A skip is the final
output of the stage of that size: after batch normalisation, activation and residual sum.
"""

from dataclasses import dataclass

from misc_utils.errors import UserError
from misc_utils.messages import choose

KERAS = "keras.applications"


@dataclass(frozen=True)
class Backbone:
    """One row: a network with ImageNet weights, or a stack of convolution blocks of our own.

    Automatic layer names (`activation_7`) depend on what was built before. The encoder renames such
    layers to `backbone_<class>_<rank>`; these names are used here.
    """

    name: str
    skips: tuple[tuple[int, str], ...]  # (level, layer), finest first
    bottom: tuple[int, str]  # (level, layer) of the coarsest feature map
    application: str | None = None  # constructor of the network; None: our own blocks
    module: str = KERAS  # where the constructor is
    preprocess: str | None = None  # module of preprocess_input; None: the network scales by itself
    minimum_size: int = 32  # smallest image side the network takes, a multiple of 32
    filters: tuple[int, ...] = ()  # our own blocks only: filters of each level


def _own(name: str, filters: tuple[int, ...]) -> Backbone:
    """Row of an encoder of our own: one block per number of filters, with pooling in between."""
    layers = tuple((level, f"encoder{level}_relu2") for level in range(len(filters)))
    return Backbone(name=name, filters=filters, skips=layers[:-1], bottom=layers[-1])


def _vgg(name: str, application: str, convolutions: int) -> Backbone:
    """Row of a VGG; `convolutions` is the number in each of the blocks 3, 4 and 5."""
    layers = [f"block{i}_conv{2 if i < 3 else convolutions}" for i in range(1, 6)]
    return Backbone(
        name=name,
        application=application,
        preprocess=name,
        skips=tuple(enumerate(layers[:4])),
        bottom=(4, layers[4]),  # not block5_pool
    )


def _densenet(name: str, application: str) -> Backbone:
    """Row of a DenseNet: the ends of the blocks, after their batch normalisation and relu."""
    return Backbone(
        name=name,
        application=application,
        preprocess="densenet",
        skips=((1, "conv1_relu"), (2, "pool2_relu"), (3, "pool3_relu"), (4, "pool4_relu")),
        bottom=(5, "relu"),
    )


_ROWS = (
    _own("unet", filters=(32, 64, 128, 256, 512)),
    _own("tiny", filters=(8, 16, 32, 64)),
    _vgg("vgg16", "VGG16", convolutions=3),
    _vgg("vgg19", "VGG19", convolutions=4),
    _densenet("densenet121", "DenseNet121"),
    _densenet("densenet169", "DenseNet169"),
    _densenet("densenet201", "DenseNet201"),
    Backbone(
        name="inception_v3",
        application="InceptionV3",
        preprocess="inception_v3",
        minimum_size=96,
        # convolutions without padding: maps are a few pixels smaller than their level
        skips=(
            (1, "backbone_activation_2"),
            (2, "backbone_activation_4"),
            (3, "mixed2"),
            (4, "mixed7"),
        ),
        bottom=(5, "mixed10"),
    ),
    Backbone(
        name="resnet50",
        application="ResNet50",
        preprocess="resnet",
        skips=(
            (1, "conv1_relu"),
            (2, "conv2_block3_out"),
            (3, "conv3_block4_out"),
            (4, "conv4_block6_out"),
        ),
        bottom=(5, "conv5_block3_out"),
    ),
    Backbone(
        name="xception",
        application="Xception",
        preprocess="xception",
        minimum_size=96,
        # its stages end with the pooling; these are the last activations before it
        skips=(
            (1, "block1_conv2_act"),
            (2, "block3_sepconv2_act"),
            (3, "block4_sepconv2_act"),
            (4, "block13_sepconv2_act"),
        ),
        bottom=(5, "block14_sepconv2_act"),
    ),
    Backbone(
        name="efficientnet_v2_b0",
        application="EfficientNetV2B0",
        skips=(
            (1, "block1a_project_activation"),
            (2, "block2b_add"),
            (3, "block3b_add"),
            (4, "block5e_add"),
        ),
        bottom=(5, "top_activation"),
    ),
    Backbone(
        name="efficientnet_v2_s",
        application="EfficientNetV2S",
        skips=((1, "block1b_add"), (2, "block2d_add"), (3, "block3d_add"), (4, "block5i_add")),
        bottom=(5, "top_activation"),
    ),
    Backbone(
        name="convnext_tiny",
        application="ConvNeXtTiny",
        # residual sums after 3, 3 and 9 blocks; the stem halves twice, so there is no level 1
        skips=((2, "backbone_add_2"), (3, "backbone_add_5"), (4, "backbone_add_14")),
        bottom=(5, "backbone_layer_normalization_0"),
    ),
    Backbone(
        name="mobilenet_v3",
        application="MobileNetV3Large",
        skips=(
            (1, "expanded_conv_add"),
            (2, "expanded_conv_2_add"),
            (3, "expanded_conv_5_add"),
            (4, "expanded_conv_11_add"),
        ),
        bottom=(5, "backbone_activation_19"),
    ),
    Backbone(
        name="efficientnet_lite0",
        application="EfficientNetLite0",
        module="models.efficientnet_lite",
        skips=(
            (1, "block0_project_norm"),
            (2, "block2_add"),
            (3, "block4_add"),
            (4, "block10_add"),
        ),
        bottom=(5, "top_relu"),
    ),
)

BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}


def check_image_size(backbone_name: str, image_size: int) -> None:
    """UserError unless the backbone takes square images of `image_size` pixels a side.

    Every backbone needs a multiple of 32, some a minimum above that; the message says which. Also
    UserError: there is no such backbone.
    """
    row = backbone(backbone_name)
    if image_size % 32 or image_size < row.minimum_size:
        raise UserError(
            f"image_size {image_size}: {row.name} takes multiples of 32 from {row.minimum_size} on."
        )


def weights_in_force(backbone_name: str, weights: str) -> str:
    """What a net really starts from: `none` where there are no ImageNet weights of the backbone."""
    known = weights != "imagenet" or backbone(backbone_name).application
    return weights if known else "none"


def names_file(weights: str) -> bool:
    """Whether `weights` is a weight file of one's own, not a row of WEIGHTS."""
    return weights.endswith(".weights.h5")


def backbone(name: str) -> Backbone:
    """Row of `name`; UserError listing the rows if there is none."""
    return choose(BACKBONES, name, "backbone")
