import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from datasets import pictures


def encoded(array, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def test_images_become_rgb():
    grey = np.full((4, 6), 77, np.uint8)
    image, height, width = pictures.read_image(encoded(grey))
    assert image.shape == (4, 6, 3) and (height, width) == (4, 6) and (image == 77).all()


def test_a_jpeg_decoded_smaller_keeps_its_true_size():
    content = encoded(np.zeros((400, 640, 3), np.uint8), "JPEG")
    image, height, width = pictures.read_image(content, shortest=100)
    assert (height, width) == (400, 640)
    assert image.shape == (100, 160, 3)


def test_a_cut_jpeg_is_refused():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, "JPEG")
    with pytest.raises(ValueError, match="damaged or cut off"):
        pictures.read_image(content[: len(content) // 2])


@pytest.mark.parametrize("high", [1, 255])
def test_masks_are_zero_and_one(high):
    mask = np.zeros((3, 5), np.uint8)
    mask[1, 2] = high
    read = pictures.read_mask(encoded(mask))
    assert read.dtype == np.uint8 and read.sum() == 1 and read[1, 2] == 1


@pytest.mark.parametrize("values", [(0, 128), (0, 1, 255), (0, 3, 255), (7,)])
def test_masks_of_other_values_are_refused(values):
    mask = np.resize(np.array(values, np.uint8), (3, 4))
    with pytest.raises(ValueError, match=str(values[-1])):
        pictures.read_mask(encoded(mask))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type


def png(values, bits, kind, palette=b""):
    """A PNG of whole numbers (H, W, channels) by hand, as Pillow writes only some kinds."""

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    lines = b""
    for row in values.reshape(len(values), -1).tolist():
        text = "".join(format(value, f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        lines += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    height, width = values.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head) + (chunk(b"PLTE", palette) if palette else b"")
    parts += chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def stored(bits, kind, low, high):
    """A PNG (6, 8) of that kind: `high` in a rectangle of six pixels, `low` around it."""
    values = np.full((6, 8, CHANNELS[kind]), low)
    values[2:4, 3:6] = high
    if kind in (4, 6):
        values[..., -1] = 2**bits - 1  # opaque
    palette = b""
    if kind == 3:
        values, palette = (values == high) * 1, bytes([low] * 3 + [high] * 3)
    return png(values, bits, kind, palette)


KINDS = [(0, b) for b in (1, 2, 4, 8, 16)] + [(2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]
KINDS += [(3, b) for b in (1, 2, 4, 8)]


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_every_depth_and_channel_count_is_read_as_what_it_shows(kind, bits):
    most = 255 if kind == 3 else 2**bits - 1
    expected = np.zeros((6, 8), bool)
    expected[2:4, 3:6] = True
    image, _, _ = pictures.read_image(stored(bits, kind, 0, most))
    assert image.dtype == np.uint8 and (image == 255 * expected[..., None]).all()
    for high in {most, min(255, most)}:
        assert (pictures.read_mask(stored(bits, kind, 0, high)) == expected).all()
    if bits >= 8 or kind == 3:
        half = pictures.read_image(stored(bits, kind, most // 4, most // 2))[0]
        assert (half[2, 3] == 127).all() and (half[0, 0] == 63).all()


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
@pytest.mark.parametrize("most", [255, 4095])
def test_an_image_of_few_bits_stored_in_sixteen_is_refused(kind, most):
    """Its colours would all be black; how bright they are meant to be is not said."""
    with pytest.raises(ValueError, match="16 bits per channel, but no value above 4095"):
        pictures.read_image(stored(16, kind, 100, most))


def tiff(array, *tags):
    """An uncompressed TIFF as OpenCV writes it, with other tags: (number, value) of type SHORT."""
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    content = bytearray(cv2.imencode(".tiff", array, options)[1].tobytes())
    start = struct.unpack_from("<I", content, 4)[0]
    for k in range(struct.unpack_from("<H", content, start)[0]):
        number = struct.unpack_from("<H", content, start + 2 + 12 * k)[0]
        for tag, value in tags:
            if tag == number:
                struct.pack_into("<HIHH", content, start + 4 + 12 * k, 3, 1, value, 0)
    return bytes(content)


def test_tiff_of_sixteen_bits():
    grey = np.full((5, 7), 30000, np.uint16)
    grey[1:3, 2:4] = 65535
    rgb = np.repeat(grey[..., None], 3, 2)
    for array in (grey, rgb):
        image = pictures.read_image(tiff(array))[0]
        assert (image[1, 2] == 255).all() and (image[0, 0] == 117).all()
        with pytest.raises(ValueError, match="16 bits per channel"):
            pictures.read_image(tiff(array // 16))
    mask = np.where(grey == 65535, 255, 0).astype(np.uint16)
    assert pictures.read_mask(tiff(mask)).sum() == 4
    with pytest.raises(ValueError, match="grey PNG with 8 bits"):
        pictures.read_mask(tiff(np.repeat(mask[..., None], 3, 2)))
    with pytest.raises(ValueError, match="from white to black"):
        pictures.read_mask(tiff(mask, (262, 0)))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_numbers_that_are_no_brightness_are_refused(kind):
    content = encoded(np.full((4, 4), 1, kind), "TIFF")
    for read in (pictures.read_image, pictures.read_mask):
        with pytest.raises(ValueError, match="save it with 8 bits"):
            read(content)


def profile(name=b"\0x\0R\0G\0B") -> bytes:
    """sRGB under another name, with the columns of red and blue exchanged."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for old, new in ((b"rXYZ", b"????"), (b"bXYZ", b"rXYZ"), (b"????", b"bXYZ")):
        content = content.replace(old, new, 1)
    return content.replace(b"\0s\0R\0G\0B", name)


def test_colours_are_those_of_the_profile():
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 0] = 200
    blue = red[..., ::-1].astype(int)
    for kind, options in (("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0}), ("TIFF", {})):
        shown = pictures.read_image(encoded(red, kind, icc_profile=profile(), **options))[0]
        assert np.abs(shown - blue).max() < 8, kind
    small = pictures.read_image(encoded(np.tile(red, (9, 9, 1)), "JPEG", icc_profile=profile()), 10)
    assert small[0].shape[0] < 54 and np.abs(small[0] - blue[0, 0]).max() < 8


def test_profiles_that_change_nothing():
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 0] = 200
    for content in (profile(b"\0s\0R\0G\0B"), b"no profile", profile()[:200], b""):
        assert (pictures.read_image(encoded(red, icc_profile=content))[0] == red).all()
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4] = 255
    assert pictures.read_mask(encoded(mask, icc_profile=profile())).sum() == 16
