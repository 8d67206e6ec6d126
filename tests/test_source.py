import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pix2pix import source


@given(st.lists(st.integers(0, 10_000_000), max_size=80))
def test_chunks_are_all_the_rows_in_order_and_each_is_small_or_a_single_one(
    sizes: list[int],
) -> None:
    chunks = [
        chunk["size_bytes"].to_pylist()
        for chunk in source.cut(pa.table({"size_bytes": pa.array(sizes, pa.int64())}))
    ]
    assert [size for chunk in chunks for size in chunk] == sizes
    assert all(1 <= len(chunk) <= source.CHUNK_IMAGES for chunk in chunks)
    assert all(sum(chunk) <= source.CHUNK_BYTES for chunk in chunks if len(chunk) > 1)


def test_tiny_images_share_a_chunk_and_large_ones_have_their_own() -> None:
    sizes = [1000] * 40 + [9_000_000, 9_000_000, 1000]
    chunks = [len(chunk) for chunk in source.cut(pa.table({"size_bytes": sizes}))]
    assert chunks == [32, 8, 1, 1, 1]
