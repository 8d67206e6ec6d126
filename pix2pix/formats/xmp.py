"""XMP packets: our mark put in and read, everything else kept byte for byte.

The mark is the property `Denoised` of a namespace of our own. A packet is only ever extended by
text at one place; if that can't be done so that the mark is read back (no XML, a document type,
UTF-16, no rdf:RDF), the packet stays as it is and the image goes out unmarked: what others wrote
counts more.

Source: XMP specification part 1 (ISO 16684-1), section 7.
"""

import re
from dataclasses import dataclass
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

NAMESPACE = "urn:pix2pix:1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
LARGEST_BYTES = 2**24  # of a packet that is looked into; the specification's own example has 4 kB
EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    f'<rdf:RDF xmlns:rdf="{RDF}">\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
).encode()
_OURS = f"{NAMESPACE} Denoised"


@dataclass
class _Seen:
    """What a walk through a packet found; places are bytes from the packet's start."""

    rdf_end: int | None = None
    about: str = ""
    prefix: str = "pix2pix"
    value: str | None = None
    tag_start: int = 0
    text_start: int | None = None
    text_end: int | None = None


def mark(packet: bytes | None) -> str | None:
    """The text of our mark in an XMP packet; None without one, or if the packet is no XML."""
    if packet is None or NAMESPACE.encode() not in packet:
        return None
    seen = _seen(packet)
    return seen.value if seen else None


def marked(packet: bytes | None, text: str, most_bytes: int = LARGEST_BYTES) -> bytes | None:
    """The packet with our mark, in place of an older one.

    Args:
        packet: what the file holds; None makes a new packet.
        text: the mark, printable.
        most_bytes: what the file's container can take.

    Returns:
        the longer packet; the same object if it can't be extended (see above) or grows too long,
        even without its padding; None if there was none and a new one is too long.

    Raises:
        ValueError: the text has control characters.
    """
    if not text.isprintable():
        raise ValueError(f"the mark {text!r} has control characters; give printable text")
    result = _extended(EMPTY if packet is None else packet, text)
    if len(result) > most_bytes:
        head, end, rest = result.rpartition(b"<?xpacket end")
        result = head.rstrip() + b"\n" + end + rest
    return result if len(result) <= most_bytes and mark(result) == text else packet


def _extended(packet: bytes, text: str) -> bytes:
    seen = _seen(packet)
    if seen is None or seen.rdf_end is None:
        return packet
    if seen.value is None:
        start = end = seen.rdf_end
        new = (
            f'<rdf:Description xmlns:rdf="{RDF}" rdf:about={quoteattr(seen.about)} '
            f'xmlns:pix2pix="{NAMESPACE}" pix2pix:Denoised={quoteattr(text)}/>\n'
        )
    elif seen.text_start is not None and seen.text_end is not None:
        start, end, new = seen.text_start, seen.text_end, escape(text)
    else:
        attribute = rf"{re.escape(seen.prefix)}:Denoised\s*=\s*(\"[^\"]*\"|'[^']*')"
        found = re.compile(attribute.encode()).search(packet, seen.tag_start)
        if found is None:
            return packet
        start, end, new = found.start(1), found.end(1), quoteattr(text)
    return packet[:start] + new.encode() + packet[end:]


def _seen(packet: bytes) -> _Seen | None:
    """What is in the packet; None if it's no XML, or has a document type, which may be a bomb."""
    if len(packet) > LARGEST_BYTES:
        return None
    seen, parser = _Seen(), expat.ParserCreate(namespace_separator=" ")
    is_inside = False

    def declared(prefix: str | None, uri: str) -> None:
        if uri == NAMESPACE and prefix:
            seen.prefix = prefix

    def started(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_inside
        if name == f"{RDF} Description":
            seen.about = seen.about or attributes.get(f"{RDF} about", "")
            if _OURS in attributes:
                seen.value, seen.tag_start = attributes[_OURS], parser.CurrentByteIndex
        is_inside = name == _OURS
        if is_inside:
            seen.value = ""

    def text(characters: str) -> None:
        if is_inside:
            seen.value = (seen.value or "") + characters
            if seen.text_start is None:
                seen.text_start = parser.CurrentByteIndex

    def ended(name: str) -> None:
        nonlocal is_inside
        if name == _OURS:
            seen.text_end, is_inside = parser.CurrentByteIndex, False
        if name == f"{RDF} RDF" and packet.startswith(b"</", parser.CurrentByteIndex):
            seen.rdf_end = parser.CurrentByteIndex

    def refused(*_: object) -> None:
        raise ValueError("a document type")

    parser.StartNamespaceDeclHandler, parser.CharacterDataHandler = declared, text
    parser.StartElementHandler, parser.EndElementHandler = started, ended
    parser.StartDoctypeDeclHandler = refused
    try:
        parser.Parse(packet.rstrip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError):
        return None
    return seen
