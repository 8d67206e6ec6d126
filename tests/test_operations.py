"""`docs/operations.md` says what the code does: its classes, codes, messages, options, sums."""

import ast
import json
import re
from pathlib import Path

import pytest
import typer

from pix2pix import cli, prometheus, status

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs/operations.md").read_text()
MEGAPIXELS_PER_SECOND_AND_CORE = 1.559 / 2


def _table(after: str) -> list[list[str]]:
    """The cells of the first table after some words, without its head."""
    lines = TEXT[TEXT.index(after) :].splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("|---"))
    rows = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def _said() -> list[str]:
    """Every string in the package, with parts of one that are written apart put together."""
    trees = [ast.parse(path.read_text()) for path in (ROOT / "pix2pix").glob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_every_failure_class_has_a_row_and_no_other() -> None:
    rows = _table("| failure_class |")
    assert [row[0].strip("`") for row in rows] == list(status.FAILURE_CLASSES)
    assert all(len(row) == 3 and all(row) for row in rows)


def test_every_exit_code_has_a_row() -> None:
    codes = {0, 1, 2, cli.PARTIAL, cli.OVER_BUDGET, cli.GAPS}
    rows = _table("| code |")
    assert {int(row[0]) for row in rows if row[0].isdecimal()} == codes


def test_every_message_is_one_that_the_code_has() -> None:
    said = _said()
    told = [phrase for row in _table("| message |") for phrase in re.findall(r"`([^`]+)`", row[0])]
    assert len(told) >= 12

    def known(phrase: str) -> bool:
        if phrase.startswith("cannot "):  # "cannot {verb} {place}"
            return "cannot " in said and phrase.removeprefix("cannot ") in said
        return any(phrase in each for each in said)

    assert [phrase for phrase in told if not known(phrase)] == []
    assert not known("cannot sing")


def test_every_option_is_one_that_a_command_has() -> None:
    program = typer.main.get_command(cli.app)
    options = {
        option
        for command in program.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help"}
    ours = re.sub(r"`python benchmarks/[^`]*`", "", TEXT)
    named = set(re.findall(r"`(?:[^`]* )?(--[a-z-]+)", ours))
    assert len(named) > 8
    assert named - options == set()


def test_every_file_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:cluster|benchmarks|docs)/[\w./-]+)`", TEXT))
    assert len(named) > 4
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_every_metric_and_stage_is_named() -> None:
    named = set(re.findall(r"`(pix2pix_\w+)`", TEXT))
    assert named == {
        prometheus.IMAGES, prometheus.FAILURES, prometheus.MEGAPIXELS, prometheus.STAGE_SECONDS,
        prometheus.IMAGE_SECONDS,
    }  # fmt: skip
    row = next(line for line in TEXT.splitlines() if line.startswith("| `pix2pix_stage_seconds"))
    assert [stage for stage in prometheus.STAGES if stage not in row] == []


def test_the_sizes_are_what_the_measured_speed_gives() -> None:
    for name, cores, speeds, million, hundred_millions in _table("| cluster |"):
        pods, size = map(int, re.findall(r"\d+", name))
        assert int(cores.replace(",", "")) == pods * size
        per_second = pods * size * MEGAPIXELS_PER_SECOND_AND_CORE / 12
        said = [float(number.replace(",", "")) for number in re.findall(r"[\d,.]+\d", speeds)]
        assert said == pytest.approx([per_second, per_second * 3600], rel=0.02)
        assert _seconds(million) == pytest.approx(1e6 / per_second, rel=0.02)
        if hundred_millions:
            assert _seconds(hundred_millions) == pytest.approx(1e8 / per_second, rel=0.02)


def _seconds(said: str) -> float:
    number, unit = said.split()
    return float(number) * {"hours": 3600, "days": 86400}[unit]


def test_the_costs_are_what_their_arithmetic_gives() -> None:
    total = {}
    for what, arithmetic, usd in _table("| a million photographs |"):
        product = arithmetic.replace(",", "").replace(" x ", " * ")
        terms = re.sub(r"[a-zA-Z-]+", "", product)
        total[what] = eval(terms, {"__builtins__": {}})  # digits and operators alone
        assert float(usd) == pytest.approx(total[what], rel=0.03), what
    both = ("the head (2 cores)", "GET", "PUT", "LIST")
    once = sum(usd for what, usd in total.items() if what.startswith(both))
    (said,) = re.findall(r"about \*\*(\d+) USD on demand, (\d+) as spot", TEXT)
    on_demand, spot = map(float, said)
    assert on_demand == pytest.approx(once + total["cores, on demand"], rel=0.03)
    assert spot == pytest.approx(once + total["cores, spot"], rel=0.03)


def test_the_policy_lets_nobody_change_an_original_or_remove_an_image() -> None:
    policy = json.loads(re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)[0])
    allowed = [
        (action, resource)
        for statement in policy["Statement"]
        for action in _list(statement["Action"])
        for resource in _list(statement["Resource"])
    ]
    assert all(statement["Effect"] == "Allow" for statement in policy["Statement"])
    of_archive = {action for action, place in allowed if place.startswith("arn:aws:s3:::photos/")}
    assert of_archive == {"s3:GetObject"}
    removable = {place.rpartition("/output/")[2] for action, place in allowed
                 if action == "s3:DeleteObject"}  # fmt: skip
    assert removable == {"lease/*", "status/*", "manifest/*"}
    assert not any("*" in action for action, _ in allowed)


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_it_is_finished() -> None:
    assert "@@" not in TEXT
