"""XMP packets: the mark goes in and nothing else changes."""

import time
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2pix.formats import xmp

PACKET = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<r:Description r:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="a &lt; b"/>
</r:RDF></x:xmpmeta>
%b
<?xpacket end="w"?>""" % (b" " * 20)
AS_ELEMENT = PACKET.replace(
    b"</r:RDF>",
    b"<r:Description r:about='uuid:1' xmlns:p='urn:pix2pix:1.0/'><p:Denoised>old</p:Denoised>"
    b"</r:Description></r:RDF>",
)


def test_a_packet_is_only_extended() -> None:
    result = xmp.marked(PACKET, "1")
    assert result is not None
    place = PACKET.index(b"</r:RDF>")
    assert result.startswith(PACKET[:place])
    assert result.endswith(PACKET[place:])
    assert xmp.mark(result) == "1"
    assert xmp.mark(PACKET) is None


def test_the_mark_belongs_to_the_same_subject() -> None:
    root = ElementTree.fromstring(xmp.marked(PACKET, "1") or b"")
    about = f"{{{xmp.RDF}}}about"
    subjects = {element.get(about) for element in root.iter(f"{{{xmp.RDF}}}Description")}
    assert subjects == {"uuid:1"}


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=40))
def test_any_printable_mark_is_read_back(text: str) -> None:
    if not text.isprintable():
        return
    for packet in (None, PACKET, AS_ELEMENT):
        once = xmp.marked(packet, text)
        assert xmp.mark(once) == text
        assert xmp.mark(xmp.marked(once, "another")) == "another"


def test_an_older_mark_is_replaced_in_either_form() -> None:
    assert xmp.mark(AS_ELEMENT) == "old"
    assert xmp.marked(AS_ELEMENT, "new") == AS_ELEMENT.replace(b">old<", b">new<")
    once = xmp.marked(PACKET, "old")
    assert once is not None
    assert xmp.marked(once, "new") == once.replace(b'"old"', b'"new"')


def test_padding_gives_way_to_a_limit_and_then_the_mark() -> None:
    whole = xmp.marked(PACKET, "1")
    assert whole is not None
    tight = xmp.marked(PACKET, "1", most_bytes=len(whole) - 15)
    assert tight is not None
    assert xmp.mark(tight) == "1"
    assert len(tight) == len(whole) - 21
    assert xmp.marked(PACKET, "1", most_bytes=len(PACKET) + 10) is PACKET
    assert xmp.marked(None, "1", most_bytes=10) is None


BOMB = b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">%s]><a>&z;</a>' % b"".join(
    b'<!ENTITY %c "%s">' % (99 + i, b"&%c;" % (98 + i) * 10) for i in range(24)
)


@pytest.mark.parametrize(
    "packet",
    [b"", b"no XML", b"<x:xmpmeta/>", PACKET[:200], PACKET.decode().encode("utf-16"), BOMB],
)
def test_what_cannot_be_extended_stays_as_it_is(packet: bytes) -> None:
    started = time.monotonic()
    assert xmp.marked(packet, "1") is packet
    assert xmp.mark(packet) is None
    assert time.monotonic() - started < 0.5


def test_control_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="control characters; give printable text"):
        xmp.marked(None, "a\nb")
