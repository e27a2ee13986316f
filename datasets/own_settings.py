"""What a user says of a folder of images: settings of scripts, or the content of a dataset.json."""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from pathlib import Path

from misc_utils.errors import UserError


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
DESCRIPTION = "dataset.json"  # in data/NAME/: what OwnFolder holds, paths relative to it
FOLDERS = "folders"  # instead of a table: the folder that an image lies in is its class
OTHER_SETS = ("validation", "test")  # of a dataset.json
OF_A_SET = ("images", "masks", "table")  # what is said of one of them
KINDS = {"classes": (list, "a list of names"), "subset": (bool, "true or false")}  # others: text


def resolved(own: OwnFolder, base: Path = Path()) -> OwnFolder:
    """The same with absolute paths, to be found from any directory; what is relative is to `base`.

    UserError for a path that is empty, which would be the directory itself.
    """
    paths = {}
    for name in OF_A_SET:
        text = getattr(own, name)
        if text is not None and not text.strip():
            raise UserError(f"--{name} is empty. Give a path, or leave it out.")
        if text is not None and text != FOLDERS:
            paths[name] = os.path.realpath(base / os.path.expanduser(text))
    return replace(own, **paths)


def flags_of(own: OwnFolder) -> list[str]:
    """The flags that say the same on a command line."""
    words = []
    for field in fields(own):
        value, flag = getattr(own, field.name), f"--{field.name.replace('_', '-')}"
        if value != field.default:
            words += [
                flag,
                *(value if isinstance(value, tuple) else [] if value is True else [value]),
            ]
    return words


def read_description(file: Path) -> tuple[OwnFolder, dict[str, OwnFolder]]:
    """A dataset.json: what it says of the training set, and of each of OTHER_SETS that it has.

    Paths are absolute. UserError naming what is wrong in the file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
        own = _told(content, [*(field.name for field in fields(OwnFolder)), *OTHER_SETS])
        there = [name for name in OTHER_SETS if content.get(name) is not None]
        others = {name: _told(content[name], OF_A_SET) for name in there}
    except (OSError, ValueError) as error:
        names = ", ".join(field.name for field in fields(OwnFolder))
        raise UserError(
            f"{file}: {error}. Expected is an object in braces, {{...}}, with images and perhaps "
            f"others of {names}; {' and '.join(OTHER_SETS)} may be objects with "
            f"{', '.join(OF_A_SET)} of that set. Correct the file."
        ) from None
    return resolved(own, file.parent), {k: resolved(v, file.parent) for k, v in others.items()}


def _told(content: object, known: Collection[str]) -> OwnFolder:
    """An object of a dataset.json; ValueError naming what is no part of it. null is not told."""
    if not isinstance(content, dict):
        raise ValueError(f"found {json.dumps(content):.40}, which is no object")
    if unknown := sorted(content.keys() - set(known)):
        raise ValueError(f"unknown: {', '.join(unknown)}")
    told = {k: v for k, v in content.items() if v is not None and k not in OTHER_SETS}
    if "images" not in told:
        raise ValueError("images is missing")
    for key, value in told.items():
        kind, words = KINDS.get(key, (str, "text"))
        parts = value if kind is list and isinstance(value, list) else [str(value)]
        if not isinstance(value, kind) or not all(isinstance(p, str) and p.strip() for p in parts):
            raise ValueError(f"{key} must be {words}, not {json.dumps(value):.40}")
        if "\0" in "".join(parts):
            raise ValueError(f"{key} holds a character that no name has")
    return replace(OwnFolder(**told), classes=tuple(told.get("classes", ())))
