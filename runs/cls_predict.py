"""Classify a set of images and write the submission table.

python3 runs/cls_predict.py --backbone densenet121 --pred-set test
python3 runs/cls_predict.py --backbone densenet121 --ensemble vgg16:0 --no-browse
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the runs that predict
    version: str = "0"  # of the runs
    ensemble: command_line.Runs = ()  # further runs to average with, such as vgg16:0
    pred_set: Literal["training", "validation", "test"] = "test"  # Task 3 images to classify
    limit: command_line.Limit = None
    """only the first N by id; with known labels the first of each class, in proportion"""
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    tuned: bool = True  # use the temperature and weights that cls_tune chose
    browse: bool = True  # also write HTML pages: image, crop, probabilities
    batch_size: int = 16  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the runs were trained on
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    import numpy as np
    from tqdm import tqdm

    from datasets.tasks import set_name
    from evaluation import calibration, tuned
    from inference import class_table, ensemble, kept_logits, submission
    from inference.inputs import classifier_inputs, open_dataset_of
    from inference.scope import Scope
    from misc_utils import provenance

    # 1 runs and images, and which run predicts which
    runs = ensemble.find_ensemble(
        paths.model_data_dir(),
        3,
        settings.backbone,
        settings.version,
        settings.ensemble,
        dataset=settings.dataset,
    )
    scope = Scope(runs, "fold", settings.tta)
    found = tuned.load_tuned(scope, settings.tuned)
    chosen = found.chosen if found else None
    dataset = open_dataset_of(runs, paths.data_dir())
    submissions, images, classes = paths.submissions_dir(), settings.pred_set, runs.classes
    labels = dataset.known_labels(images)
    originals = dataset.list_images(3, images)
    image_ids = dataset.limited(3, images, list(originals), settings.limit)
    inputs, crops = classifier_inputs(
        dataset, submissions, runs, images, needed=image_ids, limit=settings.limit
    )
    own_set = images == "training"
    related = dataset.find_related(3, images, trained_task=3)
    assignment = ensemble.assign_runs(runs, image_ids, own_set, related)
    print(ensemble.described(runs, assignment))
    if found:
        print(f"tuned values ({found.file}): {found}")

    # 2 predict; the journal holds the logits of what is done
    used = asdict(settings) | {"tuned": chosen and chosen.to_json()}
    made_by = ensemble.provenance(used, runs, assignment)
    name, data = (
        submission.class_file(images, dataset.name),
        " ".join(sorted(seen.fingerprint for seen in inputs.values())),
    )
    with provenance.claimed(submissions, name):
        journal = provenance.open_journal(submissions, name, made_by, data, settings.overwrite)
        done = set(journal.rows)
        if done:
            print(f"{len(done)} of {assignment.count} are classified already")
        weights, size = tuned.member_weights(runs, chosen), settings.batch_size
        batches = kept_logits.stream_logits(scope, assignment, weights, inputs, size, done)
        bar = {"initial": len(done), "unit": "image"}
        with tqdm(
            desc=set_name(3, images, dataset.name), total=assignment.count, **bar
        ) as progress:
            for batch_ids, logits in batches:
                for image_id, row in zip(batch_ids, logits, strict=True):
                    journal.add(image_id, {"logits": row.tolist()})
                progress.update(len(batch_ids))
        predicted = sorted(journal.rows)
        mean = np.array([journal.rows[image_id]["logits"] for image_id in predicted])
        probability = calibration.blend(mean[None], chosen and replace(chosen, weights=(1.0,)))

        # 3 write
        expected = expected_images(settings, dataset, predicted, list(labels))
        submitted, rows = class_table.add_missing_image(predicted, probability, expected)
        if len(submitted) > len(predicted):
            print(f"{submitted[-1]} has no image and weight 0 in the score: it gets the mean row")
        file = submission.write_classes(
            submissions,
            name,
            dataset.submission(submitted, rows),
            expected_ids=expected,
            made_by=made_by,
            overwrite=settings.overwrite,
        )
        journal.close()
        as_json = file.with_name(f"{set_name(3, images, dataset.name)}_classes.json")
        class_table.write_json(as_json, predicted, probability, classes)
        print(f"{len(predicted)} images classified: {file}, {as_json.name}")
        truth = {image_id: classes[label] for image_id, label in labels.items()}
        write_pages(settings, runs, originals, crops, predicted, probability, truth)


def write_pages(settings: Settings, runs, originals, crops, image_ids, probability, truth) -> None:
    """Replace the pages of an earlier table: image, crop and probabilities (N, C) of each image."""
    import shutil

    from tqdm import tqdm

    from datasets.pictures import read_original
    from datasets.tasks import set_name
    from reports import browse

    folder = set_name(3, settings.pred_set, settings.dataset) + "_browse"
    folder = paths.submissions_dir() / folder
    shutil.rmtree(folder, ignore_errors=True)
    if not settings.browse:
        return
    progress = tqdm(total=len(image_ids), desc="pages", unit="image")

    def read(image_id: str):
        progress.update()
        crop = read_original(crops[image_id]) if image_id in crops else None
        return read_original(originals[image_id]), crop

    title = f"Task 3, {settings.pred_set} set: {runs.name}"
    with progress:
        index = browse.write_pages(folder, title, image_ids, probability, runs.classes, truth, read)
    print(f"to look at: {index}")


def expected_images(
    settings: Settings, dataset, predicted: list[str], labelled: list[str]
) -> list[str]:
    """Ids the submission must have: those of the truth where it is known, else the predicted."""
    from datasets.challenge import UNRELEASED

    if settings.limit is not None or settings.pred_set == "training":
        return predicted
    if UNRELEASED not in dataset.unreleased:
        return predicted
    if not labelled and settings.pred_set == "test" and len(predicted) == 1511:  # all there are
        return [*predicted, UNRELEASED]
    return labelled or predicted


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
