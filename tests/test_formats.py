"""What holds for photographs of every format: round trips, marks, turns, limits."""

import io
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import photographs
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pix2pix import images

SAMPLES = photographs.samples()
KEPT = {name: data for name, data in SAMPLES.items() if "palette" not in name}
LOSSY = ("jpeg", "webp", "avif", "heic")
FORMATS = {"jpeg": "JPEG", "png": "PNG", "tiff": "TIFF", "webp": "WebP", "avif": "AVIF"} | {
    "heic": "HEIC"
}
ORIENTATION = 0x0112


def unchanged(data: bytes, **options: str | int | None) -> bytes:
    photograph = images.decode(data)
    return images.encode(photograph, photograph.pixels, **options)


@pytest.mark.parametrize("name", KEPT)
def test_a_photograph_goes_round(name: str) -> None:
    before, after = images.decode(KEPT[name]), images.decode(unchanged(KEPT[name]))
    assert before.format == after.format == FORMATS[name.split()[0]]
    assert (before.mode, before.bit_depth) == (after.mode, after.bit_depth)
    assert before.pixels.dtype == after.pixels.dtype
    if name.startswith(LOSSY) and "lossless" not in name:
        assert photographs.psnr_db(before.pixels, after.pixels) > 33
    else:
        np.testing.assert_array_equal(before.pixels, after.pixels)
    if before.alpha is not None:
        np.testing.assert_array_equal(before.alpha, after.alpha)


@pytest.mark.parametrize("name", KEPT)
def test_other_pixels_are_written(name: str) -> None:
    photograph = images.decode(KEPT[name])
    brightest = np.iinfo(photograph.pixels.dtype).max
    other = np.full_like(photograph.pixels, brightest // 3)
    result = images.decode(images.encode(photograph, other))
    assert photographs.psnr_db(other, result.pixels) > 40
    if photograph.alpha is not None:
        np.testing.assert_array_equal(photograph.alpha, result.alpha)


@pytest.mark.parametrize("name", KEPT)
def test_a_mark_is_read_back_and_replaced(name: str) -> None:
    assert not images.decode(KEPT[name]).is_denoised
    once = unchanged(KEPT[name], mark="0.3.0 sha256:0f strength=1")
    photograph = images.decode(once)
    # The progressive sample's packet is no XMP at all, so it stays as it is, unmarked.
    assert photograph.is_denoised == (photograph.source.xmp != b"<x:xmpmeta/>")
    if photograph.is_denoised:
        twice = unchanged(once, mark='0.4.0 <&"> é')
        assert images.decode(twice).source.xmp.count(b"Denoised=") == 1
        assert b"0.4.0 &lt;&amp;" in images.decode(twice).source.xmp


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_packet_that_cannot_be_extended_stays_as_it_is(name: str) -> None:
    packet = {"xmp": b"no XML at all"}
    if name == "TIFF":
        packet = {"tiffinfo": {700: b"no XML at all"}}
    if name == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", "no XML at all", "en", "a keyword")
        packet = {"pnginfo": text}
    source = photographs.saved(Image.fromarray(photographs.pixels()), name, **packet)
    assert images.decode(source).source.xmp == b"no XML at all"
    assert unchanged(source) == unchanged(source, mark="0.3.0")


class Failing:
    """A source whose encoder fails as imagecodecs or Pillow do."""

    format, mode, bit_depth, xmp, xmp_bytes = "PNG", "RGB", 8, None, 0

    def __init__(self, error: Exception) -> None:
        self.error = error

    def encoded(self, *_: object) -> bytes:
        raise self.error


@pytest.mark.parametrize("error", [imagecodecs.PngError("png", "no"), OSError("no")])
def test_an_encoder_that_fails_is_unsupported(error: Exception) -> None:
    pixels = photographs.pixels()
    with pytest.raises(images.Unsupported, match=r"PNG can't be written: .*no"):
        images.encode(images.Photograph(pixels, None, Failing(error)), pixels)


@pytest.mark.parametrize("name", KEPT)
def test_pixels_only_are_those_of_the_photograph_in_8_bits(name: str) -> None:
    expected = images.eight_bit(images.decode(KEPT[name]).pixels)
    np.testing.assert_array_equal(expected, images.decode_rgb(KEPT[name]))


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_ramp_of_16_bits_keeps_all_its_levels(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = np.ascontiguousarray(np.stack([ramp, ramp[::-1], ramp.T], -1))
    data = (
        bytes(imagecodecs.png_encode(rgb))
        if kind == "png"
        else photographs.tiff(rgb, photometric="rgb", compression="lzw", predictor=2)
    )
    photograph = images.decode(unchanged(data))
    assert len(np.unique(photograph.pixels[..., 0])) == 65536
    np.testing.assert_array_equal(rgb, photograph.pixels)


def test_eight_bits_are_a_257th_rounded() -> None:
    levels = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(np.rint(levels / 257), images.eight_bit(levels))
    same = np.zeros((2, 2, 3), np.uint8)
    assert images.eight_bit(same) is same


def turned(name: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(photographs.pixels())
    if name == "TIFF":
        tag = [(ORIENTATION, "H", 1, orientation, True)]
        return photographs.tiff(photographs.pixels(), photometric="rgb", extratags=tag)
    if name == "HEIC":
        file = io.BytesIO()
        pillow_heif.from_pillow(image).save(file, quality=90, exif=exif.tobytes())
        return file.getvalue()
    return photographs.saved(image, name, exif=exif)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_stays_as_it_was_turned(name: str, orientation: int) -> None:
    source = turned(name, orientation)
    result = unchanged(source)
    assert images.decode(source).pixels.shape == (40, 56, 3)
    if name == "HEIC":
        before, after = pillow_heif.open_heif(source), pillow_heif.open_heif(result)
        assert before.size == after.size
        assert photographs.psnr_db(np.asarray(before), np.asarray(after)) > 33
        return
    before, after = (Image.open(io.BytesIO(data)) for data in (source, result))
    assert before.getexif().get(ORIENTATION) == after.getexif().get(ORIENTATION)
    assert before.size == after.size


@given(
    size=st.tuples(st.integers(1, 33), st.integers(1, 33)),
    channels=st.integers(1, 4),
    bits=st.sampled_from([8, 16]),
    kind=st.sampled_from(["png", "tiff none", "tiff lzw", "tiff zlib", "tiff packbits"]),
    tile=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_any_lossless_photograph_comes_back_exactly(
    size: tuple[int, int], channels: int, bits: int, kind: str, tile: bool, seed: int
) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    shape = size if channels == 1 else (*size, channels)
    array = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype)
    if kind == "png":
        data = bytes(imagecodecs.png_encode(array))
    else:
        compression = kind.removeprefix("tiff ")
        data = photographs.tiff(
            array,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            compression=None if compression == "none" else compression,
            predictor=2 if compression in ("lzw", "zlib") and seed % 2 else None,
            tile=(16, 16) if tile else None,
            byteorder="<>"[seed % 2],
        )
    photograph = images.decode(unchanged(data, mark="x"))
    stored = array.reshape(*size, channels)
    colors = stored[..., :3] if channels > 2 else np.repeat(stored[..., :1], 3, -1)
    np.testing.assert_array_equal(colors, photograph.pixels)
    if channels in (2, 4):
        np.testing.assert_array_equal(stored[..., -1], photograph.alpha)


def large_claims() -> dict[str, bytes]:
    """Files of each format whose headers say 60000x60000 pixels (WebP can't say as many)."""
    sides = {"jpeg": (40).to_bytes(2, "big") + (56).to_bytes(2, "big")}
    jpeg, png, avif, heic = (SAMPLES[name] for name in ("jpeg", "png", "avif 10", "heic tiles"))
    side = (60000).to_bytes(4, "big")
    tiff = photographs.tiff(photographs.pixels(), photometric="rgb")
    width = tiff.index(b"\0\1\4\0\1\0\0\0"), tiff.index(b"\1\1\4\0\1\0\0\0")
    result = bytearray(tiff)
    for place in width:
        result[place + 8 : place + 12] = (60000).to_bytes(4, "little")
    ispe = {data: data.index(b"ispe") + 8 for data in (avif, heic)}
    return {
        "jpeg": jpeg.replace(b"\x08" + sides["jpeg"], b"\x08" + side[2:] * 2),
        "png": photographs.with_true_checksums(png[:16] + side * 2 + png[24:]),
        "tiff": bytes(result),
        "avif": avif[: ispe[avif]] + side * 2 + avif[ispe[avif] + 8 :],
        "heic": heic[: ispe[heic]] + side * 2 + heic[ispe[heic] + 8 :],
    }


@pytest.mark.parametrize("name", large_claims())
def test_a_claim_of_60000_by_60000_costs_nothing(name: str) -> None:
    data = large_claims()[name]
    started = time.monotonic()
    tracemalloc.start()
    for decoder in (images.decode, images.decode_rgb):
        with pytest.raises(images.TooLarge, match="60000x"):
            decoder(data)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert time.monotonic() - started < 1


def with_chunk(name: bytes, content: bytes) -> bytes:
    """The PNG sample with a chunk before its pixels."""
    data = SAMPLES["png 16"]
    size, place = len(content).to_bytes(4, "big"), data.index(b"IDAT") - 4
    return photographs.with_true_checksums(
        data[:place] + size + name + content + bytes(4) + data[place:]
    )


@pytest.mark.parametrize("name", [b"iTXt", b"iCCP", b"zTXt"])
def test_a_chunk_that_inflates_to_256_mb_costs_little(name: bytes) -> None:
    squeezer = zlib.compressobj(1)
    bomb = b"".join(squeezer.compress(bytes(2**20)) for _ in range(256)) + squeezer.flush()
    heads = {b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0", b"iCCP": b"p\0\0", b"zTXt": b"t\0\0"}
    data = with_chunk(name, heads[name] + bomb)
    tracemalloc.start()
    photograph = images.decode(data)
    assert not photograph.is_denoised
    result = images.encode(photograph, photograph.pixels)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
    assert heads[name] + bomb in result


def test_a_thousand_scans_of_many_pixels_are_refused_by_name() -> None:
    data = photographs.saved(Image.new("L", (8000, 8000)), "JPEG", progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    with pytest.raises(images.Unsupported, match=r"8000x8000 pixels in .* scans"):
        images.decode(data[:end] + data[start:end] * 100 + data[end:])


def test_a_million_empty_chunks_are_damage() -> None:
    empty = with_chunk(b"tEXt", b"")
    place = empty.index(b"tEXt") - 4
    data = empty[:place] + empty[place : place + 12] * 2**20 + empty[place:]
    with pytest.raises(images.Undecodable, match="more than 524288 chunks"):
        images.decode(data)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "avif", "heic 10"])
def test_a_lower_quality_gives_a_smaller_file(kind: str) -> None:
    sizes = [len(unchanged(KEPT[kind], quality=quality)) for quality in (30, 95)]
    assert sizes[0] < sizes[1]
    with pytest.raises(ValueError, match="quality=0 must be 1 to 100"):
        unchanged(KEPT[kind], quality=0)


def test_pixels_of_another_depth_are_refused() -> None:
    photograph = images.decode(KEPT["png 16"])
    with pytest.raises(ValueError, match=r"pixels are uint8 .*takes back uint16"):
        images.encode(photograph, images.eight_bit(photograph.pixels))


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_raises_nothing_but_our_three_errors(name: str) -> None:
    assert damage_survived(name, seconds=0.4, seed=0) > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_much_damage_neither_ends_the_process_nor_fills_it(name: str) -> None:
    code = f"import test_formats; print(test_formats.damage_survived({name!r}, 15, 1))"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 500


def damage_survived(name: str, seconds: float, seed: int) -> int:
    """How many damaged files were decoded and written back, or refused with one of our errors."""
    import random
    import resource

    chance, count, end = random.Random(seed), 0, time.monotonic() + seconds
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while time.monotonic() < end:
        data = photographs.damaged(SAMPLES[name], chance)
        data = photographs.with_true_checksums(data) if chance.random() < 0.7 else data
        for decoder in (images.decode, images.decode_rgb):
            try:
                result = decoder(data)
                if isinstance(result, images.Photograph) and count % 8 == 0:
                    images.encode(result, result.pixels, mark="damage")
            except (images.Unsupported, images.TooLarge, images.Undecodable):
                pass
        count += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    return count


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_200_megapixels_cost_source_pixels_and_copies_of_the_file(kind: str) -> None:
    code = f"import test_formats; test_formats.peak({kind!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=True,
    )
    source, pixels, decoding, encoding = map(int, done.stdout.split())
    # PNG: libpng wants the file's chunks in a piece, and its result is copied between the others.
    assert decoding < pixels + (2 if kind == "png" else 1) * source + 60
    assert encoding < pixels + (3 if kind == "png" else 2) * source + 60


def peak(kind: str) -> None:
    """Print megabytes of a file of 200 megapixels, its pixels, and peaks of reading and writing."""
    status = Path("/proc/self/status")

    def megabytes(name: str) -> int:
        return next(int(x.split()[1]) // 1024 for x in status.open() if x.startswith(name))

    noise = np.random.default_rng(0).integers(60, 124, (1000, 20000, 3), dtype=np.uint8)
    array = np.tile(noise, (10, 1, 1))
    if kind == "png":
        data = bytes(imagecodecs.png_encode(array, level=1, filter=16, strategy=3))
    else:
        data = photographs.tiff(array, photometric="rgb", rowsperstrip=64)
    del array, noise
    reset = Path("/proc/self/clear_refs")
    reset.write_text("5")
    base = megabytes("VmRSS") - len(data) // 2**20
    photograph = images.decode(data)
    decoding = megabytes("VmHWM") - base
    reset.write_text("5")
    images.encode(photograph, photograph.pixels, mark="x")
    encoding = megabytes("VmHWM") - base
    print(len(data) // 2**20, photograph.pixels.nbytes // 2**20, decoding, encoding)  # noqa: T201
