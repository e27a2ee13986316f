"""Classify a set of images and write the submission table.

python3 runs/cls_predict.py --backbone densenet121 --pred-set test
python3 runs/cls_predict.py --backbone densenet121 --ensemble vgg16:0 --no-browse
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line
from models.backbones import BACKBONES


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    backbone: Literal[*BACKBONES] = "densenet201"  # of the runs that predict
    version: str = "0"  # of the runs
    ensemble: tuple[str, ...] = ()  # further runs to take the mean with, each backbone:version
    pred_set: Literal["training", "validation", "test"] = "test"  # Task 3 images to classify
    limit: int | None = None  # only N images: the first, or of known classes the first by share
    tta: bool = False  # mean over the 8 flips and quarter turns
    tuned: bool = True  # temperature and weights that cls_tune chose, where it has run
    browse: bool = True  # also write pages to look at: image, crop, probabilities
    batch_size: int = 16  # images per step
    overwrite: bool = False  # replace what other runs or settings made


def main(settings: Settings) -> None:
    import shutil
    from functools import cache

    import numpy as np
    from tqdm import tqdm

    from datasets import ISIC2018, lesion_crops
    from evaluation import tuned
    from inference import class_table, ensemble, kept_logits, submission
    from inference.prediction import Net, logits_of
    from misc_utils import provenance
    from reports import browse
    from training import run_folder

    # 1 runs and images
    nets = ensemble.find_ensemble(
        paths.model_data_dir(), 3, settings.backbone, settings.version, settings.ensemble
    )
    data_dir, submissions = paths.data_dir(), paths.submissions_dir()
    originals = ISIC2018.list_originals(data_dir, 3, settings.pred_set)
    image_ids = ISIC2018.limited(data_dir, 3, settings.pred_set, list(originals), settings.limit)
    images, crops_of = {}, {}
    for member in nets.members:
        view, margin = (run_folder.same(member, key) for key in ("lesion_view", "box_margin"))
        size = run_folder.same(member, "image_size")
        crops = lesion_crops.load_view_crops(submissions, settings.pred_set, view)
        run_folder.check_same_crops(member, crops.maker if crops else None)
        seen = ISIC2018.load_view(
            data_dir, settings.pred_set, size, view, crops, margin, needed=image_ids
        )
        images |= {run.name: seen for run in member}
        if settings.pred_set == "training":
            for run in member:
                run_folder.check_same_data(run, seen.fingerprint)
        crops_of |= crops.files if crops else {}
    own_set = settings.pred_set == "training"
    lesions = ISIC2018.load_lesions(data_dir, list(originals)) if own_set else None
    groups, left_out = ensemble.assign_runs(nets, image_ids, lesions)
    print(f"predicting with {ensemble.names_of(nets)}")
    if left_out:
        print(
            f"left out, as every net there is was trained on their lesions: {len(left_out)} images"
        )
    views = 8 if settings.tta else 1
    content = tuned.load_tuned(nets, views) if settings.tuned else None
    chosen = content["chosen"] if content else None
    if chosen:
        print(f"as tuned ({tuned.tuned_file(nets, views)}): {tuned.described(chosen)}")
    used = asdict(settings) | {"tuned": chosen}
    made_by = ensemble.provenance(used, nets, groups)
    table = submission.class_file(settings.pred_set)
    with provenance.claimed(submissions, table):
        seen_data = " ".join(sorted(seen.fingerprint for seen in images.values()))
        journal = provenance.open_journal(
            submissions, table, made_by, seen_data, settings.overwrite
        )
        done = set(journal.rows)
        total = len(image_ids) - len(left_out)
        if done:
            print(f"{len(done)} of {total} are classified already")

        # 2 predict
        @cache
        def net_of(run) -> Net:
            from models.trained import load_classifier

            return Net(logits_of(load_classifier(run.settings, run.weights)), images[run.name])

        weights = tuned.member_weights(nets, chosen)
        bar = {"total": total, "initial": len(done), "unit": "image"}
        with tqdm(desc=f"task3_{settings.pred_set}", **bar) as progress:
            for some, values in kept_logits.stream_logits(
                nets, groups, weights, views, own_set, net_of, settings.batch_size, done
            ):
                for image_id, logits in zip(some, values, strict=True):
                    journal.add(image_id, {"logits": logits.tolist()})
                progress.update(len(some))
        predicted = sorted(journal.rows)
        mean = np.array([journal.rows[image_id]["logits"] for image_id in predicted])
        probability = tuned.class_probability(
            mean[None], chosen and chosen | {"member_weights": [1.0]}
        )

        # 3 write
        expected = expected_images(data_dir, settings, predicted)
        submitted, rows = class_table.add_missing_image(predicted, probability, expected)
        if len(submitted) > len(predicted):
            print(
                f"{submitted[-1]} is scored with weight 0 and no image: given the mean of all rows"
            )
        file = submission.write_classes(
            submissions,
            settings.pred_set,
            submitted,
            rows,
            ISIC2018.CLASSES,
            expected_ids=expected,
            made_by=made_by,
            overwrite=settings.overwrite,
        )
        journal.close()
        browse_folder = submissions / f"task3_{settings.pred_set}_browse"
        shutil.rmtree(browse_folder, ignore_errors=True)  # pages of the table of before
        as_json = file.with_name(f"task3_{settings.pred_set}_classes.json")
        class_table.write_json(as_json, predicted, probability, ISIC2018.CLASSES)
        print(f"{len(predicted)} images classified: {file}, {as_json.name}")
        if settings.browse:
            labels = known_labels(data_dir, settings.pred_set)

            def card(image_id: str) -> browse.Row:
                picture = ISIC2018.read_original(originals[image_id])
                crop = crops_of.get(image_id) and ISIC2018.read_original(crops_of[image_id])
                return browse.Row(image_id, picture, crop, row_of[image_id], labels.get(image_id))

            row_of = dict(zip(predicted, probability, strict=True))
            cards = map(card, tqdm(predicted, desc="pages", unit="image"))
            title = f"Task 3, {settings.pred_set} set: {nets.name}"
            print(
                f"to look at: {browse.write_pages(browse_folder, cards, ISIC2018.CLASSES, title)}"
            )


def known_labels(data_dir, images: str) -> dict[str, str]:
    """Names of the true classes, where the table of the truth is there."""
    from datasets import ISIC2018

    if not ISIC2018.raw.labels_file(data_dir, images).exists():
        return {}
    labels = ISIC2018.load_labels(data_dir, images, None)
    return {image_id: ISIC2018.CLASSES[label] for image_id, label in labels.items()}


def expected_images(data_dir, settings: Settings, predicted: list[str]) -> list[str]:
    """Ids the submission must have: those of the truth where it is known, else the predicted."""
    from datasets import ISIC2018
    from datasets.challenge import UNRELEASED

    partial = settings.limit is not None or settings.pred_set == "training"
    if not partial and ISIC2018.raw.labels_file(data_dir, settings.pred_set).exists():
        return list(ISIC2018.load_labels(data_dir, settings.pred_set, None))
    if not partial and settings.pred_set == "test" and len(predicted) == 1511:  # all there are
        return [*predicted, UNRELEASED]
    return predicted


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__)
