import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pix2pix import evaluation, report
from pix2pix.evaluation import Score


def test_a_sheet_shows_the_photographs_it_is_given() -> None:
    colours = ((250, 0, 0), (0, 250, 0), (0, 0, 250))
    images = tuple(np.full((50, 60, 3), colour, np.uint8) for colour in colours)
    png = report.sheet([report.Row("one", images, ("a", "b", "c"))], ("noisy", "denoised", "clean"))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    shares = [(pixels == colour).all(1).mean() for colour in colours]
    assert min(shares) > 0.15


def test_the_histogram_has_each_noise_level_at_its_place() -> None:
    before, after = np.zeros(256, int), np.zeros(256, int)
    before[40], after[4] = 9, 9
    pixels = np.asarray(Image.open(io.BytesIO(report.noise(before, after, 0.25))).convert("RGB"))
    fills = ((177, 207, 229), (207, 207, 207))  # a third of blue for after, of grey for before
    blue, grey = (np.nonzero((abs(pixels - np.array(fill)) < 3).all(2))[1] for fill in fills)
    assert len(blue) > 500
    assert len(grey) > 500
    zero = 43  # where the axis begins
    assert abs((np.median(grey) - zero) / (np.median(blue) - zero) - 40.5 / 4.5) < 0.2


def test_a_histogram_may_be_of_one_photograph_beyond_its_end() -> None:
    counts = np.zeros(256, int)
    counts[-1] = 1
    assert Image.open(io.BytesIO(report.noise(counts, counts, 0.25))).size == (900, 300)


def test_curves_are_a_picture_of_any_history() -> None:
    names = (*("psnr_db", "noisy_psnr_db", "ssim", "noisy_ssim"), "l1_loss", "adversarial_loss")
    row = dict.fromkeys((*names, "discriminator_loss"), 0.5)
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row | {"step": 1}, row | {"step": 2}]), file)
    picture = Image.open(io.BytesIO(report.curves(file.getvalue().to_pybytes())))
    assert picture.size == (1100, 700)


def test_the_table_shows_every_pair_also_one_that_got_worse() -> None:
    scores = [Score("a.png", "a", 30, 33, 0.8, 0.9), Score("b.png", "b", 40, 39, 0.98, 0.97)]
    lines = evaluation.table(scores)
    assert "+3.00" in lines[1]
    assert "-1.00" in lines[2]
    assert "35.00 dB  36.00 dB   +1.00" in lines[3]
    assert lines[-1] == "1 got worse: b.png"


def test_means_of_psnr_stay_finite_where_a_pair_is_perfect() -> None:
    scores = [Score("a.png", "a", 30, float("inf"), 0.8, 1.0), Score("b.png", "b", 40, 40, 1, 1)]
    assert evaluation.means(scores)["psnr_db"] == 70  # (100 + 40) / 2
