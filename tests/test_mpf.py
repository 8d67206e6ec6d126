"""Several pictures in one JPEG: the index counts to where they lie."""

import io
import struct

import photographs
import pytest
from PIL import Image

from pix2pix import images
from pix2pix.formats import jpeg, mpf

RGB = Image.fromarray(photographs.pixels(96, 128))
PREVIEW = photographs.saved(RGB.resize((32, 24)), "JPEG")
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(200))
GAIN_MAP_XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
xmlns:Item="http://ns.google.com/photos/1.0/container/item/" Item:Length="%d"/>
</rdf:RDF></x:xmpmeta>
"""


def index(order: str, kinds: list[int], sizes: list[int], offsets: list[int]) -> bytes:
    """An MPF segment as CIPA DC-007 prescribes it."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entries = b"".join(
        struct.pack(order + "IIIHH", kind, size, offset, 0, 0)
        for kind, size, offset in zip(kinds, sizes, offsets, strict=True)
    )
    tags = [(0xB000, 7, 4, 0x30303130), (0xB001, 4, 1, len(kinds)), (0xB002, 7, len(entries), 50)]
    fields = b"".join(struct.pack(order + "HHII", *tag) for tag in tags)
    head = start + struct.pack(order + "IH", 8, len(tags)) + fields + struct.pack(order + "I", 0)
    content = b"MPF\0" + head + entries
    return b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content


def several(order: str, kind: int, packet: bytes = b"") -> bytes:
    """A JPEG of low quality, an index, and behind its end a preview and a video."""
    main = photographs.saved(RGB, "JPEG", quality=95)
    xmp_segment = b"\xff\xe1" + struct.pack(">H", 2 + len(jpeg.XMP + packet)) + jpeg.XMP + packet
    head = main[:20] + (xmp_segment if packet else b"")
    rest = main[20:]
    size = len(head) + len(index(order, [0, 0], [0, 0], [0, 0])) + len(rest)
    offset = size - (len(head) + mpf.HEADER)
    segment = index(order, [0x030000, kind], [size, len(PREVIEW)], [0, offset])
    return head + segment + rest + PREVIEW + VIDEO


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [0x010001, 0x000000, 0x050000])
@pytest.mark.parametrize("mark", [None, "0.3.0"])
def test_the_second_picture_is_found_where_the_index_says(
    order: str, kind: int, mark: str | None
) -> None:
    source = several(order, kind)
    photograph = images.decode(source)
    flat = photograph.pixels // 64 * 64
    result = images.encode(photograph, flat, mark=mark)
    assert result.endswith(PREVIEW + VIDEO)
    assert len(result) != len(source)
    image = Image.open(io.BytesIO(result))
    entries = image.mpinfo[0xB002]
    assert entries[0]["Size"] == len(result) - len(PREVIEW + VIDEO)
    assert entries[1]["Size"] == len(PREVIEW)
    image.seek(1)
    assert image.size == (32, 24)
    assert image.tobytes() == Image.open(io.BytesIO(PREVIEW)).tobytes()


@pytest.mark.parametrize(
    ("kind", "name"), [(0x020001, "panorama"), (0x020002, "stereo"), (0x020003, "several angles")]
)
def test_pictures_of_equal_rank_are_refused(kind: int, name: str) -> None:
    with pytest.raises(images.Unsupported, match=f"{name}.* must stay alike"):
        images.decode(several("<", kind))
    assert images.decode_rgb(several("<", kind)).shape == (96, 128, 3)


def test_lengths_in_a_gain_map_s_xmp_still_hold() -> None:
    # Ultra HDR and motion photos say how long the item at the file's end is, not where it starts.
    packet = GAIN_MAP_XMP % len(PREVIEW + VIDEO)
    photograph = images.decode(several(">", 0, packet))
    result = images.encode(photograph, photograph.pixels // 2)
    assert jpeg.parted(result).xmp == packet
    assert result[-len(PREVIEW + VIDEO) :] == PREVIEW + VIDEO


def test_an_index_that_points_nowhere_stays_as_it_is() -> None:
    segment = index("<", [0x030000, 0], [0, 99], [0, 2**31])
    main = photographs.saved(RGB, "JPEG")
    photograph = images.decode(main[:20] + segment + main[20:])
    assert segment in images.encode(photograph, photograph.pixels)


@pytest.mark.parametrize("length", range(8, 80, 7))
def test_a_broken_index_stays_as_it_is(length: int) -> None:
    segment = index("<", [0x030000, 0x020002], [0, 99], [0, 2**31])[:length]
    assert mpf.corrected(segment, 5, 5, range(9**9)) == segment
    assert mpf.equals(segment) is None


def test_xmp_near_64_kb_and_its_extension_survive() -> None:
    main = photographs.saved(RGB, "JPEG")
    packet = (GAIN_MAP_XMP % 0).replace(b"\n", b" " * 64900, 1)
    extension = b"http://ns.adobe.com/xmp/extension/\0" + bytes(65000)
    parts = [jpeg.XMP + packet, extension]
    segments = [b"\xff\xe1" + struct.pack(">H", 2 + len(part)) + part for part in parts]
    photograph = images.decode(main[:20] + b"".join(segments) + main[20:])
    plain = images.encode(photograph, photograph.pixels)
    assert b"".join(segments) in plain
    marked = images.encode(photograph, photograph.pixels, mark="0.3.0")
    assert segments[1] in marked
    # 65502 bytes hold the packet with the mark only if that is short.
    assert not images.decode(
        images.encode(photograph, photograph.pixels, mark="0" * 600)
    ).is_denoised
    assert len(packet) < jpeg.XMP_BYTES
