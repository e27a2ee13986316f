"""Ask trained nets about images of your own: files, folders, zip archives.

python3 runs/predict.py photos/
python3 runs/predict.py one.jpg more.zip --classifier densenet121:0 --no-mask
python3 runs/predict.py photos/ --bundle submissions/bundle

For each image: the lesion, the probability of each class, how far the nets agree, where they
looked, whether it is unlike the training images. Research only: not for diagnosis.
"""

from dataclasses import asdict, dataclass

import paths  # isort: skip  (the repository on sys.path)

from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    images: command_line.Paths  # files, folders and zip archives
    segmenter: str | None = None
    """finds the lesion: backbone:version, several joined by +; None: the one that was trained"""
    classifier: str | None = None  # tells the class, named alike
    bundle: str | None = None  # a folder that export.py wrote: answers without Keras
    mask: bool = True  # find the lesion
    classes: bool = True  # tell the class
    overlay_only: bool = False  # of pictures write only those with the outline
    name: str = "predictions"  # of the folder in submissions/ that all is written to
    tta: bool = False  # test-time augmentation: mean over 8 flips and quarter turns
    batch_size: int = 8  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the nets were trained on
    overwrite: bool = False  # start again, whatever is there


def main(settings: Settings) -> dict[str, int]:
    from tqdm import tqdm

    from deploy import answers, sources
    from deploy.which_nets import find_nets
    from inference import submission
    from misc_utils.messages import printable

    # 1 which nets, which images
    answers.check_name(settings.name)
    nets, depends_on, load_nets = find_nets(paths.root(), settings)
    found = sources.find_sources(settings.images)

    # 2 ask, batch by batch; what is done already is left alone
    free = ("images", "batch_size", "overwrite", "name", "bundle")
    used = {key: value for key, value in asdict(settings).items() if key not in free}
    made_by = {"settings": used, "format": answers.FORMAT} | depends_on()
    with submission.claimed_folder(
        paths.submissions_dir(), settings.name, made_by, "", settings.overwrite
    ) as result:
        waiting = answers.waiting(result, found)
        if len(waiting) < len(found):
            print(f"{len(found) - len(waiting)} of {len(found)} are there already")
        if waiting:
            predictor = load_nets()
            print("answering: " + ", ".join(predictor.names))
            result.begin(len(found))
            rows = answers.answer(result, predictor, waiting, settings)
            for _ in tqdm(
                rows, settings.name, len(found), unit="image", initial=len(found) - len(waiting)
            ):
                pass

        # 3 tables and pages
        summary = answers.write_tables(result, found)
        index = answers.write_page(result, found, nets.names)
        result.finish(summary)

    # 4 report
    for name, reason in answers.failures(result, found):
        print(f"not answered: {printable(name)}: {printable(reason)}")
    print(", ".join(f"{key.replace('_', ' ')}: {count}" for key, count in summary.items()))
    print(f"to look at: {index}")
    return summary


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
