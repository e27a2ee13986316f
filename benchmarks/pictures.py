"""Pictures: decoding and shrinking, augmentation, post-processing, each per core.

Enters: how often to measure. Leaves: rows, one after another. The files are drawn: skin with hairs
and pores, JPEG quality 90, at sizes of the release.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from PIL import Image
from scipy.special import expit

from measure import Row, Target, cpu_seconds, in_turn, seconds

SIZE = 224  # side of the cached pictures
SIZES = {
    (450, 600): 12,
    (767, 1022): 6,
    (2304, 3072): 2,
    (4000, 6000): 1,
}  # height, width: pictures
FILES = 120  # of a cache


def draw_jpeg(height: int, width: int, seed: int) -> bytes:
    """A drawn photograph as a JPEG file."""
    from datasets.synthetic import draw_lesion, draw_photograph

    random = np.random.default_rng(seed)
    side = min(height, width, 1024)
    image, _ = draw_photograph(random, draw_lesion(random, "MEL"), (side, side))
    image = cv2.resize(image, (width, height))[..., ::-1]
    return cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, 90))[1].tobytes()


def preprocessing(repetitions: int) -> Iterator[Row]:
    """Bytes of a JPEG file to a cached picture, on one core."""
    import skimage.io
    import skimage.transform

    from datasets.dataset import read_small

    def original(content: bytes) -> np.ndarray:
        image = skimage.io.imread(io.BytesIO(content))
        return skimage.transform.resize(image, (SIZE, SIZE), anti_aliasing=True) * 255

    for (height, width), pictures in SIZES.items():
        files = [draw_jpeg(height, width, seed) for seed in range(pictures)]
        difference = np.mean([np.abs(read_small(f, SIZE)[0] - original(f)) for f in files])

        floors = []

        def decode(file: bytes) -> None:
            with Image.open(io.BytesIO(file)) as picture:
                picture.draft("RGB", (2 * SIZE, 2 * SIZE))
                picture.load()

        def ours(files=files, decode=decode, floors=floors) -> float:
            floors.append(1000 * seconds(lambda: [decode(file) for file in files]) / len(files))
            return 1000 * seconds(lambda: [read_small(file, SIZE) for file in files]) / len(files)

        def reference(files=files) -> float:
            return 1000 * seconds(lambda: [original(file) for file in files]) / len(files)

        with one_opencv_thread():
            measured = in_turn(ours, reference, repetitions)
        small = height < 1000
        yield Row(
            f"pre-processing of {width}x{height} JPEG, one core",
            "scikit-image decode + anti-aliased resize",
            "ms",
            *measured,
            Target(">=", 6 if small else 40),
            "reference / ours",
            note=f"bare decoder {np.median(floors):.2g} ms; "
            f"mean difference {difference:.2f} of 255, at most 1.5",
            sound=bool(difference <= 1.5),
        )


def threads(repetitions: int) -> Iterator[Row]:
    """Building a cache with two threads against one, beside what bare decoders gain."""
    from datasets.ISIC2018 import ISIC2018

    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder)
        images = data_dir / "ISIC2018_Task3_Training_Input"
        images.mkdir()
        content = [draw_jpeg(767, 1022, seed) for seed in range(8)]
        files = [images / f"ISIC_{number:07}.jpg" for number in range(FILES)]
        for number, file in enumerate(files):
            file.write_bytes(content[number % len(content)])

        def build(workers: int) -> float:
            shutil.rmtree(data_dir / "cache", ignore_errors=True)
            # OpenCV's own threads would help out a single one
            with one_opencv_thread(), patch("os.cpu_count", return_value=workers):
                return seconds(lambda: ISIC2018(data_dir).load_images(3, "training", SIZE))

        def decode(workers: int) -> float:
            def bare(file: Path) -> None:
                with Image.open(file) as picture:
                    picture.load()

            with ThreadPoolExecutor(workers) as pool:
                return seconds(lambda: list(pool.map(bare, files)))

        measured = in_turn(lambda: build(1) / build(2), lambda: decode(1) / decode(2), repetitions)
        yield Row(
            "pre-processing, two threads against one",
            "two bare decoders against one",
            "times as fast",
            *measured,
            Target(">=", 0.9),
            "ours / reference",
        )


def augmentation(repetitions: int) -> Iterator[Row]:
    """Flips, any rotation and shifts of image and mask; processor time for each sample."""
    import keras
    import tensorflow
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    from datasets.batches import Batches

    random, number = np.random.default_rng(0), 32
    images = random.integers(0, 256, (number, SIZE, SIZE, 3), dtype=np.uint8)
    masks = (images[..., :1] > 127).astype(np.uint8)
    batches = Batches(
        images, masks, np.arange(number), number, training=True, augmentation="affine"
    )

    def chain(interpolation: str) -> keras.Sequential:
        options = {"fill_mode": "reflect", "interpolation": interpolation}
        return keras.Sequential(
            [
                keras.layers.RandomFlip(seed=1),
                keras.layers.RandomRotation(0.5, seed=2, **options),
                keras.layers.RandomTranslation(0.1, 0.1, seed=3, **options),
            ]
        )

    of_images, of_masks = chain("bilinear"), chain("nearest")
    tensors = tensorflow.constant(images, "float32"), tensorflow.constant(masks, "float32")

    @tensorflow.function
    def layers(image, mask):
        return of_images(image, training=True), of_masks(mask, training=True)

    generator = ImageDataGenerator(
        rotation_range=180,
        width_shift_range=0.1,
        height_shift_range=0.1,
        horizontal_flip=True,
        vertical_flip=True,
        fill_mode="reflect",
    )
    flows = [
        generator.flow(x.astype(np.float32), batch_size=number, seed=1) for x in (images, masks)
    ]

    def per_sample(work) -> float:
        return 1000 * cpu_seconds(work) / number

    references = {
        "chain of Keras layers": lambda: layers(*tensors),
        "ImageDataGenerator of Keras": lambda: [next(flow) for flow in flows],
    }
    for name, reference in references.items():
        measured = in_turn(
            lambda: per_sample(lambda: [batches.make(0, 0) for _ in range(4)]) / 4,
            lambda reference=reference: per_sample(reference),
            repetitions,
        )
        what = "augmentation of image and mask, a sample"
        yield Row(what, name, "ms", *measured, Target(">=", 6), "reference / ours")


def postprocessing(repetitions: int) -> Iterator[Row]:
    """Smoothing, enlargement, threshold, holes and largest part, against two of these steps."""
    import skimage.measure
    import skimage.transform

    from inference.postprocess import PostProcessing, lesion_mask

    height, width = 2304, 3072
    probability, rules = draw_probability(), PostProcessing()

    def original() -> np.ndarray:
        whole = skimage.transform.resize(probability, (height, width), mode="reflect")
        labels = skimage.measure.label(whole > rules.threshold)
        return labels == 1 + np.bincount(labels.ravel())[1:].argmax()

    same = ((lesion_mask(probability, height, width, rules) > 0) == original()).mean()
    measured = in_turn(
        lambda: 1000 * seconds(lambda: lesion_mask(probability, height, width, rules)),
        lambda: 1000 * seconds(original),
        repetitions,
    )
    yield Row(
        f"post-processing of a {width}x{height} mask",
        "scikit-image resize + label alone",
        "ms",
        *measured,
        Target(">=", 10),
        "reference / ours",
        note=f"{100 * same:.1f} % of the pixels alike; ours smooths and fills holes besides",
        sound=bool(same > 0.98),
    )


def draw_probability() -> np.ndarray:
    """A lesion with an uneven border and specks around it, float32 (224, 224) in 0..1."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    noise = cv2.GaussianBlur(random.normal(size=(SIZE, SIZE)), (0, 0), 4)
    return expit((60 - np.hypot(x, y)) / 6 + 4 * noise / noise.std()).astype(np.float32)


class one_opencv_thread:  # noqa: N801 (used like a function)
    """OpenCV on one thread within a `with` block."""

    def __enter__(self) -> None:
        self.before = cv2.getNumThreads()
        cv2.setNumThreads(1)

    def __exit__(self, *_) -> None:
        cv2.setNumThreads(self.before)
