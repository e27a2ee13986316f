"""One side of a comparison of whole epochs, in a process of its own.

python3 side.py ours vgg16 4 2          net, images per step, steps per epoch
python3 side.py theirs vgg16 4 2        segmentation_models_pytorch with decoder widths like ours
python3 side.py default vgg16 4 2       the same with its own default decoder

Says `ready` after an epoch that does not count; then for each line on standard input it trains an
epoch on random pictures, augmentation and reading of the loss included, and answers with seconds.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

SIZE = 224
# decoder widths, coarsest first, and stages of the encoder
DECODERS = {"densenet121": ((512, 256, 128, 64, 32), 5), "vgg16": ((256, 128, 64, 32), 4)}


def pictures(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images uint8 (n, 224, 224, 3) and masks uint8 (n, 224, 224, 1) in {0, 1}."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (number, SIZE, SIZE, 3), dtype=np.uint8)
    return images, (images[..., :1] > 127).astype(np.uint8)


def ours(net: str, batch_size: int, steps: int):
    """An epoch of `fit` as runs/seg_train.py does it, less the held-out images."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from datasets.batches import Batches
    from models.losses import segmentation_loss
    from models.metrics import segmentation_metrics
    from models.unet import build_segmenter
    from training import fit

    model = build_segmenter(net, image_size=SIZE, weights="none")
    model.compile(
        fit.build_optimizer(1e-3, "plateau", 0),
        segmentation_loss("binary_crossentropy"),
        metrics=segmentation_metrics(),
    )
    assert keras.config.floatx() == "float32"
    number = batch_size * steps
    batches = Batches(
        *pictures(number),
        np.arange(number),
        batch_size,
        training=True,
        augmentation="affine",
        workers=4,
    )
    return lambda: model.fit(batches, shuffle=False, verbose=0)


def theirs(net: str, batch_size: int, steps: int, default: bool):
    """The usual loop of PyTorch over a DataLoader with albumentations."""
    import albumentations
    import segmentation_models_pytorch
    import torch
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(os.cpu_count())
    widths, depth = DECODERS[net]
    options = {} if default else {"decoder_channels": widths, "encoder_depth": depth}
    model = segmentation_models_pytorch.Unet(net, encoder_weights=None, **options)
    model = model.to(memory_format=torch.channels_last)  # the faster layout on processors too
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    change = albumentations.Compose(
        [
            albumentations.HorizontalFlip(),
            albumentations.VerticalFlip(),
            albumentations.Affine(
                rotate=(-180, 180), translate_percent=(-0.1, 0.1), border_mode=2, p=1
            ),
        ]
    )

    class Samples(Dataset):
        images, masks = pictures(batch_size * steps)

        def __len__(self) -> int:
            return len(self.images)

        def __getitem__(self, index: int):
            changed = change(image=self.images[index], mask=self.masks[index])
            image = torch.from_numpy(changed["image"]).permute(2, 0, 1).float() / 255
            return image, torch.from_numpy(changed["mask"]).permute(2, 0, 1).float()

    loader = DataLoader(Samples(), batch_size, shuffle=True, num_workers=2, persistent_workers=True)

    def epoch() -> None:
        model.train()
        for images, masks in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(model(images), masks)
            loss.backward()
            optimizer.step()
            loss.item()

    return epoch


def main() -> None:
    side, net, batch_size, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if side == "ours":
        epoch = ours(net, batch_size, steps)
    else:
        epoch = theirs(net, batch_size, steps, side == "default")
    epoch()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        epoch()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
