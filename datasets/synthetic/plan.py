"""Which pictures and tables a drawn tree holds, and what the tables say; nothing is drawn here.

Enters: counts and a seed. Leaves: a Photograph for each picture, in the order of its sets and ids,
and the text of each table, with paths under the data folder.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.challenge import ATTRIBUTES, CLASSES, SETS
from datasets.ISIC2018.raw import groups_file, image_folder, labels_file, truth_folder

ATTRIBUTION = "Drawn by datasets/synthetic. No picture here shows a person's skin.\n"
LICENSE = "Computer drawings without an author's claim: use them for anything.\n"
SUPERPIXELS = 3  # images of each Task 1 set that get a superpixel companion

SHARES = {"NV": 34, "MEL": 17, "BKL": 14, "BCC": 10, "AKIEC": 9, "DF": 8, "VASC": 8}  # per cent
CONFIRMED = ("histopathology", "serial imaging showing no change", "single image expert consensus")


@dataclass(frozen=True)
class Photograph:
    """One picture to draw: what it shows and the files it becomes (under the data folder)."""

    image_id: str
    diagnosis: str
    lesion: tuple[int, ...]  # seed of the lesion, the same in all its photographs
    view: tuple[int, ...]  # seed of this photograph
    lesion_id: str
    image: Path
    mask: Path | None = None  # Task 1 only
    superpixels: Path | None = None
    attributes: tuple[Path, ...] = ()  # masks in the order of ATTRIBUTES; Task 1 only

    @property
    def files(self) -> list[Path]:
        """All it becomes, under the data folder."""
        files = (self.image, self.mask, self.superpixels, *self.attributes)
        return [file for file in files if file is not None]


def class_counts(lesions: int) -> dict[str, int]:
    """Lesions per class, commonest first: by SHARES, one of each where there are seven or more."""
    if lesions < len(SHARES):
        return {name: int(i < lesions) for i, name in enumerate(SHARES)}
    counts = {name: max(1, lesions * share // 100) for name, share in SHARES.items()}
    counts["NV"] += lesions - sum(counts.values())
    return counts


def plan_photographs(
    lesions: int, test_lesions: int, seed: int
) -> list[tuple[int, str, list[Photograph]]]:
    """Task, set and its photographs in the order of their ids; no id is in two sets."""
    plan, next_id = [], 0
    for number, (task, images) in enumerate((t, s) for t in (1, 3) for s in SETS):
        rng = np.random.default_rng((seed, number))
        count = lesions if images == "training" else test_lesions
        diagnoses = rng.permutation([c for c, n in class_counts(count).items() for _ in range(n)])
        shown = [
            (lesion, view)
            for lesion in range(count)
            for view in range(_views(lesion) if (task, images) == (3, "training") else 1)
        ]
        photographs = []
        for lesion, view in rng.permutation(shown).tolist():
            next_id += int(rng.integers(1, 4))  # the release has gaps too
            folder, image_id = image_folder(Path(), task, images), f"ISIC_{next_id:07d}"
            mask = truth_folder(Path(), 1, images) / f"{image_id}_segmentation.png"
            companion = task == 1 and len(photographs) < SUPERPIXELS
            marked = truth_folder(Path(), 2, images)
            photographs.append(
                Photograph(
                    image_id=image_id,
                    diagnosis=str(diagnoses[lesion]),
                    lesion=(seed, number, lesion + 1),  # numpy takes a last 0 for no number
                    view=(seed, number, lesion + 1, view + 1),
                    lesion_id=f"HAM_{lesion:07d}",
                    image=folder / f"{image_id}.jpg",
                    mask=mask if task == 1 else None,
                    superpixels=folder / f"{image_id}_superpixels.png" if companion else None,
                    attributes=tuple(
                        marked / f"{image_id}_attribute_{name}.png"
                        for name in (ATTRIBUTES if task == 1 else ())
                    ),
                )
            )
        plan.append((task, images, photographs))
    return plan


def _views(lesion: int) -> int:
    """Photographs of a Task 3 training lesion: two or three of every third one."""
    return 1 if lesion % 3 else 2 + (lesion % 9 == 6)


def plan_texts(plan: list[tuple[int, str, list[Photograph]]]) -> dict[Path, str]:
    """Tables and companions, {file: content}."""
    texts = {}
    for task, images, photographs in plan:
        truths = [
            truth_folder(Path(), number, images) for number in ((1, 2) if task == 1 else (3,))
        ]
        for folder in (image_folder(Path(), task, images), *truths):
            texts[folder / "ATTRIBUTION.txt"] = ATTRIBUTION
            texts[folder / "LICENSE.txt"] = LICENSE
        if task == 3:
            rows = [(p.image_id, *(float(p.diagnosis == c) for c in CLASSES)) for p in photographs]
            texts[labels_file(Path(), images)] = _table(("image", *CLASSES), rows)
        if (task, images) == (3, "training"):
            rows = [(p.image_id, p.lesion_id, CONFIRMED[p.lesion[-1] % 3]) for p in photographs]
            header = ("image", "lesion_id", "diagnosis_confirm_type")
            texts[groups_file(Path())] = _table(header, rows)
    return texts


def _table(header: tuple[str, ...], rows: list[tuple]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
