"""HEIC and AVIF: the main picture is coded anew, everything else in the container stays."""

import io
import struct
from dataclasses import replace

import imagecodecs
import numpy as np
import photographs
import pillow_heif
import pytest
from PIL import Image

from pix2pix import images
from pix2pix.formats import heif, heif_pixels, iso

PIXELS = photographs.pixels(64, 96)
RGB = Image.fromarray(PIXELS)
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"


def heic(**options: object) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(RGB).save(file, quality=90, **options)
    return file.getvalue()


def halved(data: bytes, **options: str | None) -> bytes:
    photograph = images.decode(data)
    return images.encode(photograph, photograph.pixels // 2, **options)


@pytest.mark.parametrize("name", ["HEIC", "AVIF"])
def test_exif_profile_and_xmp_stay(name: str) -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>kept</x:xmpmeta>"
    source = (
        heic(exif=EXIF, icc_profile=b"icc" * 50, xmp=packet)
        if name == "HEIC"
        else photographs.saved(RGB, "AVIF", exif=EXIF, icc_profile=b"icc" * 50, xmp=packet)
    )
    result = halved(source)
    image = pillow_heif.open_heif(result) if name == "HEIC" else Image.open(io.BytesIO(result))
    assert image.info["icc_profile"] == b"icc" * 50
    assert image.info["xmp"] == packet
    before, after = heif.parted(source).container, heif.parted(result).container
    kinds = {key: item.kind for key, item in before.items.items()}
    assert kinds == {key: item.kind for key, item in after.items.items()}
    for key, item in before.items.items():
        assert (item.data == after.items[key].data) == (key != before.primary)


def test_libheif_and_libavif_read_the_new_pixels() -> None:
    result = halved(heic())
    assert photographs.psnr_db(PIXELS // 2, np.asarray(pillow_heif.open_heif(result))) > 36
    avif = halved(photographs.saved(RGB, "AVIF", quality=95))
    assert photographs.psnr_db(PIXELS // 2, np.asarray(Image.open(io.BytesIO(avif)))) > 36


@pytest.mark.parametrize("chroma", ["420", "422", "444"])
def test_chroma_and_depth_stay(chroma: str) -> None:
    deep = photographs.pixels(64, 96, bits=16)
    for data in (
        photographs.heic(PIXELS, enc_params={"chroma": chroma, "preset": "ultrafast"}),
        photographs.heic(deep, enc_params={"chroma": chroma, "preset": "ultrafast"}),
        bytes(imagecodecs.avif_encode(deep >> 4, bitspersample=12, pixelformat=chroma, level=90)),
    ):
        before, after = heif.parted(data), heif.parted(halved(data))
        assert (before.chroma, before.bit_depth) == (after.chroma, after.bit_depth)
        assert after.chroma == chroma


def test_levels_between_8_and_16_bits_scale_there_and_back() -> None:
    for bits in (10, 12):
        levels = np.arange(2**bits, dtype=np.uint16)
        full = heif_pixels.scaled(levels, bits, 16)
        assert (full[0], full[-1]) == (0, 65535)
        np.testing.assert_array_equal(levels, heif_pixels.scaled(full, 16, bits))
        np.testing.assert_array_equal(np.rint(levels * (65535 / (2**bits - 1))), full)


def test_tiles_become_one_picture_and_none_is_left_over() -> None:
    source = photographs.heic(PIXELS, tile_size=64)
    before, after = heif.parted(source).container, heif.parted(halved(source)).container
    assert before.items[before.primary].kind == b"grid"
    assert after.items[after.primary].kind == b"hvc1"
    assert before.primary == after.primary
    assert len(after.items) == 1
    assert photographs.psnr_db(PIXELS // 2, images.decode(halved(source)).pixels) > 36


def with_item(data: bytes, kind: bytes, reference: bytes, hidden: bool, box: bytes = b"") -> bytes:
    """The file with a copy of its main picture as another item that refers to it."""
    container = iso.parted(data)
    main = container.items[container.primary]
    properties = main.properties + (((box, True),) if box else ())
    item = replace(main, kind=kind, is_hidden=hidden, properties=properties)
    references = ((reference, 77, (container.primary,)),) if reference else ()
    return iso.joined(
        replace(
            container,
            items={**container.items, 77: item},
            references=(*container.references, *references),
        )
    )


def test_a_gain_map_and_a_video_behind_the_picture_stay_by_the_byte() -> None:
    name = b"urn:com:apple:photo:2020:aux:hdrgainmap\0"
    box = struct.pack(">I4sI", 12 + len(name), b"auxC", 0) + name
    source = with_item(heic(), b"hvc1", b"auxl", True, box)
    source += struct.pack(">I4s", 28, b"mpvd") + b"a motion photo's     "[:20]
    result = halved(source)
    assert result.endswith(source[-28:])
    before, after = heif.parted(source).container, heif.parted(result).container
    assert before.items[77] == after.items[77]
    assert before.references == after.references


def test_an_item_of_256_properties_is_a_value_error_that_says_so() -> None:
    container = iso.parted(heic())
    main = container.items[container.primary]
    many = replace(main, properties=main.properties * 256)
    with pytest.raises(ValueError, match="can't be written"):
        iso.joined(replace(container, items={**container.items, container.primary: many}))


def test_properties_named_too_often_are_undecodable() -> None:
    source = heic()
    start = source.index(b"ipma") - 4
    size, key = int.from_bytes(source[start : start + 4], "big"), source[start + 16 : start + 18]
    entry = key + b"\xff" + b"\1" * 255
    count = int.from_bytes(source[start + 12 : start + 16], "big") + 1
    ipma = struct.pack(">4sII", b"ipma", 0, count) + source[start + 16 : start + size] + entry
    new = struct.pack(">I", 4 + len(ipma)) + ipma
    data = bytearray(source[:start] + new + source[start + size :])
    for name in (b"iprp", b"meta"):
        place = data.index(name) - 4
        old = int.from_bytes(data[place : place + 4], "big")
        data[place : place + 4] = (old + len(new) - size).to_bytes(4, "big")
    with pytest.raises(images.Undecodable, match="can't be written"):
        images.decode(bytes(data))


def test_an_item_without_data_stays_so() -> None:
    container = iso.parted(heic())
    empty = iso.Item(b"mime", True, b"\0text/plain\0", b"")
    result = iso.joined(replace(container, items={77: empty, **container.items}))
    assert iso.parted(result).items[77] == empty


def test_several_pictures_are_refused_by_name() -> None:
    with pytest.raises(images.Unsupported, match="several pictures"):
        images.decode(with_item(heic(), b"hvc1", b"", False))
    for data in (with_item(heic(), b"hvc1", b"thmb", False), with_item(heic(), b"hvc1", b"", True)):
        assert images.decode(data).format == "HEIC"


def test_a_sequence_is_refused_by_name() -> None:
    with pytest.raises(images.Unsupported, match="sequence"):
        images.decode(heic() + struct.pack(">I4s", 8, b"moov"))


def test_a_hidden_border_is_refused_by_name() -> None:
    clap = struct.pack(">I4s8I", 40, b"clap", 16, 1, 16, 1, 0, 1, 0, 1)
    container = iso.parted(heic())
    main = container.items[container.primary]
    cropped = replace(main, properties=(*main.properties, (clap, True)))
    data = iso.joined(replace(container, items={**container.items, container.primary: cropped}))
    with pytest.raises(images.Unsupported, match="cropped"):
        images.decode(data)


def test_without_pillow_heif_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(images.Unsupported, match=r"pip install 'pix2pix\[heic\]'"):
        images.decode(heic())


def test_a_container_comes_back_as_it_was() -> None:
    for data in (heic(exif=EXIF, xmp=b"<x/>"), photographs.heic(PIXELS, tile_size=64)):
        once = iso.parted(data)
        again = iso.parted(iso.joined(once))
        assert once == again
