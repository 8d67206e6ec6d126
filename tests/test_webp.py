"""WebP: chunks around the pixels, and the quality that a file tells."""

import io

import numpy as np
import photographs
import pytest
from PIL import Image

from pix2pix import images
from pix2pix.formats import webp

RGB = Image.fromarray(photographs.pixels(120, 160))
RGBA = Image.fromarray(photographs.pixels(120, 160, channels=4))
TOP = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0", "icc_profile": b"icc" * 7, "xmp": b"<x:xmpmeta/>"}


@pytest.mark.parametrize("quality", [10, 50, 75, 80, 90, 95, 100])
def test_the_quality_is_read_off_the_quantizer(quality: int) -> None:
    for image in (RGB, RGBA):
        parted = webp.parted(photographs.saved(image, "WEBP", quality=quality))
        assert parted.quality() == pytest.approx(quality, abs=7)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("image", [RGB, RGBA])
def test_chunks_come_back_in_their_order(lossless: bool, image: Image.Image) -> None:
    source = photographs.saved(image, "WEBP", lossless=lossless, **TOP)
    source += b"SEFHtrailer"
    body = source[: -len(b"SEFHtrailer")] + b"priv" + (3).to_bytes(4, "little") + b"abc\0"
    source = body[:4] + (len(body) - 8).to_bytes(4, "little") + body[8:] + b"SEFHtrailer"
    result = images.encode(images.decode(source), np.zeros_like(images.decode(source).pixels))
    before, after = webp.parted(source), webp.parted(result)
    assert [name for name, _ in before.chunks] == [name for name, _ in after.chunks]
    coded = {b"VP8 ", b"VP8L"}
    assert [c for c in before.chunks if c[0] not in coded] == [
        c for c in after.chunks if c[0] not in coded
    ]
    assert before.trailing == after.trailing == b"SEFHtrailer"


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("image", [RGB, RGBA])
def test_a_simple_file_becomes_an_extended_one_for_the_mark(
    lossless: bool, image: Image.Image
) -> None:
    source = photographs.saved(image, "WEBP", lossless=lossless, exact=True)
    photograph = images.decode(source)
    result = images.encode(photograph, photograph.pixels, mark="0.3.0")
    opened = Image.open(io.BytesIO(result))
    assert b"pix2pix:Denoised" in opened.info["xmp"]
    assert opened.mode == image.mode
    if lossless:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(opened))


def test_colours_under_full_transparency_stay_in_a_lossless_file() -> None:
    array = np.random.default_rng(0).integers(0, 256, (30, 30, 4), np.uint8)
    array[..., 3] = 0
    source = photographs.saved(Image.fromarray(array), "WEBP", lossless=True, exact=True)
    photograph = images.decode(source)
    result = images.decode(images.encode(photograph, photograph.pixels))
    np.testing.assert_array_equal(array[..., :3], result.pixels)


def test_an_animation_is_refused_by_name() -> None:
    data = photographs.saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(9)])
    with pytest.raises(images.Unsupported, match="animated"):
        images.decode(data)


@pytest.mark.parametrize("cut", [13, 25, 200, -3])
def test_a_cut_file_is_damage(cut: int) -> None:
    with pytest.raises(images.Undecodable, match="truncated"):
        images.decode(photographs.saved(RGB, "WEBP")[:cut])
