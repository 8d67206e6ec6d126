"""JPEG and PNG, bytes to pixels and back: what comes back the same, and what is refused by name."""

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import get_sampling

from pix2pix import images
from pix2pix.formats import jpeg

PNG_MODES = ["RGB", "L", "RGBA", "LA"]
ORIENTATION = 0x0112


def picture(height: int = 48, width: int = 64, mode: str = "RGB") -> Image.Image:
    """Slopes, an edge and a little noise: no side looks like another."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 160 / height, columns * 180 / width, (rows + columns) % 97 + 20]
    channels.append(255 - columns * 200 / width)  # the alpha
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 4))
    values = np.clip(np.stack(channels, -1) + 40 * (columns > width / 3)[..., None] + noise, 0, 255)
    rgba = Image.fromarray(values.astype(np.uint8))
    return rgba if mode == "RGBA" else rgba.convert(mode)


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def tables(jpeg_data: bytes) -> list[list[int]]:
    """The quantization table of each component."""
    image = opened(jpeg_data)
    return [image.quantization[table] for *_, table in image.layer]


def unchanged(data: bytes) -> bytes:
    photograph = images.decode(data)
    return images.encode(photograph, photograph.pixels)


def segment(code: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes, without_jfif: bool = False) -> bytes:
    """A JPEG by Pillow with these segments after its JFIF header, or instead of it."""
    jfif_end = 4 + int.from_bytes(jpeg[4:6], "big")
    head = jpeg[:2] if without_jfif else jpeg[:jfif_end]
    return head + b"".join(segments) + jpeg[jfif_end:]


def patched(jpeg: bytes, frame: int | None = None, bit_depth: int = 8) -> bytes:
    """A baseline JPEG whose header says another coding or bit depth."""
    start = jpeg.index(b"\xff\xc0\x00\x11\x08")
    code = 0xC0 if frame is None else frame
    return jpeg[: start + 1] + bytes([code, 0, 0x11, bit_depth]) + jpeg[start + 5 :]


def chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )


def png(header: bytes, rows: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    pixels = chunk(b"IDAT", zlib.compress(rows))
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), before, pixels, after]
    return b"".join([*parts, chunk(b"IEND", b"")])


def png_header(width: int, height: int, bit_depth: int = 8, color: int = 2) -> bytes:
    return struct.pack(">IIBBBBB", width, height, bit_depth, color, 0, 0, 0)


def chunk_names(data: bytes) -> list[bytes]:
    names, position = [], 8
    while position < len(data):
        names.append(data[position + 4 : position + 8])
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return names


JPEG = saved(picture(), "JPEG", quality=90)
PNG = saved(picture(), "PNG")


# What comes back the same


@pytest.mark.parametrize("mode", PNG_MODES)
def test_png_with_unchanged_pixels_comes_back_exactly(mode: str) -> None:
    source = picture(mode=mode)
    result = opened(unchanged(saved(source, "PNG")))
    assert result.mode == mode
    np.testing.assert_array_equal(np.asarray(source), np.asarray(result))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_back_under_new_pixels(mode: str) -> None:
    photograph = images.decode(saved(picture(mode=mode), "PNG"))
    result = opened(images.encode(photograph, np.zeros_like(photograph.pixels)))
    expected = np.asarray(picture(mode=mode))[..., -1]
    np.testing.assert_array_equal(expected, np.asarray(result)[..., -1])
    assert not np.asarray(result)[..., :-1].any()


def test_grey_takes_the_rounded_mean_of_the_channels() -> None:
    photograph = images.decode(saved(Image.new("L", (2, 1)), "PNG"))
    result = images.encode(photograph, np.array([[[10, 10, 11], [10, 11, 11]]], np.uint8))
    assert opened(result).mode == "L"
    np.testing.assert_array_equal([[10, 11]], np.asarray(opened(result)))


def test_an_interlaced_png_is_read() -> None:
    # Adam7 of a 2x2 picture: passes 1, 6 and 7 hold (0,0); (0,1); and the second row.
    rows = b"\0\x01\x02\x03" + b"\0\x04\x05\x06" + b"\0\x07\x08\x09\x0a\x0b\x0c"
    header = png_header(2, 2)[:-1] + b"\x01"
    expected = np.arange(1, 13, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(expected, images.decode(png(header, rows)).pixels)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_keeps_its_coding(subsampling: int, progressive: bool) -> None:
    options = {"quality": 83, "subsampling": subsampling, "progressive": progressive}
    source = opened(saved(picture(), "JPEG", **options))
    result = opened(unchanged(saved(picture(), "JPEG", **options)))
    assert source.quantization == result.quantization
    assert get_sampling(source) == get_sampling(result)
    assert progressive == bool(result.info.get("progressive"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_with_unchanged_pixels_hardly_changes(mode: str) -> None:
    source = saved(picture(mode=mode), "JPEG", quality=90)
    result = opened(unchanged(source))
    assert result.mode == mode
    assert psnr_db(np.asarray(opened(source)), np.asarray(result)) > 45


def test_three_quantization_tables_stay_with_their_components() -> None:
    tables = [[4] * 64, [9] * 64, [25] * 64]
    result = opened(unchanged(saved(picture(), "JPEG", qtables=tables, subsampling=0)))
    assert tables == [result.quantization[table] for *_, table in result.layer]


def test_a_subsampling_that_cannot_be_written_becomes_full_resolution() -> None:
    flat = np.asarray(opened(saved(Image.new("RGB", (16, 16), (200, 60, 90)), "JPEG")))
    data = saved(Image.new("RGB", (16, 16), (200, 60, 90)), "JPEG", subsampling=1)
    start = data.index(b"\xff\xc0\x00\x11\x08")
    assert data[start + 11] == 0x21
    data = data[: start + 11] + b"\x12" + data[start + 12 :]  # 4:2:2 lying down becomes upright
    result = opened(unchanged(data))
    assert get_sampling(result) == 0
    assert psnr_db(flat, np.asarray(result)) > 40


def test_restart_markers_are_read() -> None:
    data = saved(picture(), "JPEG", restart_marker_blocks=2)
    assert b"\xff\xd3" in data
    np.testing.assert_array_equal(np.asarray(opened(data)), images.decode(data).pixels)


@pytest.mark.parametrize("segments", [[], [segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")]])
def test_a_jpeg_that_stores_rgb_keeps_its_colours(segments: list[bytes]) -> None:
    source = saved(picture(), "JPEG", quality=95, keep_rgb=True)
    adobe_end = 4 + int.from_bytes(source[4:6], "big")
    assert source[2:4] == b"\xff\xee"
    source = source[:2] + b"".join(segments) + source[adobe_end:]
    assert psnr_db(np.asarray(picture()), images.decode(source).pixels) > 40
    result = unchanged(source)
    assert psnr_db(np.asarray(picture()), np.asarray(opened(result))) > 40
    np.testing.assert_array_equal(np.asarray(opened(result)), images.decode_rgb(result))


@pytest.mark.parametrize("segments", [[], [segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01")]])
def test_a_jpeg_without_jfif_keeps_its_colours(segments: list[bytes]) -> None:
    source = with_segments(JPEG, *segments, without_jfif=True)
    result = unchanged(source)
    assert b"JFIF" not in result
    assert psnr_db(np.asarray(picture()), images.decode(source).pixels) > 33
    assert psnr_db(np.asarray(opened(source)), np.asarray(opened(result))) > 45
    np.testing.assert_array_equal(np.asarray(opened(result)), images.decode_rgb(result))


@pytest.mark.parametrize("progressive", [False, True])
def test_noise_at_the_highest_quality_is_written(
    progressive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (300, 300, 3), dtype=np.uint8) * 255
    # Pillow writes the progressive source only with a larger buffer; ours must do without.
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 2**20)
    options = {"qtables": [[1] * 64], "subsampling": 0, "progressive": progressive}
    data = saved(Image.fromarray(noise), "JPEG", **options)
    monkeypatch.undo()
    result = images.decode(unchanged(data))
    assert psnr_db(noise, result.pixels) > 40


def test_a_photograph_says_what_the_file_holds() -> None:
    photograph = images.decode(saved(picture(5, 7, "LA"), "PNG"))
    values = (photograph.height, photograph.width, photograph.channels, photograph.bit_depth)
    assert values == (5, 7, 2, 8)
    assert (photograph.format, photograph.mode) == ("PNG", "LA")


# Metadata


@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_viewers_turn_the_result_upright_once(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    source = saved(picture(), format_name, exif=exif, quality=95)
    result = opened(unchanged(source))
    assert result.getexif()[ORIENTATION] == orientation
    expected = np.asarray(ImageOps.exif_transpose(opened(source)))
    upright = np.asarray(ImageOps.exif_transpose(result))
    assert expected.shape == upright.shape
    assert psnr_db(expected, upright) > 45


def test_jpeg_metadata_stays_byte_for_byte_and_in_order() -> None:
    thumbnail = saved(picture(12, 16), "JPEG")
    profile = bytes(range(256)) * 300  # needs two segments
    segments = [
        segment(0xE1, b"Exif\0\0" + picture_exif() + thumbnail),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
        segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)),
        segment(0xE2, b"ICC_PROFILE\0\x01\x02" + profile[:60000]),
        segment(0xE2, b"ICC_PROFILE\0\x02\x02" + profile[60000:]),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\0"),
        segment(0xFE, b"a comment"),
        segment(0xE7, b"\0\xff\xd9 a maker's own"),
    ]
    result = unchanged(with_segments(JPEG, *segments))
    assert result.startswith(JPEG[:20] + b"".join(segments) + b"\xff\xdb")
    assert result.count(b"JFIF") == JPEG.count(b"JFIF") + thumbnail.count(b"JFIF")
    assert opened(result).info["icc_profile"] == profile
    assert opened(result).getexif()[0x010F] == "maker"


def picture_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_png_metadata_stays_on_its_side_of_the_pixels() -> None:
    before = [
        chunk(b"gAMA", struct.pack(">I", 45455)),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile")),
        chunk(b"sBIT", b"\x08\x08\x08"),
        chunk(b"bKGD", bytes(6)),
        chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        chunk(b"tIME", b"\x07\xea\x01\x02\x03\x04\x05"),
        chunk(b"tEXt", b"Title\0one"),
        chunk(b"zTXt", b"Note\0\0" + zlib.compress(b"two")),
        chunk(b"prVt", b"private, safe to copy"),
    ]
    after = [chunk(b"eXIf", picture_exif()), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x/>")]
    rows = b"".join(b"\0" + bytes(range(12)) for _ in range(3))
    source = png(png_header(4, 3), rows, b"".join(before), b"".join(after))
    result = unchanged(source)
    assert result.startswith(source[:33] + b"".join(before))
    assert result.endswith(b"".join(after) + chunk(b"IEND", b""))
    assert len(before + after) + 3 == len(chunk_names(result))


def test_png_chunks_that_would_be_untrue_are_dropped() -> None:
    chunks = [chunk(b"hIST", b"\0\1"), chunk(b"iDOT", bytes(28)), chunk(b"prVT", b"unsafe to copy")]
    rows = (b"\0" + bytes(12)) * 3
    result = unchanged(png(png_header(4, 3), rows, b"".join(chunks)))
    assert chunk_names(result) == [b"IHDR", b"IDAT", b"IEND"]


@pytest.mark.parametrize(
    "behind", [bytes(5000) + b"\r\n", b"\0\0\0\x18ftypmp42" + bytes(range(99))]
)
def test_what_follows_the_end_goes_along(behind: bytes) -> None:
    for data in (JPEG, PNG):
        assert unchanged(data + behind) == unchanged(data) + behind


private = st.tuples(st.sampled_from([0xE3, 0xE5, 0xEC, 0xFE]), st.binary(max_size=40))


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(["RGB", "L"]),
    quality=st.integers(50, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    orientation=st.integers(1, 8),
    others=st.lists(private, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_any_jpeg_goes_round(
    size: tuple[int, int],
    mode: str,
    quality: int,
    subsampling: int,
    progressive: bool,
    orientation: int,
    others: list[tuple[int, bytes]],
    seed: int,
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    source = saved(
        Image.fromarray(noise).convert(mode),
        "JPEG",
        **{"quality": quality, "subsampling": subsampling, "progressive": progressive},
        exif=exif,
    )
    source = with_segments(source, *(segment(*other) for other in others))
    result = unchanged(source)
    first, second = images.decode(source), images.decode(result)
    assert jpeg.parted(source).segments == jpeg.parted(result).segments
    assert tables(source) == tables(result)
    assert get_sampling(opened(source)) == get_sampling(opened(result))
    assert second.pixels.shape == first.pixels.shape
    assert opened(source).size == opened(result).size
    assert opened(source).getexif()[ORIENTATION] == opened(result).getexif()[ORIENTATION]
    np.testing.assert_array_equal(np.asarray(opened(source).convert("RGB")), first.pixels)
    np.testing.assert_array_equal(np.asarray(opened(result).convert("RGB")), second.pixels)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    mode=st.sampled_from(PNG_MODES),
    level=st.integers(0, 9),
    orientation=st.integers(1, 8),
    profile=st.binary(max_size=60),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_any_png_goes_round(
    size: tuple[int, int], mode: str, level: int, orientation: int, profile: bytes, seed: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 4), dtype=np.uint8)
    source = saved(
        Image.fromarray(noise).convert(mode),
        "PNG",
        **{"compress_level": level, "exif": exif, "icc_profile": profile},
    )
    result = unchanged(source)
    assert chunk_names(source) == chunk_names(result)
    assert opened(source).info == opened(result).info
    np.testing.assert_array_equal(np.asarray(opened(source)), np.asarray(opened(result)))


# Pixels only


@pytest.mark.parametrize("mode", PNG_MODES)
def test_decode_rgb_drops_alpha_and_spreads_grey(mode: str) -> None:
    expected = np.asarray(
        picture(mode=mode).convert(mode[:3] if mode != "LA" else "L").convert("RGB")
    )
    np.testing.assert_array_equal(expected, images.decode_rgb(saved(picture(mode=mode), "PNG")))


@pytest.mark.parametrize("colors", [2, 16, 200])
def test_decode_rgb_looks_up_a_palette(colors: int) -> None:
    source = picture().quantize(colors)
    expected = np.asarray(source.convert("RGB"))
    np.testing.assert_array_equal(expected, images.decode_rgb(saved(source, "PNG")))


def test_decode_rgb_reads_a_jpeg_as_decode_does() -> None:
    np.testing.assert_array_equal(images.decode(JPEG).pixels, images.decode_rgb(JPEG))


# What is refused


def separate_scans(late_table: bool) -> bytes:
    """A colour JPEG of one scan a component, each taken from a grey JPEG."""
    grey = saved(picture(16, 16, "L"), "JPEG")
    table, frame, scan = (grey.index(b"\xff" + code) for code in (b"\xdb", b"\xc0", b"\xda"))
    quantization, huffman = grey[table:frame], grey[frame + 13 : scan]
    second = quantization[:4] + b"\x01" + quantization[5:]
    components = [b"\1\x11\0", b"\2\x11\1", b"\3\x11\1"]
    header = segment(0xC0, b"\x08\0\x10\0\x10\x03" + b"".join(components))
    first, *others = (grey[scan : scan + 5] + c[:1] + grey[scan + 6 : -2] for c in components)
    tables = [first, second] if late_table else [second, first]
    parts = [grey[:frame], header, huffman, *tables, *others, b"\xff\xd9"]
    return b"".join(parts)


def test_scans_of_one_component_each_are_read() -> None:
    data = separate_scans(late_table=False)
    np.testing.assert_array_equal(np.asarray(opened(data)), images.decode(data).pixels)
    assert len(unchanged(data)) > 0


def refused() -> dict[str, tuple[bytes, str]]:
    """For each kind that would be spoiled: a file and what the error must name."""
    rgb = picture()
    animated = saved(rgb, "PNG", save_all=True, append_images=[ImageOps.mirror(rgb)])
    rows = (b"\0" + bytes(24)) * 3
    trns = chunk(b"tRNS", bytes(6))
    return {
        "GIF": (saved(rgb, "GIF"), "GIF"),
        "BMP": (saved(rgb, "BMP"), "BMP"),
        "JPEG 2000": (saved(rgb, "JPEG2000", no_jp2=False), "JPEG 2000"),
        "Canon raw": (b"\0\0\0\x18ftypcrx \0\0\0\1", "Canon raw"),
        "Fujifilm raw": (b"FUJIFILMCCD-RAW 0201", "Fujifilm raw"),
        "JPEG XL": (b"\xff\x0a\xfa\x1f\x41", "JPEG XL"),
        "1-bit": (saved(rgb.convert("1"), "PNG"), "bit depth is 1"),
        "4-bit": (png(png_header(4, 3, 4, 0), b"\0\0\0" * 3), "bit depth is 4"),
        "palette": (saved(rgb.quantize(9), "PNG"), "palette"),
        "colour key": (png(png_header(4, 3), (b"\0" + bytes(12)) * 3, trns), "tRNS"),
        "animated": (animated, "animated"),
        "unknown need": (png(png_header(4, 3), rows, chunk(b"CgBI", b"")), "CgBI"),
        "CMYK": (saved(rgb.convert("CMYK"), "JPEG"), "CMYK"),
        "12-bit": (patched(JPEG, bit_depth=12), "bit depth is 12"),
        "lossless": (patched(JPEG, 0xC3), "lossless"),
        "late table": (separate_scans(late_table=True), "tables between its scans"),
        "arithmetic": (patched(JPEG, 0xC9), "arithmetic"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", refused())
def test_what_would_be_spoiled_is_refused_by_name(kind: str) -> None:
    data, name = refused()[kind]
    with pytest.raises(images.Unsupported, match=name):
        images.decode(data)


SMALL_PNG = png(png_header(4, 3), (b"\0" + b"\x50" * 12) * 3)
DAMAGED = {
    "empty": b"",
    "text": b"IMG_1.jpg is not here\n",
    "html": b"<!DOCTYPE html><html>404</html>",
    "text like a BMP": b"BMW owners' club",
    "video": b"\0\0\0\x18ftypmp42" + bytes(50),
    "HEIC start only": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "JPEG start only": JPEG[:2],
    "truncated JPEG": JPEG[:-200],
    "JPEG without its end": JPEG[:-2],
    "JPEG filled up with zeros": JPEG[:-200] + bytes(200),
    "JPEG cut short but ended": JPEG[:-200] + b"\xff\xd9",
    "JPEG cut in its header": JPEG[:300],
    "JPEG without a picture": JPEG[:20] + b"\xff\xd9",
    "JPEG of no height": JPEG.replace(b"\xff\xc0\0\x11\x08\0\x30", b"\xff\xc0\0\x11\x08\0\0"),
    "JPEG with a segment too long": JPEG[:4] + b"\xff\xff" + JPEG[6:],
    "JPEG with a segment too short": JPEG[:4] + b"\0\1" + JPEG[6:],
    "truncated PNG": PNG[:-200],
    "PNG without its end": PNG[:-12],
    "PNG with a wrong checksum": PNG[:40] + bytes([PNG[40] ^ 1]) + PNG[41:],
    "PNG with broken zlib": png(png_header(4, 3), b"").replace(zlib.compress(b""), b"12345678"),
    "PNG with too few rows": png(png_header(4, 3), (b"\0" + b"\x50" * 12) * 2),
    "PNG of no width": png(png_header(0, 3), b""),
    "PNG without pixels": SMALL_PNG[:33] + chunk(b"IEND", b""),
    "PNG of an unknown kind": png(png_header(4, 3, 8, 5), b""),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_what_is_no_whole_image_is_undecodable(kind: str) -> None:
    for decoder in (images.decode, images.decode_rgb):
        with pytest.raises(images.Undecodable, match="copy the file again"):
            decoder(DAMAGED[kind])


def test_bytes_of_no_image_are_quoted() -> None:
    with pytest.raises(images.Undecodable, match="4 bytes that start with b'text' are no image"):
        images.decode(b"text")


def test_too_many_pixels_are_refused_from_the_header_alone() -> None:
    data = png(png_header(20000, 20000), b"\0")
    for decoder in (images.decode, images.decode_rgb):
        with pytest.raises(images.TooLarge, match=r"20000x20000 .* LARGEST_PIXELS=268435456.* cut"):
            decoder(data)
    start = JPEG.index(b"\xff\xc0\x00\x11\x08") + 5
    with pytest.raises(images.TooLarge, match="65000x65000"):
        images.decode(JPEG[:start] + struct.pack(">HH", 65000, 65000) + JPEG[start + 4 :])


def test_a_line_too_long_for_pillow_is_refused() -> None:
    with pytest.raises(images.TooLarge, match="LARGEST_SIDE"):
        images.decode(png(png_header(2**28, 1), b"\0"))


def test_pillows_own_limit_neither_warns_nor_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as threads:
        warnings.simplefilter("error")
        results = list(threads.map(unchanged, [JPEG, PNG] * 8))
    assert {len(result) for result in results[::2]} == {len(results[0])}
    assert Image.MAX_IMAGE_PIXELS == 10


def test_pixels_of_another_size_or_type_are_refused() -> None:
    photograph = images.decode(PNG)
    with pytest.raises(ValueError, match=r"uint8 \(47, 64, 3\).*takes back uint8 \(48, 64, 3\)"):
        images.encode(photograph, photograph.pixels[1:])
    with pytest.raises(ValueError, match=r"pixels are float32 \(48, 64, 3\)"):
        images.encode(photograph, photograph.pixels.astype(np.float32))


SAMPLES = [
    JPEG,
    PNG,
    saved(picture(mode="L"), "JPEG", progressive=True, restart_marker_blocks=3, comment=b"note"),
    saved(picture(mode="RGBA"), "PNG", icc_profile=b"profile"),
    saved(picture().quantize(20), "PNG"),
    saved(picture().convert("CMYK"), "JPEG"),
]
flips = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=8)


def with_true_checksums(data: bytes) -> bytes:
    """A damaged PNG whose damage the checksums don't give away."""
    position, fixed = 8, bytearray(data)
    while position + 12 <= len(fixed):
        end = position + 12 + int.from_bytes(fixed[position : position + 4], "big")
        if end > len(fixed):
            break
        fixed[end - 4 : end] = struct.pack(">I", zlib.crc32(fixed[position + 4 : end - 4]))
        position = end
    return bytes(fixed)


@given(st.sampled_from(SAMPLES), st.booleans(), flips, st.integers(0, 2**20), st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_files_raise_nothing_but_our_three_errors(
    source: bytes, near_start: bool, changes: list[tuple[int, int]], length: int, cut: bool
) -> None:
    damaged = bytearray(source)
    for position, value in changes:
        damaged[position % (300 if near_start else len(source))] = value
    data = bytes(damaged[: length % len(source)] if cut else damaged)
    for candidate in (data, with_true_checksums(data)):
        for decoder in (images.decode, images.decode_rgb):
            with suppress(images.Unsupported, images.TooLarge, images.Undecodable):
                assert decoder(candidate) is not None


def test_importing_images_loads_neither_tensorflow_nor_ray() -> None:
    code = "import sys, pix2pix.images; print({'tensorflow', 'keras', 'ray'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
