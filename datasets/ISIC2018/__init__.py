"""ISIC 2018, Tasks 1 and 3: what a script or a notebook loads.

Enters: the folder `data/` laid out as released. Leaves: cached, memory-mapped uint8 arrays with
their image ids (see cache.Cached), built on first use; labels and lesions keyed by image id.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets import pictures
from datasets.boxes import Box, cut_box, widen
from datasets.cache import Cached, load_or_build
from datasets.challenge import CLASSES as CLASSES
from datasets.challenge import SETS as SETS
from datasets.challenge import UNRELEASED
from datasets.copies import Copies, find_copies, join_lesions
from datasets.folds import limit_images, limit_labels
from datasets.ISIC2018 import raw
from datasets.lesion_crops import Crops
from datasets.near_copies import read_near_copies, table_file
from misc_utils.errors import UserError
from misc_utils.messages import check_same_ids, counted, listed

log = logging.getLogger(__name__)


def load_images(data_dir: Path, task: int, images: str, image_size: int) -> Cached:
    """All images of `task` (1 or 3) in the set `images`, uint8 (N, image_size, image_size, 3) RGB.

    Raises UserError when the folder is missing or empty; or naming every file that is no picture.
    """

    def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
        return read_small(content, image_size)

    sources = raw.list_images(raw.image_folder(data_dir, task, images))
    name, shape = f"task{task}_{images}_images_{image_size}", (image_size, image_size, 3)
    return load_or_build(data_dir / "cache", name, sources, read, shape)


def read_small(content: bytes, image_size: int) -> tuple[np.ndarray, int, int]:
    """A picture as it is cached, uint8 (image_size, image_size, 3) RGB, and its height and width.

    A JPEG is decoded at a fraction of its size if both sides keep at least 2 * image_size pixels.
    Errors as in pictures.read_image.
    """
    image, height, width = pictures.read_image(content, shortest=2 * image_size)
    return resize(image, image_size), height, width


def load_masks(data_dir: Path, images: str, image_size: int, of: Cached) -> Cached:
    """Task 1 truth of the images `of`, uint8 (N, image_size, image_size, 1) in {0, 1}, same rows.

    Raises UserError, naming the files, when masks are missing, have values other than 0 and 255, or
    differ in size from their image.
    """

    def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
        mask = _mask_of_size(content, *of.size_of(image_id))
        share = resize(mask * np.uint8(255), image_size)  # of lesion in each cell, 0..255
        return (share > 127).astype(np.uint8)[..., None], *mask.shape

    sources = list_truth(data_dir, images, of).files
    name, shape = f"task1_{images}_masks_{image_size}", (image_size, image_size, 1)
    masks = load_or_build(data_dir / "cache", name, sources, read, shape)
    # an image may have been replaced since the masks were cached
    different = (masks.heights != of.heights) | (masks.widths != of.widths)
    if different.any():
        row = int(np.flatnonzero(different)[0])
        raise UserError(
            f"{sources[masks.image_ids[row]]}: the mask is "
            f"{masks.widths[row]}x{masks.heights[row]} pixels, its image "
            f"{of.widths[row]}x{of.heights[row]}, and {different.sum() - 1} more differ. Unzip "
            f"images and truth of this set again, completely."
        )
    return masks


@dataclass(frozen=True, eq=False)
class TruthMasks:
    """Task 1 truth of a set of images, at full size."""

    files: dict[str, Path]  # {image id: mask file}
    images: Cached

    def read(self, image_id: str) -> np.ndarray:
        """The mask of an image, bool (H, W); UserError naming a bad file."""
        return read_truth(self.files[image_id], *self.images.size_of(image_id)) > 0


def list_truth(data_dir: Path, images: str, of: Cached) -> TruthMasks:
    """Task 1 truth of the images `of` in the set `images`; UserError unless each has one mask."""
    return TruthMasks(_list_masks(data_dir, images, of.image_ids), of)


def _list_masks(data_dir: Path, images: str, image_ids: Iterable[str]) -> dict[str, Path]:
    folder = raw.truth_folder(data_dir, 1, images)
    files = raw.list_masks(folder)
    images_folder = raw.image_folder(data_dir, 1, images)
    check_same_ids(f"{folder}", image_ids, files, images_folder, "mask")
    return files


def load_pairs(data_dir: Path, images: str, image_size: int) -> tuple[Cached, Cached]:
    """Task 1 images with their truth, as load_images and load_masks give them.

    Whether each image has a mask is checked before the first of them is decoded.
    """
    _list_masks(data_dir, images, list_originals(data_dir, 1, images))
    cached = load_images(data_dir, 1, images, image_size)
    return cached, load_masks(data_dir, images, image_size, of=cached)


def read_truth(file: Path, height: int, width: int) -> np.ndarray:
    """A mask at its full size, uint8 (height, width) in {0, 1}; UserError naming a bad file."""
    return _read_whole(file, lambda content: _mask_of_size(content, height, width))


def read_original(file: Path) -> np.ndarray:
    """An image at its full size, uint8 (H, W, 3) RGB; UserError naming a bad file."""
    return _read_whole(file, lambda content: pictures.read_image(content)[0])


def _mask_of_size(content: bytes, height: int, width: int) -> np.ndarray:
    mask = pictures.read_mask(content)
    if mask.shape != (height, width):
        turned = (
            " (an image is turned upright by its EXIF orientation, so its mask must be upright)"
        )
        raise ValueError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image {width}x{height}"
            + (turned if mask.shape == (width, height) else "")
        )
    return mask


def _read_whole(file: Path, decode: Callable[[bytes], np.ndarray]) -> np.ndarray:
    try:
        return decode(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}. Replace it by an intact file of the release.") from None


def load_view(
    data_dir: Path,
    images: str,
    image_size: int,
    lesion_view: str,
    crops: Crops | None = None,
    margin: float = 0.0,
    needed: Sequence[str] = (),
) -> Cached:
    """Task 3 images as the input of a classifier; array as in load_images.

    Args:
        data_dir: holds the released folders and the cache.
        images: the set.
        image_size: side of the rows in pixels.
        lesion_view: `whole` image; `box`: the lesion's bounding box with its background; `crop` and
            `feather`: the crops themselves, with a hard or a soft edge.
        crops: from lesion_crops.load_view_crops; None for whole.
        margin: box only: share of the box's longer side added around it.
        needed: image ids that must have a crop.

    Raises:
        UserError when needed crops are missing, or naming every bad file.
    """
    if lesion_view == "whole":
        return load_images(data_dir, 3, images, image_size)
    _check_crops(crops, needed)
    released = list_originals(data_dir, 3, images)
    files = released if lesion_view == "box" else crops.files
    sources = {i: files[i] for i in crops.table.index if i in released}
    name, shape = f"task3_{images}_{lesion_view}_{image_size}", (image_size, image_size, 3)
    boxes = crops.table[["top", "left", "height", "width"]].to_dict("index")

    def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
        image, height, width = pictures.read_image(content)
        if lesion_view == "box":
            image = cut_box(image, widen(Box(**boxes[image_id]), margin, height, width))
        return resize(image, image_size), height, width

    made_from = f"{crops.fingerprint} margin {margin if lesion_view == 'box' else 0}"
    return load_or_build(data_dir / "cache", name, sources, read, shape, made_from)


def _check_crops(crops: Crops, needed: Sequence[str]) -> None:
    """UserError unless every image of `needed` has a crop."""
    missing = sorted(set(needed) - set(crops.table.index))
    if missing:
        raise UserError(
            f"{crops.folder / 'crops.csv'} lacks {listed(missing)}. Make the crops of all images: "
            f"repeat the seg_predict.py command that made them, without --limit and with "
            f"--overwrite. Or give the same --limit here as there."
        )


def limited(
    data_dir: Path, task: int, images: str, image_ids: Sequence[str], limit: int | None
) -> list[str]:
    """The images to use with a limit on their number, in sorted order.

    These are the first by id; in a Task 3 set whose classes are known, the first of each class, so
    that training and prediction use the same images when they have the same limit.
    """
    labels = known_labels(data_dir, images) if limit is not None and task == 3 else {}
    if labels:
        return list(limit_labels({i: labels[i] for i in image_ids if i in labels}, limit))
    return limit_images(image_ids, limit)


def list_originals(data_dir: Path, task: int, images: str) -> dict[str, Path]:
    """Image files of a set as released, {image id: file}."""
    return raw.list_images(raw.image_folder(data_dir, task, images))


def load_labels(data_dir: Path, images: str, image_ids: Sequence[str] | None) -> dict[str, int]:
    """Task 3 classes as {image id: index into CLASSES}; exactly the given ids, if given.

    The table of the test set has a row for an image that was never released. That row is dropped
    unless the image is among the ids.
    """
    file = raw.labels_file(data_dir, images)
    labels = raw.read_labels(file)
    if image_ids is not None:
        if UNRELEASED not in image_ids:
            labels.pop(UNRELEASED, None)
        folder = raw.image_folder(data_dir, 3, images)
        check_same_ids(f"{file}", image_ids, labels, folder, "row")
    return labels


def known_labels(data_dir: Path, images: str) -> dict[str, int]:
    """All rows of the table of Task 3 classes, as load_labels; none where there is no table."""
    there = raw.labels_file(data_dir, images).exists()
    return load_labels(data_dir, images, None) if there else {}


def load_lesions(
    data_dir: Path, image_ids: Sequence[str], task: int = 3, near_copies: bool = False
) -> dict[str, str]:
    """Lesion of each training image, {image id: lesion id}; UserError if one is missing.

    Which Task 1 images show the same lesion is not known: each counts as a lesion named after it.
    Images whose files hold the same bytes show one lesion, whatever the table says; of those there
    are, some are named in a warning. With `near_copies` so do pairs that runs/find_near_copies.py
    listed; UserError without its table.
    """
    files = list_originals(data_dir, task, "training")
    files = {image_id: files[image_id] for image_id in image_ids if image_id in files}
    pairs = [(i, min(others)) for i, others in find_copies(files, files).items()]
    if pairs:
        folder = raw.image_folder(data_dir, task, "training")
        names = [f"{one} = {other}" for one, other in sorted(pairs) if one > other]
        log.warning("%s: the same picture, thus one lesion: %s", folder, counted(names))
    if near_copies:
        pairs += read_near_copies(table_file(data_dir, task), task)
    if task == 1:
        return join_lesions({image_id: image_id for image_id in sorted(image_ids)}, pairs)
    file = raw.groups_file(data_dir)
    groups = raw.read_groups(file)
    missing = sorted(set(image_ids) - set(groups))
    if missing:
        raise UserError(
            f"{file}: no lesion_id for {listed(missing)}. Without it, photographs of one lesion "
            f"could be used for both training and evaluation. Unzip the released table again."
        )
    return join_lesions({image_id: groups[image_id] for image_id in sorted(image_ids)}, pairs)


def find_trained(data_dir: Path, task: int, images: str, trained_task: int) -> Copies:
    """Other ids, if any, under which images of a set are among the training images of a task.

    {image id: ids of training images of `trained_task` that hold the same bytes}; empty where their
    folder is not there.
    """
    there = raw.image_folder(data_dir, trained_task, "training").is_dir()
    among = list_originals(data_dir, trained_task, "training") if there else {}
    return find_copies(list_originals(data_dir, task, images), among)


def resize(image: np.ndarray, image_size: int) -> np.ndarray:
    """Square picture of `image_size` pixels; dtype kept.

    Along a side that shrinks, each pixel is the mean of what it covers; along one that grows, it is
    interpolated linearly.
    """
    height, width = (min(side, image_size) for side in image.shape[:2])
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(smaller, (image_size, image_size), interpolation=cv2.INTER_LINEAR)
