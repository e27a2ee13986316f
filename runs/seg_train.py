"""Train a U-Net on folds: Task 1 (lesion boundary) or Task 2 (five attributes) of ISIC 2018.

python3 runs/seg_train.py --backbone vgg16 --folds 0 1
python3 runs/seg_train.py --dataset folder --images photos --masks masks
"""

from dataclasses import dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.augmentation import AUGMENTATIONS
from datasets.own_settings import NOT_TOLD, OwnFolder
from datasets.preprocessing import PREPROCESSING
from misc_utils import command_line
from models.backbones import BACKBONES
from models.losses import SEGMENTATION_LOSSES
from training.loggers import LOGGERS
from training.recipes import SEGMENTATION


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    dataset: command_line.Dataset = "isic2018"  # see docs/data.md; folder: your own images
    own: command_line.Unprefixed[OwnFolder] = NOT_TOLD
    task: Literal[1, 2] = 1  # 1: the lesion; 2: globules, milia-like cysts, network ...
    backbone: Literal[*BACKBONES] = "densenet169"  # encoder of the U-Net
    version: str = "0"  # of the run; letters, digits and -
    num_folds: int = 5  # parts of the split; 1 = one 80/20 hold-out
    folds: command_line.Folds = "all"  # which to hold out, one after another
    limit: command_line.Limit = None  # use only the first N images by id
    near_copies: bool = False  # images that find_near_copies.py listed count as one lesion
    preprocess: tuple[Literal[*PREPROCESSING], ...] = ()  # steps on each picture, in this order
    image_size: int = 224  # side of the square pictures in pixels, a multiple of 32
    weights: command_line.Weights = "imagenet"
    """where the encoder starts; a file: see docs/guide.md"""
    up: Literal["deconv", "upsample", "subpixel"] = "deconv"  # how the decoder enlarges maps
    batch_norm: bool = True  # batch normalisation in the decoder
    decoder_filters: int = 32  # of its finest level; coarser ones have up to 16 times as many
    loss: Literal["auto", *SEGMENTATION_LOSSES] = "auto"
    """what training minimises; auto: binary_crossentropy, for Task 2 binary_crossentropy_jaccard"""
    augmentation: Literal[*AUGMENTATIONS] = "affine"  # random flips, rotation, shifts ...
    batch_size: int = 32  # images per step
    patience: command_line.Limit = None  # stop after N epochs without a better one by the monitor
    epochs: int = 35  # passes over the training images
    learning_rate: float = 1e-3  # of Adam, at its highest
    weight_decay: float = 0.0  # above 0: AdamW instead of Adam
    average_weights: float = 0.0
    """share that a moving average of the weights keeps at each step, such as 0.998; it is what is
    scored and kept; 0: none"""
    schedule: Literal["plateau", "cosine"] = "plateau"  # how the learning rate falls
    plateau_factor: float = 0.5  # plateau: factor when val_loss stops falling
    plateau_patience: int = 2  # plateau: epochs without progress before it falls
    min_learning_rate: float = 1e-7  # plateau: the floor
    monitor: Literal["auto", "val_threshold_jaccard", "val_jaccard", "val_loss"] = "auto"
    """the weights of the epoch that is best by this are kept; auto: val_threshold_jaccard, for Task
    2 val_jaccard"""
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
    from contextlib import closing

    from datasets.catalogue import open_dataset
    from datasets.dataset import Inputs
    from datasets.folds import limit_images, split_images
    from datasets.tasks import TASKS
    from inference import kept_logits
    from models.encoder import check_weights
    from models.losses import segmentation_loss
    from models.metrics import segmentation_metrics
    from models.unet import build_segmenter
    from reports import charts
    from training.loop import TrainingData, plan_folds, train_folds

    # 1 which folds; settings that differ from those of earlier runs are refused
    dataset = open_dataset(paths.data_dir(), settings.dataset, settings.own)
    plan = plan_folds(paths.model_data_dir(), settings.task, settings)
    settings, task, channels = plan.settings, settings.task, TASKS[settings.task].channels
    check_weights(settings.backbone, settings.image_size, settings.weights, paths.pretrained_dir())

    # 2 data
    size = settings.image_size
    image_ids = limit_images(dataset.list_images(task, "training"), settings.limit)
    lesions = dataset.load_lesions(image_ids, task, settings.near_copies)
    split_seed = settings.seed if settings.split_seed is None else settings.split_seed
    folds = split_images(image_ids, settings.num_folds, split_seed, lesions)
    plan.check_folds(folds)  # before the first image is decoded
    images, masks = dataset.load_pairs(task, "training", size, settings.preprocess)
    inputs = Inputs(images)
    facts = {"truth_fingerprint": masks.fingerprint, "group": dataset.group}
    data = TrainingData(inputs, masks, folds, facts)

    # 3 net, loss and metrics
    def build():
        return build_segmenter(
            settings.backbone,
            image_size=size,
            weights=settings.weights,
            pretrained_dir=paths.pretrained_dir(),
            up=settings.up,
            batch_norm=settings.batch_norm,
            decoder_filters=settings.decoder_filters,
            channels=len(channels),
        )

    def compile_net(model, optimizer):
        metrics = segmentation_metrics(len(channels))
        model.compile(optimizer, segmentation_loss(settings.loss), metrics=metrics)

    # 4 train each fold; keep what its best weights say of the images it held out
    with closing(train_folds(plan, data, build, compile_net)) as trained_folds:
        for fold in trained_folds:
            charts.write_history(fold.run.file("history.png"), fold.run.name, fold.progress.columns)
            kept_logits.keep_held_out(fold, inputs, settings.batch_size)
            fold.finish()
            best = fold.progress.scores
            said = f"mean jaccard {best['val_jaccard']:.3f}"
            if task == 1:
                said += f", threshold jaccard {best['val_threshold_jaccard']:.3f}"
            print(
                f"{fold.run.name}: best epoch {fold.progress.best_epoch + 1} of {settings.epochs}; "
                f"at {size} px {said}; {fold.run.folder}"
            )
    print(f"next: {plan.next_command}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, recipes=SEGMENTATION)
