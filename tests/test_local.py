"""Claims about pix2pix.local that `test_storage` does not make."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from pix2pix import local


def test_where_there_are_no_hard_links_files_are_created_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: str) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    assert local.create(f"{tmp_path}/a", b"1")
    assert not local.create(f"{tmp_path}/a", b"2")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"1"]


def test_a_file_that_may_not_be_created_is_no_lost_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: str) -> None:
        raise OSError(errno.EACCES, "not allowed")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(PermissionError):
        local.create(f"{tmp_path}/a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def linked_twice(source: str, target: str) -> None:  # as NFS does when an answer gets lost
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", linked_twice)
    assert local.create(f"{tmp_path}/a", b"1")
    assert not local.create(f"{tmp_path}/a", b"2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_tree_is_listed_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FILES_AT_ONCE", 3)
    names = {f"{a}/{b}/{c}" for a in range(9) for b in range(4) for c in range(5)}
    names |= {f"{c}.jpg" for c in range(8)}
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(names) == sorted(name for name, _, _ in local.files(str(tmp_path)))


def test_a_folder_that_goes_while_it_is_listed_stops_the_listing(tmp_path: Path) -> None:
    for a in range(50):
        for b in range(20):
            (tmp_path / f"{a}/{b}").mkdir(parents=True)
            (tmp_path / f"{a}/{b}/a.jpg").touch()
    listing = local.files(str(tmp_path))
    next(listing)
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        list(listing)
