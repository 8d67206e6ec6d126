"""What a node tells Prometheus is what the table says, and Grafana asks for what there is."""

import json
import re
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from pix2pix import checkpoints, ledger, manifest, prometheus, source, stages, status

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples/unseen/noisy"
DASHBOARD = json.loads((ROOT / "cluster/grafana.json").read_text())
SECONDS = 60.0  # until a process has told its node; a busy machine is no error
Told = list[tuple[str, dict[str, str], float]]
LABEL = re.compile(r'(\w+)="([^"]*)"')


def _filled(folder: Path) -> Path:
    """Four photographs, one of them clean, and two files that fail in different ways."""
    folder.mkdir()
    for place, path in enumerate(sorted(SAMPLES.iterdir())[:3]):
        Image.open(path).convert("RGB").crop((0, 0, 60 + place, 48)).save(folder / f"{place}.png")
    Image.linear_gradient("L").convert("RGB").save(folder / "clean.png")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:500])
    Image.new("P", (9, 9)).save(folder / "palette.png")
    return folder


def _samples(text: str) -> Told:
    """Name, labels and value of every line of Prometheus's text format."""
    found = []
    for line in text.splitlines():
        if not line.startswith("#") and (match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)):
            found.append((match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))
    return found


def _scraped() -> Told:
    import ray

    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        return _samples(answer.read().decode())


@pytest.fixture(scope="module")
def told(
    ray_cluster: None, checkpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict], Told]:
    """The rows of a few images, and what the node then tells of the process that did them."""
    import ray

    folder = tmp_path_factory.mktemp("prometheus")
    archive, output = _filled(folder / "archive"), str(folder / "output")
    listed = pa.concat_tables(batch.rows for batch in manifest.listed(str(archive)))
    images = status.pending(listed, status.done(output)).to_pylist()
    images = pa.array([images], source.CHUNK.field("images").type)
    chunk = pa.table([pa.array([0], pa.int64()), images], schema=source.CHUNK)
    way = stages.Way(*checkpoints.identified(checkpoint))
    process = ray.remote(stages.Denoise).options(num_cpus=0)
    process = process.remote(output, way, ledger.started(1, 1), False, 1)
    rows = ray.get(process.__call__.remote(chunk))["rows"][0].as_py()
    status.append(output, rows)
    worker = ray.get(
        process.__ray_call__.remote(lambda _: ray.get_runtime_context().get_worker_id())
    )
    limit, ours, last = time.monotonic() + SECONDS, [], f"ray_{prometheus.IMAGE_SECONDS}_count"
    # until all is there: the node takes in one metric after another
    while time.monotonic() < limit:
        before, ours = ours, [each for each in _scraped() if each[1].get("WorkerId") == worker]
        if ours == before and [value for name, _, value in ours if name == last] == [len(rows)]:
            break
        time.sleep(0.5)
    ray.kill(process)
    return status.current(output).to_pylist(), ours


def _by(told: Told, name: str, label: str) -> dict[str, float]:
    return {labels[label]: value for each, labels, value in told if each == f"ray_{name}"}


def test_images_and_failures_are_as_many_as_the_table_has(told: tuple[list[dict], Told]) -> None:
    rows, metrics = told
    assert len(rows) == 6
    assert _by(metrics, prometheus.IMAGES, "status") == Counter(row["status"] for row in rows)
    assert _by(metrics, prometheus.IMAGES, "status") == {
        "denoised": 3, "skipped_clean": 1, "failed": 2,
    }  # fmt: skip
    failures = Counter(row["failure_class"] for row in rows if row["failure_class"])
    assert _by(metrics, prometheus.FAILURES, "failure_class") == failures
    assert failures == {"undecodable": 1, "unsupported": 1}
    (count,) = (
        value for name, _, value in metrics if name == f"ray_{prometheus.IMAGE_SECONDS}_count"
    )
    assert count == 6


def test_megapixels_and_seconds_are_those_of_the_table(told: tuple[list[dict], Told]) -> None:
    rows, metrics = told
    (megapixels,) = (value for name, _, value in metrics if name == f"ray_{prometheus.MEGAPIXELS}")
    assert megapixels == pytest.approx(
        sum((row["width"] or 0) * (row["height"] or 0) for row in rows) / 1e6
    )
    seconds = _by(metrics, prometheus.STAGE_SECONDS, "stage")
    assert seconds.keys() <= set(prometheus.STAGES)
    assert seconds.keys() >= {"read", "decode", "measure", "denoise", "encode", "write", "failed"}
    in_rows = {
        name: sum(row[f"seconds_{name}"] or 0.0 for row in rows)
        for name in ("fetch", "denoise", "write")
    }
    assert seconds["read"] == pytest.approx(in_rows["fetch"])
    assert seconds["write"] == pytest.approx(in_rows["write"])
    # the row's "denoise" is all between reading and writing
    rest = sum(seconds.values()) - seconds["read"] - seconds["write"]
    assert rest == pytest.approx(in_rows["denoise"], abs=0.01)


def test_the_stages_of_an_image_add_up_to_its_time() -> None:
    watch = prometheus.Watch()
    laps = []
    for stage in ("read", "decode", "measure", "measure"):
        time.sleep(0.002)
        laps.append(watch.lap(stage))
    assert all(seconds >= 0.002 for seconds in laps)
    assert sum(watch.seconds.values()) == pytest.approx(watch.at - watch.begun)
    assert watch.seconds["measure"] == pytest.approx(laps[2] + laps[3])


OURS = {
    prometheus.IMAGES, prometheus.FAILURES, prometheus.MEGAPIXELS, prometheus.STAGE_SECONDS,
    *(f"{prometheus.IMAGE_SECONDS}_{part}" for part in ("bucket", "sum", "count")),
}  # fmt: skip


def _queries(dashboard: dict) -> list[str]:
    panels = dashboard["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return found + [each["query"]["query"] for each in dashboard["templating"]["list"]
                    if each["type"] == "query"]  # fmt: skip


def _unknown(queries: list[str], known: set[str]) -> set[str]:
    """Names of metrics in queries that nobody tells."""
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)} - known


def test_grafana_asks_for_metrics_that_there_are(told: tuple[list[dict], Told]) -> None:
    queries = _queries(DASHBOARD)
    assert len(queries) >= 10
    assert all("ray_" in query for query in queries)
    known, limit = {f"ray_{name}" for name in OURS}, time.monotonic() + SECONDS
    while _unknown(queries, known) and time.monotonic() < limit:  # Ray's agent tells of the node
        time.sleep(0.2)
        known |= {name for name, _, _ in _scraped()}
    assert _unknown(queries, known) == set()
    assert _unknown(["rate(ray_pix2pix_images[5m])", queries[0]], known) == {"ray_pix2pix_images"}


def test_grafana_shows_all_that_is_counted() -> None:
    asked = " ".join(_queries(DASHBOARD))
    assert [name for name in sorted(OURS - {f"{prometheus.IMAGE_SECONDS}_sum",
                                            f"{prometheus.IMAGE_SECONDS}_count"})
            if f"ray_{name}" not in asked] == []  # fmt: skip


def test_the_panels_of_grafana_have_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] for panel in panels)
    taken = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) < 24
