"""Readers that share no code with us see the new pixels, the same metadata and our mark."""

import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import photographs
import pytest

from pix2pix import images

pytestmark = pytest.mark.slow
KEPT = {name: data for name, data in photographs.samples().items() if "palette" not in name}
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WebP": "webp", "HEIC": "heic"} | {
    "AVIF": "avif"
}
# What says where something lies or how it is packed, and the file's own times and names.
OF_CODING = {
    *("SourceFile", "File:FileName", "File:Directory", "File:FileSize", "File:FileModifyDate"),
    *("File:FileAccessDate", "File:FileInodeChangeDate", "File:FilePermissions"),
    *("ExifTool:ExifToolVersion", "EXIF:StripOffsets", "EXIF:StripByteCounts", "EXIF:TileOffsets"),
    *("EXIF:TileByteCounts", "MPF:MPImageLength", "MPF:MPImageStart", "QuickTime:MediaDataSize"),
    *("QuickTime:MediaDataOffset", "MPF:MPImage2", "MPF:PreviewImage", "RIFF:VP8Version"),
    *("RIFF:HorizontalScale", "RIFF:VerticalScale", "ExifTool:Warning", "EXIF:ThumbnailOffset"),
}
# exiftool shows the XMP of any BigTIFF as ApplicationNotes; a simple WebP becomes an extended one.
OF_THE_MARK = {"XMP:Denoised", "XMP:XMPToolkit", "RIFF:WebP_Flags", "File:FileType"} | {
    "EXIF:ApplicationNotes"
}


def program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.fail(f"{names[0]} isn't there; run tests/system-packages.sh or `make test-slow`")


def metadata(path: Path) -> dict[str, object]:
    command = [program("exiftool"), "-json", "-G0", "-a", "-struct", "-n", str(path)]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)[0]


def pixels_seen(path: Path, bits: int) -> np.ndarray:
    """The picture as ImageMagick decodes it, not turned, in grey or RGB."""
    convert = program("magick", "/usr/bin/convert", "convert")
    source = str(path) + ("[0]" if path.suffix == ".jpg" else "")
    command = [convert, source, "-alpha", "off", "+set", "comment", "-depth", str(bits), "ppm:-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    file = io.BytesIO(data)
    assert file.readline().strip() in (b"P6", b"P5")
    line = file.readline()
    while line.startswith(b"#"):  # a comment or description
        line = file.readline()
    width, height = map(int, line.split())
    top = int(file.readline())
    kind = np.dtype(">u2" if top > 255 else "u1")
    values = np.frombuffer(file.read(), kind).reshape(height, width, -1)
    return np.broadcast_to(values[..., :3], (height, width, 3)).astype(kind.newbyteorder("="))


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("mark", [None, "0.3.0 sha256:0f strength=1"])
def test_exiftool_sees_the_same_metadata(name: str, mark: str | None, tmp_path: Path) -> None:
    photograph = images.decode(KEPT[name])
    source = tmp_path / f"source.{SUFFIXES[photograph.format]}"
    result = source.with_stem("result")
    source.write_bytes(KEPT[name])
    result.write_bytes(images.encode(photograph, photograph.pixels // 2, mark=mark))
    before, after = metadata(source), metadata(result)
    changed = {
        key
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key) and not key.startswith("Composite:")
    }
    hevc = {key for key in changed if "HEVC" in key or key.startswith("QuickTime:")}
    allowed = OF_CODING | hevc | (OF_THE_MARK if mark else set())
    assert changed - allowed == set()
    if mark and photograph.source.xmp is None:
        assert mark in str(after.get("XMP:Denoised", after.get("EXIF:ApplicationNotes")))
    assert "ExifTool:Error" not in after


@pytest.mark.parametrize("name", [name for name in KEPT if not name.startswith(("heic", "avif"))])
def test_imagemagick_sees_the_new_pixels(name: str, tmp_path: Path) -> None:
    photograph = images.decode(KEPT[name])
    path = tmp_path / f"result.{SUFFIXES[photograph.format]}"
    other = photograph.pixels // 2
    path.write_bytes(images.encode(photograph, other, mark="0.3.0"))
    seen = pixels_seen(path, 8 if other.dtype == np.uint8 else 16)
    lossless = photograph.format in ("PNG", "TIFF") or "lossless" in name
    assert photographs.psnr_db(other, seen) > (90 if lossless else 33)
