"""The demo keeps its promise; slow: about six minutes on two cores."""

import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_gains_two_decibels_on_a_scene_it_never_saw(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "demo", f"DEMO={tmp_path}/demo"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    scores = pq.read_table(tmp_path / "demo/report/scores.parquet").to_pydict()
    means = {
        name: np.mean(scores[name]) for name in ("noisy_psnr_db", "psnr_db", "noisy_ssim", "ssim")
    }
    assert means["psnr_db"] >= means["noisy_psnr_db"] + 2
    assert means["ssim"] > means["noisy_ssim"]
    assert all(name in done.stdout for name in scores["name"])
    # the bulk job and the evaluation, which share no loop, agree on every image
    rows = pq.read_table(tmp_path / "demo/output/status").to_pydict()
    assert dict(zip(rows["relative_path"], rows["psnr_db"], strict=True)) == pytest.approx(
        dict(zip(scores["name"], scores["psnr_db"], strict=True))
    )
