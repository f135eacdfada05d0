"""A file is there whole or not at all, and an error says which one could not be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.core.errors import RunFailed
from auditkit.pipeline.whole_file import write_whole


def test_a_file_in_a_new_folder_is_written_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "page.html", "text")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]
    assert (tmp_path / "new" / "page.html").read_text() == "text"


def test_what_stood_there_stays_where_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("before")

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunFailed, match=r"page\.html: cannot be written: .*No space left"):
        write_whole(page, "after")
    assert page.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_folder_that_is_a_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(RunFailed, match="cannot be written"):
        write_whole(tmp_path / "taken" / "page.html", "text")
