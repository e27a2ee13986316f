"""What a user says of a folder of images: settings of scripts, or the content of a dataset.json."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OwnFolder:
    """Where your own images are (--dataset folder)."""

    images: str | None = None  # folder of images, any names, folders in it too
    masks: str | None = None  # folder of masks, named as their images (also with _mask behind)
    table: str | None = None
    """CSV or Excel file with a row per image: class, lesion, patient, age ...; or `folders`: the
    folder that an image lies in is its class"""
    image_column: str | None = None  # of the table: names the image; None: found by usual names
    label_column: str | None = None  # holds the class; None: found, or a column per class
    group_column: str | None = None  # lesion or patient; None: found
    classes: tuple[str, ...] = ()  # in this order; empty: those in the table
    subset: bool = False  # leave out images without mask or row, and rows without image


NOT_TOLD = OwnFolder()
