"""A data set, opened: what a script or a notebook loads.

Enters: files, labels and lesions keyed by image id, which each data set finds in its own way.
Leaves: cached, memory-mapped uint8 arrays with their image ids (see cache.Cached), built on first
use; labels, lesions and metadata keyed by image id.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from datasets import pictures
from datasets.boxes import Box, cut_box, widen
from datasets.cache import Cached, load_or_build
from datasets.copies import Copies, Related, find_copies, join_lesions
from datasets.folds import limit_images, limit_labels
from datasets.lesion_crops import Crops
from datasets.metadata import encode
from datasets.near_copies import read_near_copies, table_file
from datasets.pictures import resize
from datasets.preprocessing import MOVES, preprocess
from datasets.tasks import TASKS, flags, images_task, prefix
from misc_utils.errors import UserError
from misc_utils.messages import check_same_ids, counted, listed

log = logging.getLogger(__name__)


class Dataset:
    """A data set in a folder; a subclass says where its images, masks and labels are.

    Attributes:
        name: as in DATASETS.
        data_dir: holds the cache, and the released folders of all data sets.
        sets: that it has; `training` is split into folds.
        classes: names of Task 3, in the order of class indices.
        group: what images must not be parted by a split: of one `lesion`, or one `patient`.
        unreleased: ids in a table of classes of which there is no image; their rows are no error.
        ids_shared: an id names the same image in every set, as the archives of ISIC do it.
    """

    name: str
    sets: tuple[str, ...] = ("training",)
    classes: tuple[str, ...] = ()
    group = "lesion"
    unreleased: frozenset[str] = frozenset()
    ids_shared = True

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    # What a data set says of itself; all but the images may be missing

    def list_images(self, task: int, images: str) -> dict[str, Path]:
        """Image files of the set `images` of a task, {image id: file} in sorted order of the ids.

        Raises UserError when there are none.
        """
        raise NotImplementedError

    def images_folder(self, task: int, images: str) -> Path:
        """Where they are, for messages; the folder need not exist."""
        raise NotImplementedError

    def has_images(self, task: int, images: str) -> bool:
        """Whether there is a folder of the images of a set."""
        return images in self.sets and self.images_folder(task, images).is_dir()

    def has_masks(self, task: int, images: str) -> bool:
        """Whether there is a folder of masks of the task."""
        return False

    def list_masks(self, task: int, images: str, channel: str) -> tuple[dict[str, Path], Path]:
        """Files of the masks that show `channel` (see TASKS), {image id: file}, and their folder.

        Raises UserError when there are none.
        """
        raise UserError(f"{self.name} holds no masks of task {task} ({TASKS[task].what}).")

    def read_labels(self, images: str) -> tuple[dict[str, int], Path]:
        """Every class in the table of a set, {image id: index into classes}, and the table.

        Raises UserError when there is no such table.
        """
        raise UserError(f"{self.name} holds no classes of its images.")

    def has_labels(self, images: str) -> bool:
        """Whether there is a table of classes for the set."""
        return False

    def read_groups(self, task: int) -> tuple[dict[str, str | None], Path] | None:
        """Lesion (or patient) of each training image, and the table; None where it is unknown.

        The group of an image is None where the table does not say it.
        """
        return None

    def read_pairs(self, task: int) -> list[tuple[str, str]]:
        """Pairs of training images that the data set itself calls copies of one another."""
        return []

    def read_metadata(self, images: str) -> tuple[pd.DataFrame, Path]:
        """Columns age, sex, site (see tables.read_metadata), index image id, and the table.

        Raises UserError when there is no such table.
        """
        raise UserError(f"{self.name} holds no age, sex and site of its images.")

    def decode_mask(self, content: bytes) -> np.ndarray:
        """The bytes of a mask as uint8 (H, W) in {0, 1}; ValueError for what is no mask."""
        return pictures.read_mask(content)

    def submission(self, image_ids: Sequence[str], probability: np.ndarray) -> pd.DataFrame:
        """The table that the organisers ask for: of N ids and probabilities (N, C).

        The first column holds the ids.
        """
        table = pd.DataFrame(probability, columns=list(self.classes))
        table.insert(0, "image", list(image_ids))
        return table

    # What scripts load

    def load_images(
        self, task: int, images: str, image_size: int, steps: Sequence[str] = ()
    ) -> Cached:
        """All images of `task` in the set `images`, uint8 (N, image_size, image_size, 3) RGB.

        `steps` are rows of PREPROCESSING, applied in this order. Raises UserError when the folder
        is missing or empty; or naming every file that is no picture.
        """

        def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
            return read_small(content, image_size, steps)

        sources = self.list_images(task, images)
        name = f"task{images_task(task)}_{images}_images_{image_size}{_ending(steps)}"
        return self._cached(name, sources, read, (image_size, image_size, 3), " ".join(steps))

    def load_masks(self, task: int, images: str, image_size: int, of: Cached) -> Masks:
        """Truth of the images `of`, uint8 (N, image_size, image_size, C) in {0, 1}, same rows.

        Raises UserError, naming the files, when masks are missing, have values other than 0 and
        255, or differ in size from their image.
        """

        def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
            mask = self._mask_of_size(content, *of.size_of(image_id))
            share = resize(mask * np.uint8(255), image_size)  # of lesion in each cell, 0..255
            return (share > 127).astype(np.uint8)[..., None], *mask.shape

        truth, cached = self.list_truth(task, images, of), []
        for channel, sources in truth.files.items():
            what = "masks" if task == 1 else channel
            name, shape = f"task{task}_{images}_{what}_{image_size}", (image_size, image_size, 1)
            cached.append(self._cached(name, sources, read, shape))
            _check_same_size(cached[-1], of, sources)
        return Masks(cached)

    def list_truth(self, task: int, images: str, of: Cached) -> TruthMasks:
        """Truth of the images `of` in the set `images`; UserError unless each has all its masks."""
        return TruthMasks(self, self.find_masks(task, images, of.image_ids), of)

    def find_masks(
        self, task: int, images: str, image_ids: Iterable[str]
    ) -> dict[str, dict[str, Path]]:
        """{channel: {image id: mask}} of exactly these images; UserError where they differ."""
        found, where = {}, self.images_folder(task, images)
        for channel in TASKS[task].channels:
            files, folder = self.list_masks(task, images, channel)
            entry = "mask" if task == 1 else f"mask of {channel}"
            check_same_ids(f"{folder}", image_ids, files, where, entry)
            found[channel] = {image_id: files[image_id] for image_id in image_ids}
        return found

    def load_pairs(
        self, task: int, images: str, image_size: int, steps: Sequence[str] = ()
    ) -> tuple[Cached, Masks]:
        """Images with their truth, as load_images and load_masks give them.

        Whether each image has its masks is checked before the first of them is decoded.
        """
        check_steps(steps, moved=False)
        self.find_masks(task, images, self.list_images(task, images))
        cached = self.load_images(task, images, image_size, steps)
        return cached, self.load_masks(task, images, image_size, of=cached)

    def read_truth(self, file: Path, height: int, width: int) -> np.ndarray:
        """A mask at its full size, uint8 (height, width) in {0, 1}; UserError naming a bad file."""
        return pictures.read_whole(file, lambda content: self._mask_of_size(content, height, width))

    def _mask_of_size(self, content: bytes, height: int, width: int) -> np.ndarray:
        mask = self.decode_mask(content)
        if mask.shape != (height, width):
            turned = (
                " (an image is turned upright by its EXIF orientation, so its mask must be upright)"
            )
            raise ValueError(
                f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels, its image {width}x{height}"
                + (turned if mask.shape == (width, height) else "")
            )
        return mask

    def load_view(
        self,
        images: str,
        image_size: int,
        lesion_view: str,
        crops: Crops | None = None,
        margin: float = 0.0,
        needed: Sequence[str] = (),
        steps: Sequence[str] = (),
    ) -> Cached:
        """Task 3 images as the input of a classifier; array as in load_images.

        Args:
            images: the set.
            image_size: side of the rows in pixels.
            lesion_view: `whole` image; `box`: the lesion's bounding box with its background; `crop`
                and `feather`: the crops themselves, with a hard or a soft edge.
            crops: from lesion_crops.load_view_crops; None for whole.
            margin: box only: share of the box's longer side added around it.
            needed: image ids that must have a crop.
            steps: rows of PREPROCESSING, applied to what the view shows.

        Raises:
            UserError when needed crops are missing, or naming every bad file.
        """
        check_steps(steps, moved=lesion_view == "whole")
        if lesion_view == "whole":
            return self.load_images(3, images, image_size, steps)
        _check_crops(crops, needed)
        released = self.list_images(3, images)
        files = released if lesion_view == "box" else crops.files
        sources = {i: files[i] for i in crops.table.index if i in released}
        boxes = crops.table[["top", "left", "height", "width"]].to_dict("index")

        def read(image_id: str, content: bytes) -> tuple[np.ndarray, int, int]:
            image, height, width = pictures.read_image(content)
            if lesion_view == "box":
                image = cut_box(image, widen(Box(**boxes[image_id]), margin, height, width))
            return resize(preprocess(image, steps), image_size), height, width

        made_from = f"{crops.fingerprint} margin {margin if lesion_view == 'box' else 0}"
        made_from += "".join(f" {step}" for step in steps)
        name = f"task3_{images}_{lesion_view}_{image_size}{_ending(steps)}"
        return self._cached(name, sources, read, (image_size, image_size, 3), made_from)

    def load_inputs(self, images: Cached, of_set: str, sites: Sequence[str] | None) -> Inputs:
        """What a net takes of these images of a set; without `sites` the images alone.

        With them (from metadata.list_sites of the training images) also age, sex and site; then
        UserError when an image has no row.
        """
        if sites is None:
            return Inputs(images)
        table, file = self.read_metadata(of_set)
        missing = sorted(set(images.image_ids) - set(table.index))
        if missing:
            raise UserError(
                f"{file}: no row for {listed(missing)}. Add the rows, with empty cells where "
                f"nothing is known, or train without --metadata."
            )
        return Inputs(images, encode(table.loc[list(images.image_ids)], sites))

    def limited(
        self, task: int, images: str, image_ids: Sequence[str], limit: int | None
    ) -> list[str]:
        """The images to use with a limit on their number, in sorted order.

        These are the first by id; in a Task 3 set whose classes are known, the first of each class,
        so that training and prediction use the same images when they have the same limit.
        """
        labels = self.known_labels(images) if limit is not None and task == 3 else {}
        if labels:
            return list(limit_labels({i: labels[i] for i in image_ids if i in labels}, limit))
        return limit_images(image_ids, limit)

    def load_labels(self, images: str, image_ids: Sequence[str]) -> dict[str, int]:
        """Task 3 classes of exactly these images, {image id: index into classes}.

        Raises UserError when a row is missing, or one has no image.
        """
        labels, file = self.read_labels(images)
        labels = {i: k for i, k in labels.items() if i not in self.unreleased or i in image_ids}
        check_same_ids(f"{file}", image_ids, labels, self.images_folder(3, images), "row")
        return labels

    def known_labels(self, images: str) -> dict[str, int]:
        """All rows of the table of classes, as read_labels; none where there is no table."""
        return self.read_labels(images)[0] if self.has_labels(images) else {}

    def load_lesions(
        self, image_ids: Sequence[str], task: int = 3, near_copies: bool = False
    ) -> dict[str, str]:
        """Lesion (or patient) of each training image, {image id: its id}; UserError if one lacks.

        Where it is not known which images show the same lesion, each counts as one, named after it.
        Images whose files hold the same bytes show one lesion, whatever the table says; of those
        there are, some are named in a warning. With `near_copies` so do pairs that
        runs/find_near_copies.py listed; UserError without its table.
        """
        files = self.list_images(task, "training")
        files = {image_id: files[image_id] for image_id in image_ids if image_id in files}
        pairs = _pairs(find_copies(files, files))
        if pairs:
            folder = self.images_folder(task, "training")
            names = [f"{one} = {other}" for one, other in sorted(pairs) if one > other]
            log.warning("%s: the same picture, thus one lesion: %s", folder, counted(names))
        pairs += self.read_pairs(task)
        if near_copies:
            there = self.list_images(task, "training")
            file = self.near_copies_file(task)
            pairs += read_near_copies(file, there, images_task(task), self.named)
        found = self.read_groups(task)
        if found is None:
            return join_lesions({image_id: image_id for image_id in sorted(image_ids)}, pairs)
        groups, file = found
        missing = sorted(set(image_ids) - set(groups))
        if missing:
            raise UserError(
                f"{file}: no {self.group}_id for {listed(missing)}. Without it, photographs of one "
                f"{self.group} could be used for both training and evaluation. Complete the table."
            )
        return join_lesions({i: groups[i] or i for i in sorted(image_ids)}, pairs)

    def near_copies_file(self, task: int) -> Path:
        """Where runs/find_near_copies.py lists pairs of the training images of a task."""
        return table_file(self.data_dir, self.cache_name, images_task(task))

    def find_related(self, task: int, images: str, trained_task: int) -> Related:
        """Training images of `trained_task` that a net must not know to be scored on an image.

        {image id: their ids}, for each image of the set `images`: itself (by its id, where that
        means the same image in both sets; or by the bytes of its file), and what shows the same
        lesion or patient by the tables of both sets, or is a copy of such an image.
        """
        files = self.list_images(task, images)
        there = self.images_folder(trained_task, "training").is_dir()
        among = self.list_images(trained_task, "training") if there else {}
        found = self.read_groups(trained_task) if there else None
        groups = found[0] if found else {}
        copies = find_copies(among, among)
        same = copies if files == among else find_copies(files, among)
        pairs = _pairs(copies) + (self.read_pairs(trained_task) if there else [])
        lesions = join_lesions({i: groups.get(i) or i for i in among}, pairs)
        of_lesion, of_group = defaultdict(set), defaultdict(set)
        for image_id, lesion in lesions.items():
            of_lesion[lesion].add(image_id)
            if groups.get(image_id) is not None:
                of_group[groups[image_id]].add(lesion)
        own = {} if images == "training" or not groups else self.groups_of(task, images)
        shared, related = images == "training" or self.ids_shared, {}
        for image_id in files:
            itself = same.get(image_id, set()) | ({image_id} if shared else set())
            known = {lesions[i] for i in itself if i in lesions}
            parts = [of_lesion[each] for each in known | of_group.get(own.get(image_id), set())]
            # mostly one set, which its images share, as a patient may have thousands
            whole = len(parts) == 1 and itself <= parts[0]
            related[image_id] = parts[0] if whole else itself.union(*parts)
        return related

    def groups_of(self, task: int, images: str) -> dict[str, str]:
        """Lesion (or patient) of images of another set than training, where a table tells it.

        Of the kind that training images are grouped by, so that the ids of both can be compared.
        """
        return {}

    def _cached(self, name: str, *build) -> Cached:
        return load_or_build(self.data_dir / "cache", prefix(self.cache_name) + name, *build)

    @property
    def named(self) -> list[str]:
        """The flags that name it on a command line."""
        return flags(3, self.name)

    @property
    def cache_name(self) -> str:
        """What names of its cached arrays begin with."""
        return self.name


@dataclass(frozen=True, eq=False)
class TruthMasks:
    """Truth of a set of images, at full size."""

    dataset: Dataset
    files: dict[str, dict[str, Path]]  # {channel: {image id: mask file}}
    images: Cached

    def read(self, image_id: str, channel: str = "lesion") -> np.ndarray:
        """A mask of an image, bool (H, W); UserError naming a bad file."""
        size = self.images.size_of(image_id)
        return self.dataset.read_truth(self.files[channel][image_id], *size) > 0


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a net takes of each image of a set."""

    images: Cached
    metadata: np.ndarray | None = None  # float32 (N, M), see metadata.py; as the rows of images

    @property
    def fingerprint(self) -> str:
        """Of all that the net takes."""
        if self.metadata is None:
            return self.images.fingerprint
        digest = hashlib.sha256(self.metadata.tobytes()).hexdigest()
        return f"{self.images.fingerprint} {digest}"


class Masks:
    """Cached masks of one or several channels, each in an array of its own, as one array.

    Indexed by rows it gives uint8 (n, S, S, C) in {0, 1}.
    """

    ndim = 4

    def __init__(self, channels: Sequence[Cached]) -> None:
        self.channels = channels
        self.fingerprint = channels[0].fingerprint
        if len(channels) > 1:
            self.fingerprint = " ".join(channel.fingerprint[:16] for channel in channels)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Of the rows."""
        return self.channels[0].image_ids

    def __getitem__(self, rows) -> np.ndarray:
        return np.concatenate([channel.array[rows] for channel in self.channels], axis=-1)

    def __len__(self) -> int:
        return len(self.image_ids)


def read_small(
    content: bytes, image_size: int, steps: Sequence[str] = ()
) -> tuple[np.ndarray, int, int]:
    """A picture as it is cached, uint8 (image_size, image_size, 3) RGB, and its height and width.

    A JPEG is decoded at a fraction of its size if both sides keep at least 2 * image_size pixels.
    Errors as in pictures.read_image.
    """
    image, height, width = pictures.read_image(content, shortest=2 * image_size)
    return resize(preprocess(image, steps), image_size), height, width


def check_steps(steps: Sequence[str], moved: bool) -> None:
    """UserError for steps of preprocessing that move what masks or crops must fit, unless `moved`.

    Also for one that is named twice.
    """
    if len(set(steps)) < len(steps):
        raise UserError(f"--preprocess names a step twice: {' '.join(steps)}.")
    moving = [step for step in steps if step in MOVES]
    if moving and not moved:
        raise UserError(
            f"--preprocess {' '.join(moving)} cuts the picture, so that masks and crops would no "
            f"longer fit it; it is for classifiers that see the whole image."
        )


def _pairs(same: Copies) -> list[tuple[str, str]]:
    """Each image that has copies, with the first of them."""
    return [(i, min(ids - {i})) for i, ids in same.items() if len(ids) > 1]


def _ending(steps: Sequence[str]) -> str:
    return "".join(f"_{step}" for step in steps)


def _check_same_size(masks: Cached, of: Cached, sources: dict[str, Path]) -> None:
    """UserError when an image has another size than its mask: it was replaced since."""
    different = (masks.heights != of.heights) | (masks.widths != of.widths)
    if different.any():
        row = int(np.flatnonzero(different)[0])
        raise UserError(
            f"{sources[masks.image_ids[row]]}: the mask is "
            f"{masks.widths[row]}x{masks.heights[row]} pixels, its image "
            f"{of.widths[row]}x{of.heights[row]}, and {different.sum() - 1} more differ. Unzip "
            f"images and truth of this set again, completely."
        )


def _check_crops(crops: Crops, needed: Sequence[str]) -> None:
    """UserError unless every image of `needed` has a crop."""
    missing = sorted(set(needed) - set(crops.table.index))
    if missing:
        raise UserError(
            f"{crops.folder / 'crops.csv'} lacks {listed(missing)}. Make the crops of all images: "
            f"repeat the seg_predict.py command that made them, without --limit and with "
            f"--overwrite. Or give the same --limit here as there."
        )
