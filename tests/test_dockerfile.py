"""The image holds what the cluster runs, pinned, not as root; its steps run here where they can.

Without a Docker engine they can't: pull the base, run apt and useradd, install 2 GB.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}

Step = tuple[str, str]


def steps(text: str) -> list[Step]:
    """Instructions and what follows each, in their order; comments gone, lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(text: str) -> dict[str, list[Step]]:
    """The steps of every stage that lead to it, those of the stages that it builds on first."""
    found: dict[str, list[Step]] = {}
    for word, rest in steps(text):
        if word == "FROM":
            base, _, name = rest.split()
            found[name] = [*found.get(base, []), (word, rest)]
        else:
            found[name].append((word, rest))
    return found


def problems(text: str) -> list[str]:
    found = []
    for word, rest in steps(text):
        if word not in KNOWN:
            found.append(f"{word} is not needed here")
        base = rest.split()[0]
        pinned = base in stages(text) or re.fullmatch(r"[a-z/.]+:\d+\.\d+\.\d+-[a-z-]+", base)
        if word == "FROM" and not pinned:
            found.append(f"base {base} may change")
        if word == "COPY" and "--from" not in rest and not _copied(rest):
            found.append(f"COPY {rest}: too much, or not there")
        if word in ("ARG", "ENV") and re.search(r"KEY|SECRET|TOKEN|PASSWORD", rest):
            found.append(f"{rest} stays in the image")
        if word == "RUN" and "pip install" in rest:
            for command in re.findall(r"pip install[^&]*", rest):
                if "--constraint requirements.lock" not in command and "--no-deps" not in command:
                    found.append(f"{command.strip()}: versions are not pinned")
        if word == "RUN" and "apt-get install" in rest:
            for needed in ("--no-install-recommends", "rm -rf /var/lib/apt/lists"):
                found += [] if needed in rest else [f"apt-get without {needed}"]
        if word == "RUN" and re.search(r"curl|wget http|sudo|chmod 777", rest):
            found.append(f"RUN {rest}")
    for name in ("cpu", "gpu"):
        users = [rest for word, rest in stages(text).get(name, []) if word == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
            found.append(f"{name} runs as root, or as a name")
    return found


def _copied(rest: str) -> bool:
    """Whether files are copied by name that exist and that the context lets through."""
    allowed = {
        line.removeprefix("!")
        for line in (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = rest.split()[:-1]
    return all(source in allowed and (ROOT / source).exists() for source in sources)


def test_the_dockerfile_keeps_the_rules() -> None:
    assert problems(DOCKERFILE.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("python:3.11.14-slim-bookworm", "python:latest", "may change"),
        ("python:3.11.14-slim-bookworm", "python:3.11", "may change"),
        ("USER 1000:1000\n", "", "cpu runs as root"),
        ("USER 1000:1000", "USER 0:0", "gpu runs as root"),
        ("USER 1000:1000", "USER pix2pix", "or as a name"),
        ("COPY jobs jobs", "COPY . .", "too much"),
        ("COPY jobs jobs", "COPY job jobs", "not there"),
        ("COPY jobs jobs", "COPY tests tests", "too much"),
        ("ARG EXTRAS=aws", "ARG AWS_SECRET_ACCESS_KEY", "stays in the image"),
        ('--constraint requirements.lock ".[$EXTRAS]"', '".[$EXTRAS]"', "not pinned"),
        (" --no-install-recommends", "", "apt-get without"),
        ("CMD", "ADD https://example.com/x /x\nCMD", "ADD is not needed"),
    ],
)
def test_a_broken_dockerfile_is_found(old: str, new: str, problem: str) -> None:
    text = DOCKERFILE.read_text()
    assert old in text
    assert any(problem in each for each in problems(text.replace(old, new)))


def test_the_context_lets_in_what_is_copied_and_nothing_else() -> None:
    lines = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {
        source
        for word, rest in steps(DOCKERFILE.read_text())
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied


def test_all_that_the_image_installs_is_pinned_within_what_we_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locked = _pins(ROOT / "requirements.lock")
    nvidia = _pins(ROOT / "cluster" / "gpu.lock")
    cuda = [each for each in map(Requirement, requires("tensorflow")) if 'and-cuda"' in str(each)]
    wanted = [*project["dependencies"], *extras["aws"], *extras["dev"], *extras["gpu"]]
    for requirement in [*map(Requirement, wanted), *cuda]:
        pins = nvidia if requirement.name.startswith("nvidia") else locked
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (requirement, version)
    assert len(cuda) == len(nvidia) > 10
    assert locked["boto3"].split(".")[:2] == locked["botocore"].split(".")[:2]
    assert sys.version_info[:2] == (3, 11)  # as the base has: the lock is of this Python


def _pins(path: Path) -> dict[str, str]:
    pins = (line.split("==") for line in path.read_text().split())
    return {canonicalize_name(name): version for name, version in pins}


def test_the_steps_that_bring_in_our_code_run_and_the_commands_start(tmp_path: Path) -> None:
    text = DOCKERFILE.read_text()
    source, target, venv = tmp_path / "src", tmp_path / "image", tmp_path / "venv"
    for folder, stage in ((source, "build"), (target, "cpu")):
        for word, rest in stages(text)[stage]:
            if word == "COPY" and "--from" not in rest:
                *names, last = rest.split()
                for name in names:
                    _copy(ROOT / name, folder / last / ("" if last == name else name))
    # the dependencies are those that are here already
    command = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    subprocess.run(command, check=True)
    (site,) = venv.glob("lib/*/site-packages")
    (site / "here.pth").write_text("\n".join(each for each in sys.path if "site-packages" in each))
    run = next(rest for word, rest in reversed(stages(text)["build"]) if word == "RUN")
    pip = f"{sys.executable} -m pip --python {venv}/bin/python --quiet"
    step = run.replace("/opt/venv/bin/pip", pip).replace("--force-reinstall", "--ignore-installed")
    subprocess.run(step, shell=True, check=True, cwd=source)
    assert list(site.glob("pix2pix/weights/best/generator.weights.h5"))
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def told(*words: str) -> str:
        command = [f"{venv}/bin/{words[0]}", *words[1:]]
        done = subprocess.run(
            command, cwd=target, env=plain, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert told("python", "-c", "import pix2pix; print(pix2pix.__file__)").startswith(str(site))
    assert "--gpu" in told("pix2pix", "denoise", "--help")
    for name in ("denoise", "train", "evaluate"):
        assert "--gpu" in told("python", f"jobs/{name}.py", "--help")
    told("python", "-c", "import sys; sys.path.insert(0, 'cluster'); import nightly")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
