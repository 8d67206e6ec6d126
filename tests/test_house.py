"""The house keeps its shape: one-way imports, nothing on import, files of one subject."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pix2pix"
MODULES = {  # by name; those of the package `formats` as "formats.jpeg"
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
}
LEVELS = (  # each may import what stands before it, never what stands after or beside it
    {
        "settings",
        "cluster",
        "sizing",
        "rests",
        "faults",
        "noise_level",
        "memory",
        "tiles",
        "progress",
        "ledger",
        "optimizers",
        "sharing",
    },
    {"prometheus", "options"},
    {"markup", "formats.xmp", "formats.mpf", "formats.jpeg_segments", "formats.tiff_tags"},
    {"formats.tiff_blocks", "formats.iso", "formats.heif_pixels"},
    {"mosaic", "cameras", "texture"},
    {"noise", "fanout", "ids"},
    {"formats.jpeg", "formats.png", "formats.tiff", "formats.webp", "formats.heif"},
    {"formats.kinds", "local"},
    {"stores"},
    {"buckets"},
    {"storage", "images", "metrics", "losses", "networks"},
    {"parquet", "checkpoints", "lease"},
    {"lists", "table"},
    {"manifest", "compaction"},
    {"status", "harm"},
    {"pairs", "report", "denoiser", "source", "summary", "outcome"},
    {"gan", "schedule", "stages", "photographs"},
    {"patches"},
    {"worker", "denoising", "verification", "estimate", "single", "crops", "run_page"},
    {"training", "evaluation", "output_page"},
    {"pages"},
    {"cli"},
)


def _imports(path: Path) -> set[str]:
    """Our modules that a file imports, also inside functions; not those for types alone."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pix2pix":
            inside = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name.removeprefix("pix2pix.") for name in inside}
    return found & set(MODULES)


def test_every_module_has_its_place() -> None:
    assert set().union(*LEVELS) == set(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    level = next(place for place, names in enumerate(LEVELS) if name in names)
    below = set().union(*LEVELS[:level])
    assert _imports(MODULES[name]) <= below


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_pix2pix_loads_neither_tensorflow_nor_ray() -> None:
    light = "cli, settings, storage, images, metrics, pairs, manifest, status, pages"
    statement = f"import pix2pix\nfrom pix2pix import {light}"
    assert _loaded_by(statement).isdisjoint({"tensorflow", "ray", "keras"})


def test_the_program_s_help_loads_nothing_heavy() -> None:
    loaded = _loaded_by("import pix2pix.cli")
    assert loaded.isdisjoint({"tensorflow", "ray", "keras", "numpy", "pyarrow", "fsspec"})


def test_only_images_knows_the_formats() -> None:
    formats = {name for name in MODULES if name.startswith("formats.")}
    users = {name for name, path in MODULES.items() if _imports(path) & formats}
    assert users - formats == {"images"}


def test_only_stores_imports_fsspec_and_only_storage_knows_the_stores() -> None:
    imports = re.compile(r"^\s*(import|from) (fsspec|s3fs)\b", re.MULTILINE)
    users = {name for name, path in MODULES.items() if imports.search(path.read_text())}
    assert users == {"stores"}
    stores = {"stores", "buckets", "local"}
    users = {name for name, path in MODULES.items() if _imports(path) & stores}
    assert users - stores == {"storage"}


@pytest.mark.parametrize("name", ["train", "denoise", "evaluate"])
def test_a_job_is_one_call(name: str) -> None:
    assert len((ROOT / "jobs" / f"{name}.py").read_text().splitlines()) <= 60


def test_the_readme_maps_every_module() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [path.name for path in MODULES.values() if path.name not in readme] == []


def test_the_lock_holds_versions_and_no_address() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line and "://" not in line for line in lines)
    pinned = {line.split("==")[0].lower() for line in lines}
    assert {"ray", "tensorflow", "keras", "pyarrow", "s3fs", "pillow", "typer"} <= pinned


def test_the_readme_is_finished_and_its_pictures_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "@@" not in readme
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
