"""What framework and model need alone: training and predicting on one batch in memory."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import keras
import numpy as np

from models.losses import segmentation_loss
from models.metrics import segmentation_metrics
from models.unet import build_segmenter

images = np.zeros((32, 224, 224, 3), np.uint8)
masks = np.zeros((32, 224, 224, 1), np.float32)
model = build_segmenter("tiny", image_size=224, weights="none")
model.compile(
    keras.optimizers.Adam(1e-3),
    segmentation_loss("binary_crossentropy"),
    metrics=segmentation_metrics(),
)
for _ in range(5):
    model.train_on_batch(images, masks)
model.test_on_batch(images, masks)
keras.Model(model.input, model.get_layer("logits").output).predict_on_batch(images)
