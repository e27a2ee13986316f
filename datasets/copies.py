"""The same photograph under two ids, which no split may part.

Enters: {image id: file}, {image id: lesion}. Leaves: which ids hold the same bytes; lesions joined
where their images are the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from misc_utils.files import sha256

Copies = dict[str, set[str]]  # {image id: ids of the same picture}
Related = dict[str, set[str]]  # {image id: ids of the same picture, lesion or patient}


def find_copies(files: Mapping[str, Path], among: Mapping[str, Path]) -> Copies:
    """Ids of `among` whose file holds the same bytes; ids without any are left out.

    Only files of equal size are read: of 10,000 photographs a few hundred.
    """
    of_size: dict[int, set[Path]] = defaultdict(set)
    for file in {*files.values(), *among.values()}:
        of_size[file.stat().st_size].add(file)
    alike = [file for group in of_size.values() if len(group) > 1 for file in group]
    with ThreadPoolExecutor() as threads:
        digest = dict(zip(alike, threads.map(sha256, alike), strict=True))
    ids: dict[object, set[str]] = defaultdict(set)
    for image_id, file in among.items():
        ids[digest.get(file, file)].add(image_id)
    found = {i: ids.get(digest.get(file, file)) for i, file in files.items()}
    return {image_id: same for image_id, same in found.items() if same}


def join_lesions(lesions: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{image id: lesion}, in which both images of a pair, and so their lesions, are one lesion.

    Joined lesions are named after the first of them in sorted order; a pair of which an image has
    no lesion is left out.
    """
    part_of: dict[str, str] = {}

    def whole(lesion: str) -> str:
        while lesion in part_of:
            lesion = part_of[lesion]
        return lesion

    for one, other in pairs:
        if one in lesions and other in lesions:
            first, second = sorted((whole(lesions[one]), whole(lesions[other])))
            if first != second:
                part_of[second] = first
    return {image_id: whole(lesion) for image_id, lesion in lesions.items()}
