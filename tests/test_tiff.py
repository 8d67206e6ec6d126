"""TIFF: pixels replaced in place, everything else where it was."""

import io
import struct
from collections.abc import Sequence

import imagecodecs
import numpy as np
import photographs
import pytest
import tifffile
from PIL import Image

from pix2pix import images
from pix2pix.formats import tiff

PIXELS = photographs.pixels()
KINDS = {
    "strips": {"rowsperstrip": 7},
    "packbits": {"compression": "packbits"},
    "lzw": {"compression": "lzw", "predictor": 2},
    "tiles": {"tile": (16, 16), "compression": "zlib"},
    "big endian": {"byteorder": ">"},
    "big": {"bigtiff": True, "compression": "zstd"},
}
SHORT, LONG, UNDEFINED = 3, 4, 7


def written(array: np.ndarray = PIXELS, **options: object) -> bytes:
    return photographs.tiff(array, **{"photometric": "rgb", **options})


def tags(data: bytes) -> dict[int, object]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return {tag.code: tag.value for tag in file.pages[0].tags}


def ignoring(data: bytes, *codes: int) -> dict[int, object]:
    return {code: value for code, value in tags(data).items() if code not in codes}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("mark", [None, "0.3.0"])
def test_another_reader_sees_the_new_pixels_and_the_old_tags(
    kind: str, bits: int, mark: str | None
) -> None:
    private = [
        (65000, 7, 300, bytes(range(250)) + bytes(50), True),
        (33550, 12, 3, (1, 2, 3), True),
    ]
    more = {"resolution": (300, 300), "description": "d" * 99, "extratags": private}
    source = written(photographs.pixels(bits=bits), **KINDS[kind], **more)
    photograph = images.decode(source)
    other = photograph.pixels[::-1, ::-1] // 3
    result = images.encode(photograph, other, mark=mark)
    np.testing.assert_array_equal(other, tifffile.imread(io.BytesIO(result)))
    places = (273, 279, 324, 325, 700)
    assert ignoring(source, *places) == ignoring(result, *places)
    assert (700 in tags(result)) == (mark is not None)


def test_uncompressed_bytes_outside_the_pixels_stay() -> None:
    source = written(rowsperstrip=7)
    place = tags(source)[273][0]
    photograph = images.decode(source)
    result = images.encode(photograph, np.zeros_like(photograph.pixels))
    assert result == source[:place] + bytes(PIXELS.nbytes) + source[place + PIXELS.nbytes :]


def test_exif_and_what_it_points_to_lie_where_they_were() -> None:
    note = b"offsets that only their maker knows"
    entry = struct.pack("<HHII", 0x927C, UNDEFINED, len(note), 8 + 18)
    exif = struct.pack("<H", 1) + entry + bytes(4) + note
    photograph = images.decode(by_hand(b"\1\2\3\4", exif, more=[(0x8769, 8)]))
    result = images.encode(photograph, photograph.pixels, mark="x")
    assert result[8 : 8 + len(exif)] == exif
    assert Image.open(io.BytesIO(result)).getexif().get_ifd(0x8769)[0x927C] == note


def exif_at(place: int) -> bytes:
    """An Exif directory for this place whose one text stands behind it."""
    text = b"Exif's own text, 32 bytes long.\0"
    return struct.pack("<HHHIII", 1, 0x9286, UNDEFINED, len(text), place + 18, 0) + text


def test_exif_behind_uncompressed_pixels_of_a_length_too_large_stays() -> None:
    source = by_hand(b"\1\2\3\4" + exif_at(12), width=4, length=4 + 50, more=[(0x8769, 12)])
    photograph = images.decode(source)
    result = images.encode(photograph, photograph.pixels + np.uint8(4))
    assert result[8 : 12 + 50] == b"\5\6\7\x08" + exif_at(12)


def test_compressed_pixels_that_lie_on_exif_are_refused() -> None:
    coded = imagecodecs.lzw_encode(b"\1\2\3\4")
    place = 8 + len(coded)
    options = {"width": 4, "compression": 5, "more": [(0x8769, place)]}
    source = by_hand(coded + exif_at(place), **options, length=len(coded) + 50)
    with pytest.raises(images.Unsupported, match="lie on its tags"):
        images.decode(source)
    assert images.decode(by_hand(coded + exif_at(place), **options, length=len(coded)))


def test_compressed_pixels_of_no_length_are_refused_but_read() -> None:
    coded = imagecodecs.lzw_encode(bytes(99))
    source = by_hand(coded + exif_at(0), width=99, compression=5, length=None)
    with pytest.raises(images.Unsupported, match="how long its compressed pixels are"):
        images.decode(source)
    np.testing.assert_array_equal(np.zeros((1, 99, 3)), images.decode_rgb(source))


def test_strips_that_grow_go_to_the_end() -> None:
    flat = np.full((64, 64, 3), 9, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape, np.uint8)
    for options in ({"rowsperstrip": 4}, {"tile": (16, 32)}):
        photograph = images.decode(written(flat, compression="zlib", **options))
        result = images.encode(photograph, noise)
        np.testing.assert_array_equal(noise, tifffile.imread(io.BytesIO(result)))
        again = images.encode(images.decode(result), flat)
        np.testing.assert_array_equal(flat, tifffile.imread(io.BytesIO(again)))


def test_lengths_of_16_bits_become_wider() -> None:
    flat = np.full((300, 300, 3), 9, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape, np.uint8)
    for rows in (300, 150):
        source = bytearray(written(flat, compression="zlib", rowsperstrip=rows))
        start = source.index(struct.pack("<HH", 279, LONG))
        count = 300 // rows
        place = (
            start + 8 if count == 1 else int.from_bytes(source[start + 8 : start + 12], "little")
        )
        lengths = struct.unpack_from(f"<{count}I", source, place)
        struct.pack_into("<H", source, start + 2, SHORT)
        struct.pack_into(f"<{count}H", source, start + 8, *lengths)
        result = images.encode(images.decode(bytes(source)), noise)
        np.testing.assert_array_equal(noise, tifffile.imread(io.BytesIO(result)))


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha", "unspecified"])
def test_alpha_of_any_kind_stays(kind: str) -> None:
    source = written(photographs.pixels(channels=4), extrasamples=[kind])
    photograph = images.decode(source)
    result = images.encode(photograph, photograph.pixels // 2)
    assert tags(source)[338] == tags(result)[338]
    expected = np.dstack([photograph.pixels // 2, photographs.pixels(channels=4)[..., 3]])
    np.testing.assert_array_equal(expected, tifffile.imread(io.BytesIO(result)))


def test_white_is_zero_comes_as_black_is_zero_and_goes_back() -> None:
    grey = photographs.pixels(channels=1, bits=16)[..., 0]
    source = written(grey, photometric="miniswhite")
    photograph = images.decode(source)
    np.testing.assert_array_equal(65535 - grey, photograph.pixels[..., 1])
    np.testing.assert_array_equal(source, images.encode(photograph, photograph.pixels))


def test_xmp_is_extended_and_its_old_place_emptied() -> None:
    first = images.encode(images.decode(written()), PIXELS, mark="one")
    second = images.encode(images.decode(first), PIXELS, mark="the second mark, a longer one")
    assert b'"one"' not in second
    assert images.decode(second).is_denoised
    np.testing.assert_array_equal(PIXELS, tifffile.imread(io.BytesIO(second)))


def by_hand(
    pixels: bytes,
    before: bytes = b"",
    head: bytes = b"",
    more: Sequence[tuple[int, int]] = (),
    width: int | None = None,
    length: int | None = 4,
    compression: int = 1,
) -> bytes:
    """A grey TIFF of one row, its pixels behind `before`, its directory last."""
    place = 8 + len(head) + len(before)
    fields = [
        (256, width or len(pixels)),
        (257, 1),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, place),
        *([] if length is None else [(279, length)]),
        *more,
    ]
    ifd = b"".join(struct.pack("<HHII", tag, LONG, 1, value) for tag, value in fields)
    start = struct.pack("<2sHI", b"II", 42, place + len(pixels)) + head
    return start + before + pixels + struct.pack("<H", len(fields)) + ifd + bytes(4)


def test_a_tiff_by_hand_comes_back_by_the_byte() -> None:
    photograph = images.decode(by_hand(b"\1\2\3\4", b"unknown"))
    np.testing.assert_array_equal([[[1] * 3, [2] * 3, [3] * 3, [4] * 3]], photograph.pixels)
    result = images.encode(photograph, photograph.pixels + np.uint8(4))
    assert by_hand(b"\5\6\7\x08", b"unknown") == result


def test_a_cloud_optimized_file_says_that_its_blocks_moved() -> None:
    text = b"GDAL_STRUCTURAL_METADATA_SIZE=000032 bytes\nKNOWN_INCOMPATIBLE_EDITION=%b\n"
    photograph = images.decode(by_hand(b"\1\2\3\4", text % b"NO\n "[:2] + b" "))
    result = images.encode(photograph, photograph.pixels)
    assert text % b"YES" in result


def with_tag(data: bytes, tag: int, kind: int, value: int) -> bytes:
    """A little-endian TIFF by tifffile, one of its tags replaced; their order isn't checked."""
    ifd = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[ifd : ifd + 2], "little")
    places = range(ifd + 2, ifd + 2 + 12 * count, 12)
    known = {int.from_bytes(data[place : place + 2], "little"): place for place in places}
    place = known.get(tag, known[305])  # else instead of the software's name
    return data[:place] + struct.pack("<HHII", tag, kind, 1, value) + data[place + 12 :]


def refused() -> dict[str, tuple[bytes, str]]:
    plain = written(rowsperstrip=40)
    rgb = Image.fromarray(PIXELS)
    pages = photographs.saved(rgb, "TIFF", save_all=True, append_images=[rgb])
    cfa = with_tag(written(PIXELS[..., 0], photometric="minisblack"), 262, SHORT, 32803)
    return {
        "pages": (pages, "several pages"),
        "float": (written(PIXELS.astype(np.float32)), "bit depth is 32"),
        "half": (written(PIXELS.astype(np.float16)), "floats"),
        "signed": (written(PIXELS.astype(np.int16)), "signed integers"),
        "1 bit": (photographs.saved(rgb.convert("1"), "TIFF"), "bit depth is 1"),
        "palette": (photographs.saved(rgb.quantize(9), "TIFF"), "palette"),
        "CMYK": (photographs.saved(rgb.convert("CMYK"), "TIFF"), "CMYK"),
        "Lab": (photographs.saved(rgb.convert("LAB"), "TIFF"), "CIELab"),
        "YCbCr": (photographs.saved(rgb.convert("YCbCr"), "TIFF"), "YCbCr"),
        "JPEG": (photographs.saved(rgb, "TIFF", compression="jpeg"), "JPEG|YCbCr"),
        "LZMA": (photographs.saved(rgb, "TIFF", compression="lzma"), "LZMA"),
        "five": (written(np.dstack([PIXELS, PIXELS[..., :2]]), extrasamples=[0, 0]), "5 channels"),
        "DNG": (with_tag(plain, 50706, LONG, 1), r"raw photograph \(DNG\)"),
        "CFA": (cfa, "colour filter array"),
        "SubIFDs": (with_tag(plain, 330, LONG, 8), "SubIFDs"),
        "CR2": (by_hand(b"\1\2\3\4", head=b"CR\2\0"), "CR2"),
        "bits in reverse": (with_tag(plain, 266, SHORT, 2), "FillOrder 2"),
        "fax": (with_tag(plain, 259, SHORT, 4), "CCITT"),
    }


@pytest.mark.parametrize("kind", refused())
def test_what_would_be_spoiled_is_refused_by_name(kind: str) -> None:
    data, name = refused()[kind]
    with pytest.raises(images.Unsupported, match=name):
        images.decode(data)


@pytest.mark.parametrize("tag", [273, 279, 258, 277, 700])
@pytest.mark.parametrize("count", [0xFFFFFFFF, 2**28])
def test_absurd_counts_are_damage_and_cost_nothing(tag: int, count: int) -> None:
    data = bytearray(images.encode(images.decode(written(rowsperstrip=7)), PIXELS, mark="x"))
    source = tiff.parted(bytes(data)).tags
    struct.pack_into("<I", data, source.entries[tag].position + 4, count)
    if tag == 700:
        assert not images.decode(bytes(data)).is_denoised
        return
    with pytest.raises(images.Undecodable, match="copy the file again"):
        images.decode(bytes(data))


@pytest.mark.parametrize(
    ("tag", "value"), [(278, 0), (322, 0), (322, 2**31), (273, 2**32 - 1), (279, 3), (256, 0)]
)
def test_impossible_layouts_are_damage(tag: int, value: int) -> None:
    options = {"tile": (16, 16)} if tag == 322 else {"rowsperstrip": 40}
    data = with_tag(written(**options), tag, LONG, value)
    with pytest.raises(images.Undecodable, match="copy the file again"):
        images.decode(data)


def test_pixels_that_lie_on_tags_are_refused() -> None:
    with pytest.raises(images.Unsupported, match="lie on its tags"):
        images.decode(with_tag(written(rowsperstrip=40), 273, LONG, 8))


def test_pillow_reads_what_goes_back() -> None:
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        source = photographs.saved(Image.fromarray(PIXELS), "TIFF", compression=compression)
        result = images.encode(images.decode(source), PIXELS[::-1], mark="x")
        np.testing.assert_array_equal(PIXELS[::-1], np.asarray(Image.open(io.BytesIO(result))))


def test_plain_pixels_are_used_where_they_lie_in_the_file() -> None:
    stored = np.arange(40 * 30 * 3, dtype=np.uint16).reshape(40, 30, 3)
    file = io.BytesIO()
    tifffile.imwrite(file, stored, photometric="rgb", rowsperstrip=7)
    data = file.getvalue()
    pixels = images.decode(data).pixels
    np.testing.assert_array_equal(pixels, stored)
    assert np.shares_memory(pixels, np.frombuffer(data, np.uint8))
    file = io.BytesIO()
    tifffile.imwrite(file, stored, photometric="rgb", rowsperstrip=7, byteorder=">")
    pixels = images.decode(file.getvalue()).pixels
    np.testing.assert_array_equal(pixels, stored)
    assert not np.shares_memory(pixels, np.frombuffer(file.getvalue(), np.uint8))
