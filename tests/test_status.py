"""Claims about pix2pix.status: what is done, what is to do, how it went."""

import itertools
import math
import pickle
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2pix import ids, manifest, metrics, status, storage
from tests.rows import listed, row

ALL = frozenset(status.FAILURE_CLASSES)


def to_do(output: str, table: pyarrow.Table, **asked: Any) -> dict[str, int]:
    """The attempt that each image of a manifest's part is up to."""
    rows = status.pending(table, status.done(output, **asked)).to_pylist()
    assert len(rows) == len({each["relative_path"] for each in rows})
    return {each["relative_path"]: each["attempt"] for each in rows}


def test_what_is_missing_new_or_changed_is_to_do(tmp_path: Path) -> None:
    output = str(tmp_path)
    status.append(output, [row("done.jpg"), row("changed.jpg"), row("gone.jpg")])
    status.append(output, [row("failed.jpg", status="failed", attempt=3)])
    table = listed(("done.jpg", "1"), ("changed.jpg", "2"), ("new.jpg", "1"), ("failed.jpg", "1"))
    found = status.pending(table, status.done(output))
    assert found.schema.names == [*manifest.SCHEMA.names, "attempt"]
    assert found.schema.field("attempt").type == pyarrow.int32()
    assert to_do(output, table) == {"changed.jpg": 1, "new.jpg": 1}


def test_only_the_named_classes_of_failures_are_done_again(tmp_path: Path) -> None:
    output = str(tmp_path)
    classes = {"a.jpg": "transient_io", "b.jpg": "crashed", "c.jpg": "not_found"}
    status.append(
        output,
        [
            row(name, status="failed", failure_class=each, attempt=2)
            for name, each in classes.items()
        ],
    )
    table = listed(*((name, "1") for name in classes))
    assert to_do(output, table, retry=frozenset({"transient_io", "not_found"})) == {
        "a.jpg": 3,
        "c.jpg": 3,
    }
    assert to_do(output, table, retry=ALL) == dict.fromkeys(classes, 3)
    with pytest.raises(ValueError, match=r"retry=\['odd'\] must be of"):
        status.done(output, retry=frozenset({"odd", "crashed"}))


def test_what_other_weights_denoised_is_done_again_but_not_what_they_never_saw(
    tmp_path: Path,
) -> None:
    output = str(tmp_path)
    rows = [
        row(f"{each}-{weights}.jpg", status=each, checkpoint_sha256=weights)
        for each in status.STATUSES
        for weights in ("old", "new", None)
    ]
    status.append(output, rows)
    table = listed(*((each["relative_path"], "1") for each in rows))
    again = {f"{each}-{weights}.jpg": 2 for each in ("denoised", "kept_original")
             for weights in ("old", None)}  # fmt: skip
    assert to_do(output, table, not_of_checkpoint="new") == again
    assert to_do(output, table) == {}


def test_what_has_lost_its_output_is_done_again(tmp_path: Path) -> None:
    output = str(tmp_path)
    rows = [row(f"{there}/{each}.jpg", status=each) for each in status.STATUSES for there in "yn"]
    status.append(output, rows)
    table = listed(*((each["relative_path"], "1") for each in rows))
    assert len(status.outputs(f"{output}/images")) == 0
    for each in status.STATUSES:
        storage.write(f"{output}/images/y/{each}.jpg", b"1")
    present = status.outputs(f"{output}/images")
    assert present.dtype == np.uint64
    assert to_do(output, table, present=present) == {
        "n/denoised.jpg": 2,
        "n/skipped_clean.jpg": 2,
        "n/kept_original.jpg": 2,
    }


def test_everything_is_to_do_at_first_and_nothing_in_an_empty_archive(tmp_path: Path) -> None:
    output = str(tmp_path)
    assert to_do(output, listed(("a.jpg", "1"))) == {"a.jpg": 1}
    assert to_do(output, listed()) == {}
    status.append(output, [row("a.jpg")])
    assert to_do(output, listed()) == {}


names = st.sampled_from(["a.jpg", "b.jpg", "c/a.jpg", "d.jpg"])
etags = st.sampled_from(["1", "2"])
some_rows = st.builds(
    row,
    names,
    st.integers(0, 5),
    etag=etags,
    status=st.sampled_from(status.STATUSES),
    attempt=st.integers(1, 4),
    checkpoint_sha256=st.sampled_from(["old", "new"]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(some_rows, min_size=1, max_size=6), max_size=5),
    st.dictionaries(names, etags),
    st.sampled_from([frozenset(), frozenset({"undecodable"}), frozenset({"crashed"})]),
    st.sampled_from([None, "new"]),
    st.none() | st.sets(names),
)
def test_done_and_pending_agree_with_a_plain_model(
    written: list[list[dict]],
    archive: dict[str, str],
    retry: frozenset[str],
    weights: str | None,
    outputs: set[str] | None,
) -> None:
    output = f"memory://{uuid4().hex}"
    for part in written:
        status.append(output, part)
    status.compact(output)
    newest = {each["relative_path"]: each for each in status.current(output).to_pylist()}
    assert {each["relative_path"] for each in itertools.chain(*written)} == set(newest)
    model = {}
    for name, etag in archive.items():
        last = newest.get(name)
        if last is None or last["etag"] != etag:
            model[name] = 1
        elif (
            last["failure_class"] in retry
            or (weights and last["status"] in ("denoised", "kept_original")
                and last["checkpoint_sha256"] != weights)
            or (outputs is not None and last["status"] != "failed" and name not in outputs)
        ):  # fmt: skip
            model[name] = last["attempt"] + 1
    present = None
    if outputs is not None:
        present = np.sort(ids.hashes(pyarrow.array(sorted(outputs), pyarrow.string())))
    asked = {"retry": retry, "not_of_checkpoint": weights, "present": present}
    assert model == to_do(output, listed(*archive.items()), **asked)


def test_done_holds_16_bytes_per_image_and_travels_by_reference(tmp_path: Path) -> None:
    output = str(tmp_path)
    status.append(output, [row(f"{i}.jpg", checkpoint_sha256="ab") for i in range(100)])
    done = status.done(output)
    assert done.ids.nbytes == 100 * 16
    assert done.by_checkpoint == {"ab": 100}
    buffers: list[pickle.PickleBuffer] = []
    assert len(pickle.dumps(done, protocol=5, buffer_callback=buffers.append)) < 1000
    assert sum(buffer.raw().nbytes for buffer in buffers) == 1600
    frozen = pickle.loads(  # as Ray gives it: read-only
        pickle.dumps(done, protocol=5, buffer_callback=lambda _: None),
        buffers=[bytes(buffer.raw()) for buffer in buffers],
    )
    assert not frozen.ids.flags.writeable
    assert len(status.pending(listed(("5.jpg", "1"), ("x.jpg", "1")), frozen)) == 1


def test_the_tallies_are_of_the_images_that_the_archive_holds_now(tmp_path: Path) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    for name in ("a.jpg", "b.jpg", "c.jpg", "new.jpg"):
        storage.write(f"{archive}/{name}", b"1")
    manifest.write(archive, output)
    images = {each["relative_path"]: each for each in manifest.read(output).to_pylist()}

    def done(name: str, **values: Any) -> dict[str, Any]:
        return row(name, **values) | images.get(name, {})

    status.append(
        output,
        [
            done("a.jpg", psnr_db=math.inf, ssim=1.0, noise_sigma_before=4.0,
                 noise_sigma_after=1.0, checkpoint_sha256="old"),
            done("b.jpg", psnr_db=30.0, ssim=0.5, noise_sigma_before=8.0, noise_sigma_after=3.0,
                 checkpoint_sha256="new"),
            done("gone.jpg", psnr_db=1.0, ssim=0.0, checkpoint_sha256="new"),
        ],
    )  # fmt: skip
    failed = {"status": "failed", "failure_class": "crashed"}
    status.append(output, [done("c.jpg", **failed)])
    assert status.tallies(output) == status.Tallies(
        images=4,
        without_row=1,
        left_archive=1,
        by_status={"denoised": 2, "failed": 1},
        by_failure_class={"crashed": 1},
        by_checkpoint={"old": 1, "new": 1},
        means={
            "psnr_db": metrics.mean_psnr_db([math.inf, 30.0]),
            "ssim": 0.75,
            "noise_sigma_before": 6.0,
            "noise_sigma_after": 2.0,
        },
    )


def test_of_nothing_measured_there_is_no_mean(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/archive/a.jpg", b"1")
    manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    tallies = status.tallies(f"{tmp_path}/output")
    assert tallies.means == dict.fromkeys(status.MEASURED)
    assert (tallies.images, tallies.without_row) == (1, 1)
