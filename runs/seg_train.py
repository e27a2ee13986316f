"""Train a U-Net on folds of ISIC 2018 Task 1 (lesion boundary).

python3 runs/seg_train.py --backbone vgg16 --folds 0 1
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from datasets.augmentation import AUGMENTATIONS
from misc_utils import command_line
from models.backbones import BACKBONES
from models.losses import SEGMENTATION_LOSSES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet169"  # encoder of the U-Net
    version: str = "0"  # of the run; letters, digits and -
    num_folds: int = 5  # parts of the split; 1 = one 80/20 hold-out
    folds: tuple[int, ...] | Literal["all"] = "all"  # which to hold out, one after another
    limit: int | None = None  # use only the first N images, in sorted order of the ids
    image_size: int = 224  # side of the square pictures in pixels, a multiple of 32
    weights: Literal["imagenet", "none"] = "imagenet"  # start of the encoder
    up: Literal["deconv", "upsample", "subpixel"] = "deconv"  # the decoder's way up
    batch_norm: bool = True  # batch normalisation in the decoder
    loss: Literal[*SEGMENTATION_LOSSES] = "binary_crossentropy"  # what training minimises
    augmentation: Literal[*AUGMENTATIONS] = "affine"  # random flips, rotation, shifts
    batch_size: int = 32  # images per step
    epochs: int = 35  # passes over the training images
    learning_rate: float = 1e-3  # of Adam, at its highest
    schedule: Literal["plateau", "cosine"] = "plateau"  # how the learning rate falls
    plateau_factor: float = 0.5  # plateau: factor when val_loss stops falling
    plateau_patience: int = 2  # plateau: epochs without progress before that
    min_learning_rate: float = 1e-7  # plateau: the floor
    monitor: Literal["val_threshold_jaccard", "val_jaccard", "val_loss"] = "val_threshold_jaccard"
    """The weights of the epoch that is best by this are kept."""
    seed: int = 42  # governs split, start weights, order and augmentation
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU
    workers: int = 4  # threads that read and augment batches
    overwrite: bool = False  # delete runs of the same name and train anew, from the start


def main(settings: Settings) -> None:
    from functools import lru_cache, partial

    import keras

    from datasets import ISIC2018
    from datasets.batches import Batches
    from datasets.folds import check_fold_numbers, limit_images, split_images
    from inference import kept_logits, prediction
    from models.losses import segmentation_loss
    from models.metrics import segmentation_metrics
    from models.precision import use_precision
    from models.unet import build_segmenter
    from models.weights import load_weights, save_weights
    from reports import figures
    from training import claim, environment, fit, run_folder

    # 1 data
    k_folds = check_fold_numbers(settings.folds, settings.num_folds)
    model_data = paths.model_data_dir()
    replaced = claim.check_settings(model_data, 1, asdict(settings), k_folds, settings.overwrite)
    images = ISIC2018.load_images(paths.data_dir(), 1, "training", settings.image_size)
    masks = ISIC2018.load_masks(paths.data_dir(), "training", settings.image_size, of=images)
    image_ids = limit_images(images.image_ids, settings.limit)
    folds = split_images(image_ids, settings.num_folds, settings.seed)
    facts = environment.describe(paths.repository) | {
        "precision": use_precision(settings.precision),
        "data_fingerprint": images.fingerprint,
        "truth_fingerprint": masks.fingerprint,
    }

    @lru_cache(maxsize=1)  # one net for all folds, so that it is traced and compiled once
    def compiled_net(steps: int) -> tuple[keras.Model, fit.Start, keras.Model]:
        keras.utils.set_random_seed(settings.seed)
        model = build_segmenter(
            settings.backbone,
            image_size=settings.image_size,
            weights=settings.weights,
            pretrained_dir=model_data / "pretrained",
            up=settings.up,
            batch_norm=settings.batch_norm,
        )
        model.compile(
            fit.build_optimizer(settings.learning_rate, settings.schedule, steps),
            segmentation_loss(settings.loss),
            metrics=segmentation_metrics(),
        )
        return model, fit.Start(model), prediction.logits_of(model)

    def train_fold(k_fold: int, run: run_folder.Run) -> None:
        # 2 batches and model
        train_rows = images.rows(run_folder.training_images(folds, k_fold))
        held_out_rows = images.rows(run_folder.held_out_images(folds, k_fold))
        train = Batches(
            images.array,
            masks.array,
            train_rows,
            settings.batch_size,
            training=True,
            augmentation=settings.augmentation,
            seed=settings.seed,
            workers=settings.workers,
        )
        held_out = Batches(
            images.array, masks.array, held_out_rows, settings.batch_size, workers=settings.workers
        )
        # the steps are part of a compiled schedule; folds differ in them at most by one per epoch
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
            f"{run.name}: best epoch {best_epoch + 1} of {settings.epochs}; at "
            f"{settings.image_size} px mean jaccard {best['val_jaccard']:.3f}, threshold jaccard "
            f"{best['val_threshold_jaccard']:.3f}; {run.folder}"
        )

    for k_fold in k_folds:
        # a fold that is finished, or that another process trains, is passed over
        with claim.claim_run(
            model_data, 1, k_fold, asdict(settings), folds, facts, replaced
        ) as run:
            if run:
                train_fold(k_fold, run)
    which = f"--backbone {settings.backbone} --version {settings.version} --k-fold {k_folds[0]}"
    print(f"next: python3 runs/seg_eval.py {which}")


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
