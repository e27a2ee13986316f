"""Train a classifier on folds of ISIC 2018 Task 3 (seven diagnoses).

python3 runs/cls_train.py --backbone densenet121 --lesion-view whole --folds 0
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.augmentation import AUGMENTATIONS
from misc_utils import command_line
from models.backbones import BACKBONES
from models.losses import CLASS_WEIGHTS, CLASSIFICATION_LOSSES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # what the head stands on
    version: str = "0"  # of the run; letters, digits and -
    num_folds: int = 5  # parts of the split; 1 = one 80/20 hold-out
    folds: tuple[int, ...] | Literal["all"] = "all"  # which to hold out, one after another
    limit: int | None = None  # use only N images, the first ones of each class
    lesion_view: Literal["whole", "box", "crop", "feather"] = "crop"
    """whole: the image; box: bounding box of the lesion; crop: box with the background black;
    feather: box with a soft edge. Box and crop need `python3 runs/seg_predict.py` first, feather
    the same with `--edge feather`."""
    box_margin: float = 0.1  # box: added around it, as a share of its longer side
    image_size: int = 224  # side of the square pictures in pixels, a multiple of 32
    weights: Literal["imagenet", "none"] = "imagenet"  # start of the backbone
    dropout: float = 0.0  # before the dense layer
    regularizer: Literal["l2", "l1", "none"] = "l2"  # of the dense layer
    loss: Literal[*CLASSIFICATION_LOSSES] = "categorical_focal"  # what training minimises
    class_weight: Literal[*CLASS_WEIGHTS] = "balanced"  # weight of each class in the loss
    augmentation: Literal[*AUGMENTATIONS] = "affine"  # random flips, rotation, shifts
    batch_size: int = 16  # images per step
    epochs: int = 30  # passes over the training images
    learning_rate: float = 1e-4  # of Adam, at its highest
    schedule: Literal["plateau", "cosine"] = "plateau"  # how the learning rate falls
    plateau_factor: float = 0.25  # plateau: factor when val_loss stops falling
    plateau_patience: int = 2  # plateau: epochs without progress before that
    min_learning_rate: float = 1e-7  # plateau: the floor
    monitor: Literal["val_loss", "val_balanced_accuracy", "val_accuracy"] = "val_loss"
    """The weights of the epoch that is best by this are kept."""
    seed: int = 42  # governs split, start weights, order and augmentation
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    workers: int = 4  # threads that read and augment batches
    overwrite: bool = False  # delete runs of the same name and train anew, from the start


def main(settings: Settings, replaced: dict | None = None) -> None:
    from functools import lru_cache, partial

    import keras
    import numpy as np

    from datasets import ISIC2018, lesion_crops
    from datasets.batches import Batches
    from datasets.folds import check_fold_numbers, limit_labels, split_lesions
    from inference import kept_logits, prediction
    from models.classifier import build_classifier
    from models.losses import class_weights, classification_loss
    from models.metrics import classification_metrics
    from models.precision import use_precision
    from models.weights import load_weights, save_weights
    from reports import figures
    from training import claim, environment, fit, run_folder

    # 1 data
    k_folds = check_fold_numbers(settings.folds, settings.num_folds)
    model_data, data_dir = paths.model_data_dir(), paths.data_dir()
    if replaced is None:
        replaced = claim.check_settings(
            model_data, 3, asdict(settings), k_folds, settings.overwrite
        )
    image_ids = list(ISIC2018.list_originals(data_dir, 3, "training"))
    labels = ISIC2018.load_labels(data_dir, "training", image_ids)
    chosen = limit_labels(labels, settings.limit)
    lesions = ISIC2018.load_lesions(data_dir, image_ids)
    folds = split_lesions(chosen, lesions, settings.num_folds, settings.seed)
    crops = lesion_crops.load_view_crops(paths.submissions_dir(), "training", settings.lesion_view)
    images = ISIC2018.load_view(
        data_dir,
        "training",
        settings.image_size,
        settings.lesion_view,
        crops,
        settings.box_margin,
        needed=list(chosen),
    )
    label = np.array([labels[image_id] for image_id in images.image_ids])
    targets = np.eye(len(ISIC2018.CLASSES), dtype=np.float32)[label]
    facts = environment.describe(paths.repository) | {
        "precision": use_precision(settings.precision),
        "data_fingerprint": images.fingerprint,
        "crops_maker": crops.maker if crops else None,
    }

    @lru_cache(maxsize=1)  # one net for all folds, so that it is traced and compiled once
    def compiled_net(steps: int) -> tuple[keras.Model, fit.Start, keras.Model]:
        keras.utils.set_random_seed(settings.seed)
        model = build_classifier(
            settings.backbone,
            image_size=settings.image_size,
            weights=settings.weights,
            pretrained_dir=model_data / "pretrained",
            num_classes=len(ISIC2018.CLASSES),
            dropout=settings.dropout,
            regularizer=settings.regularizer,
        )
        model.compile(
            fit.build_optimizer(settings.learning_rate, settings.schedule, steps),
            classification_loss(settings.loss),
            metrics=classification_metrics(len(ISIC2018.CLASSES)),
        )
        return model, fit.Start(model), prediction.logits_of(model)

    def train_fold(k_fold: int, run: run_folder.Run) -> None:
        # 2 batches and model
        train_rows = images.rows(run_folder.training_images(folds, k_fold))
        held_out_rows = images.rows(run_folder.held_out_images(folds, k_fold))
        train = Batches(
            images.array,
            targets,
            train_rows,
            settings.batch_size,
            training=True,
            augmentation=settings.augmentation,
            seed=settings.seed,
            workers=settings.workers,
        )
        held_out = Batches(
            images.array, targets, held_out_rows, settings.batch_size, workers=settings.workers
        )
        weights = class_weights(label[train_rows], len(ISIC2018.CLASSES), settings.class_weight)
        # the steps are part of a compiled schedule; folds differ in them at most by some per epoch
        steps = len(train) * settings.epochs if settings.schedule == "cosine" else 0
        model, start, logits = compiled_net(steps)

        # 3 train
        claim.begin_run(run, folds)
        print(
            f"{run.name}: {len(train_rows)} images to train on, {len(held_out_rows)} held out, "
            f"{model.count_params():,} parameters, on {facts['device']}"
        )
        progress = fit.fit_fold(
            model,
            start,
            train,
            held_out,
            run,
            partial(save_weights, model),
            class_weight=weights,
            verbose=command_line.verbosity(),
        )

        # 4 draw the course, keep what the best weights say of the held-out images, and report
        figures.draw_history(run.file("history.png"), progress.columns, run.name)
        load_weights(model, run.weights)
        net = prediction.Net(logits, images)
        kept_logits.keep_logits(
            run,
            "fold",
            1,
            run_folder.held_out_images(folds, k_fold),
            partial(prediction.predict_logits, [net], batch_size=settings.batch_size, views=1),
        )
        best, best_epoch = progress.scores, progress.best_epoch
        trained = {"best_epoch": best_epoch, "best": best, "seconds": round(progress.seconds)}
        run_folder.finish_run(run, trained)
        print(
            f"{run.name}: best epoch {best_epoch + 1} of {settings.epochs}; accuracy "
            f"{best['val_accuracy']:.3f}, balanced accuracy "
            f"{best['val_balanced_accuracy']:.3f}; {run.folder}"
        )

    for k_fold in k_folds:
        # a fold that is finished, or that another process trains, is passed over
        with claim.claim_run(
            model_data, 3, k_fold, asdict(settings), folds, facts, replaced
        ) as run:
            if run:
                train_fold(k_fold, run)
    which = f"--backbone {settings.backbone} --version {settings.version} --k-fold {k_folds[0]}"
    print(f"next: python3 runs/cls_eval.py {which}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
