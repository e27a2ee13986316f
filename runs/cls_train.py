"""Train a classifier on folds: the seven diagnoses of ISIC 2018 Task 3, or any classes.

python3 runs/cls_train.py --backbone densenet121 --lesion-view whole --folds 0
python3 runs/cls_train.py --dataset folder --images photos --table table.csv --lesion-view whole
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.augmentation import AUGMENTATIONS, MIXES
from datasets.own_settings import NOT_TOLD, OwnFolder
from datasets.preprocessing import PREPROCESSING
from misc_utils import command_line
from models.backbones import BACKBONES
from models.losses import CLASS_WEIGHTS, CLASSIFICATION_LOSSES
from training.loggers import LOGGERS
from training.recipes import CLASSIFICATION


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md; folder: your own images
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    backbone: Literal[*BACKBONES] = "densenet201"  # pretrained encoder
    version: str = "0"  # of the run; letters, digits and -
    num_folds: int = 5  # parts of the split; 1 = one 80/20 hold-out
    folds: command_line.Folds = "all"  # which to hold out, one after another
    limit: command_line.Limit = None  # use only N images: the first of each class, in proportion
    near_copies: bool = False  # images that find_near_copies.py listed count as one lesion
    lesion_view: Literal["whole", "box", "crop", "feather"] = "crop"
    """what the net sees; whole: the image; box: bounding box of the lesion; crop: box with the
    background black; feather: box with a soft edge; run seg_predict.py before box and crop, with
    --edge feather before feather"""
    box_margin: float = 0.1  # box: added around it, as a share of its longer side
    preprocess: tuple[Literal[*PREPROCESSING], ...] = ()  # steps on each picture, in this order
    metadata: bool = False  # age, sex and body site as a second input
    image_size: int = 224  # side of the square pictures in pixels, a multiple of 32
    weights: command_line.Weights = "imagenet"
    """where the backbone starts; a file: see docs/guide.md"""
    freeze: bool = False  # train the layers behind the encoder alone; it sees each image once
    dropout: float = 0.0  # before the dense layer
    regularizer: Literal["l2", "l1", "none"] = "l2"  # of the dense layer
    loss: Literal["auto", *CLASSIFICATION_LOSSES] = "auto"
    """what training minimises; auto: categorical_focal"""
    label_smoothing: float = 0.0  # share of each label that is spread over all classes
    class_weight: Literal[*CLASS_WEIGHTS] = "balanced"  # weight of each class in the loss
    sampling: Literal[*CLASS_WEIGHTS] = "ones"
    """how often an epoch draws images of each class; ones: each image once"""
    augmentation: Literal[*AUGMENTATIONS] = "affine"  # random flips, rotation, shifts ...
    mix: Literal[*MIXES] = "none"  # mixup, cutmix: two images become one, and so do their labels
    batch_size: int = 16  # images per step
    patience: command_line.Limit = None  # stop after N epochs without a better one by the monitor
    epochs: int = 30  # passes over the training images
    learning_rate: float = 1e-4  # of Adam, at its highest
    weight_decay: float = 0.0  # above 0: AdamW instead of Adam
    average_weights: float = 0.0
    """share that a moving average of the weights keeps at each step, such as 0.998; it is what is
    scored and kept; 0: none"""
    schedule: Literal["plateau", "cosine"] = "plateau"  # how the learning rate falls
    plateau_factor: float = 0.25  # plateau: factor when val_loss stops falling
    plateau_patience: int = 2  # plateau: epochs without progress before it falls
    min_learning_rate: float = 1e-7  # plateau: the floor
    monitor: Literal["auto", "val_loss", "val_balanced_accuracy", "val_accuracy"] = "auto"
    """the weights of the epoch that is best by this are kept; auto: val_loss"""
    seed: int = 42  # governs split, start weights, order and augmentation
    split_seed: command_line.Limit = None  # governs the split alone; None: as --seed
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    devices: command_line.Devices = 1
    """that share each batch; all: of this machine; hosts: of all machines, see docs/guide.md; jax
    only"""
    workers: int = 4  # threads that read and augment batches
    log_to: tuple[Literal[*LOGGERS], ...] = ()  # programs that are told of each epoch
    wait: bool = False  # for a fold that another process is training, instead of skipping it
    overwrite: bool = False  # delete runs of these folds and train from scratch


def main(settings: Settings) -> None:
    from datasets.catalogue import open_dataset
    from training.loop import plan_folds

    # 1 which folds; settings that differ from those of earlier runs are refused
    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    train(plan_folds(paths.model_data_dir(), 3, settings), dataset)


def train(plan, dataset) -> None:
    """Train the folds of a training.loop.Plan on a datasets.dataset.Dataset."""
    from contextlib import closing

    import numpy as np

    from datasets import lesion_crops, metadata
    from datasets.dataset import check_steps
    from datasets.folds import limit_labels, split_lesions
    from deploy.kept_features import keep_features
    from inference import kept_logits
    from misc_utils.errors import UserError
    from models.classifier import build_classifier
    from models.encoder import check_weights
    from models.losses import class_weights, classification_loss
    from models.metrics import classification_metrics
    from reports import charts
    from training import run_folder
    from training.loop import TrainingData, train_folds

    settings: Settings = plan.settings
    check_weights(settings.backbone, settings.image_size, settings.weights, paths.pretrained_dir())

    check_steps(settings.preprocess, moved=settings.lesion_view == "whole")
    if settings.freeze and (settings.augmentation, settings.mix) != ("none", "none"):
        raise UserError(
            "--freeze: the encoder sees each image once, so nothing can be augmented or mixed. Add "
            "--augmentation none --mix none."
        )

    # 2 data
    image_ids = list(dataset.list_images(3, "training"))
    labels = dataset.load_labels("training", image_ids)
    classes, num_classes = dataset.classes, len(dataset.classes)
    lesions = dataset.load_lesions(image_ids, 3, settings.near_copies)
    limited = limit_labels(labels, settings.limit)
    split_seed = settings.seed if settings.split_seed is None else settings.split_seed
    split = settings.num_folds, split_seed
    folds = split_lesions(limited, lesions, *split, classes, dataset.group)
    plan.check_folds(folds)  # before the first image is decoded
    sites = None
    if settings.metadata:
        sites = metadata.list_sites(dataset.read_metadata("training")[0])
    flags = run_folder.segmenter_flags(plan.model_data, settings.limit, dataset.name)
    crops = lesion_crops.load_view_crops(
        paths.submissions_dir(), "training", settings.lesion_view, flags, dataset.name
    )
    images = dataset.load_view(
        "training",
        settings.image_size,
        settings.lesion_view,
        crops,
        settings.box_margin,
        list(limited),
        settings.preprocess,
    )
    inputs = dataset.load_inputs(images, "training", sites)
    label = np.array([labels[image_id] for image_id in images.image_ids])
    targets = np.eye(num_classes, dtype=np.float32)[label]
    facts = {"classes": list(classes), "group": dataset.group}
    facts |= {"crops_maker": crops and crops.maker, "crops_cut": crops and crops.cut}
    facts |= {"sites": list(sites)} if sites is not None else {}
    data = TrainingData(inputs, targets, folds, facts)

    # 3 net, loss and metrics
    def build():
        return build_classifier(
            settings.backbone,
            image_size=settings.image_size,
            weights=settings.weights,
            pretrained_dir=paths.pretrained_dir(),
            num_classes=num_classes,
            num_metadata=0 if sites is None else metadata.width(sites),
            dropout=settings.dropout,
            regularizer=settings.regularizer,
        )

    def compile_net(model, optimizer):
        loss = classification_loss(settings.loss, settings.label_smoothing)
        model.compile(optimizer, loss, metrics=classification_metrics(num_classes))

    def weights_of(rows):
        return class_weights(label[rows], num_classes, settings.class_weight)

    def chances_of(rows):
        if settings.sampling == "ones":
            return None
        weights = class_weights(label[rows], num_classes, settings.sampling)
        return weights[label[rows]] / len(rows)

    # 4 train each fold; keep what its best weights say of the images it held out
    folds_in_turn = train_folds(plan, data, build, compile_net, weights_of, chances_of)
    with closing(folds_in_turn) as trained_folds:
        for fold in trained_folds:
            charts.write_history(fold.run.file("history.png"), fold.run.name, fold.progress.columns)
            kept_logits.keep_held_out(fold, inputs, settings.batch_size)
            keep_features(fold.run, fold.logits_model, inputs, folds, settings.batch_size)
            fold.finish()
            best = fold.progress.scores
            print(
                f"{fold.run.name}: best epoch {fold.progress.best_epoch + 1} of {settings.epochs}; "
                f"accuracy {best['val_accuracy']:.3f}, balanced accuracy "
                f"{best['val_balanced_accuracy']:.3f}; {fold.run.folder}"
            )
            print(fold.progress.better_by("val_balanced_accuracy"), end="")
    print(f"next: {plan.next_command}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, recipes=CLASSIFICATION)
