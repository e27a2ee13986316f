"""Write trained nets as a bundle: ONNX or LiteRT files that predict.py runs without Keras.

python3 runs/export.py --segmenter vgg16:0 --classifier densenet121:0
python3 runs/export.py --format litert --name bundle_litert
python3 runs/predict.py photos/ --bundle submissions/bundle

A bundle that does not answer as Keras does is not written. Research only: not for diagnosis.
"""

from dataclasses import asdict, dataclass
from typing import Literal

import paths  # isort: skip  (the repository on sys.path)
from misc_utils import command_line


@dataclass(frozen=True)
class Settings:
    """Edit these, or give them as flags."""

    segmenter: str | None = None
    """finds the lesion: backbone:version, several joined by +; None: the one that was trained"""
    classifier: str | None = None  # tells the class, named alike
    mask: bool = True  # with nets that find the lesion
    classes: bool = True  # with nets that tell the class
    name: str = "bundle"  # of the folder in submissions/ that all is written to
    format: Literal["onnx", "litert"] = "onnx"
    """of the files of nets: ONNX, or LiteRT (.tflite), which ai-edge-litert runs"""
    half: bool = False  # store weights as float16: half the size, a little less exact
    verify_images: int = 8  # on how many images answers are compared with those of Keras
    batch_size: int = 8  # images per step
    dataset: command_line.Dataset = "isic2018"  # that the nets were trained on
    overwrite: bool = False  # replace what is there


def main(settings: Settings) -> dict:
    from deploy import answers, bundle, export, load, model_card
    from misc_utils import provenance
    from misc_utils.errors import UserError
    from misc_utils.messages import command

    # 1 which nets
    answers.check_name(settings.name)
    if settings.verify_images < 1:
        raise UserError("--verify-images: at least one image is compared.")
    found = load.find_trained(
        paths.model_data_dir(),
        settings.segmenter,
        settings.classifier,
        settings.dataset,
        settings.mask,
        settings.classes,
    )
    if not found.both:
        raise UserError("with --no-mask and --no-classes there is nothing to export.")
    free = ("name", "overwrite", "batch_size", "verify_images")
    used = {key: value for key, value in asdict(settings).items() if key not in free}
    if settings.format == "onnx":  # of which records of earlier bundles say nothing
        del used["format"]
    made_by = {"settings": used, "weights": found.weight_hashes, "format": bundle.FORMAT}
    made_by["tuned"] = export.tuned_values(found)
    if cuts := export.cuts_of_lesions(paths.root(), found):
        made_by["cut"] = cuts
    submissions, folder = paths.submissions_dir(), paths.submissions_dir() / settings.name
    use = f"to use it: {command('predict.py', 'photos/', '--bundle', folder)}"
    with provenance.claimed(submissions, settings.name):
        if not settings.overwrite:
            provenance.check_maker(submissions, settings.name, made_by)
            if export.is_there(submissions, settings.name):
                print(f"{folder} is there already\n{use}")
                return bundle.read_bundle(folder, False, False).content["compared"]

        # 2 load the nets, and the images that their answers are compared on
        command_line.import_keras()
        export.check_packages(settings.format)
        trained = export.in_float32(found)
        predictor = load.load_predictor(paths.root(), trained, batch_size=settings.batch_size)
        images, source = export.images_to_compare(paths.root(), trained, settings.verify_images)

        # 3 write and compare; where the answers are not alike nothing is left
        with export.whole_folder(folder) as new:
            content = export.write_nets(new, predictor, trained, settings.format, settings.half)
            written = bundle.read_bundle(new, settings.mask, settings.classes)
            parity = export.compare(
                predictor, bundle.load_bundle(written), images, source, settings.batch_size
            )
            parity.check(settings.half)
            licences = model_card.find_licences(trained, paths.root())
            content["licence_of_data"] = {name: one.name for name, one in licences.items()}
            content["compared"] = asdict(parity)
            export.write_description(new, content)
            model_card.write(new, trained, content, licences)
            provenance.remove(submissions, settings.name)
            provenance.write_record(submissions, settings.name, made_by, complete=False)
        size = sum(file.stat().st_size for file in folder.iterdir())
        summary = {"bytes": size} | content["compared"]
        provenance.write_record(submissions, settings.name, made_by, complete=True, summary=summary)

    # 4 report
    print(parity.text(settings.half))
    nets = f"{len(predictor.names)} nets and {model_card.NAME}, {size / 1e6:.1f} MB"
    print(f"{nets}: {folder}\n{use}")
    return content["compared"]


if __name__ == "__main__":
    command_line.run(main, Settings, __doc__, needs_keras=False)
