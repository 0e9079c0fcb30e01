from pathlib import Path

import pytest

from swe_srl.training.atomic import recover_folder, remove_folder, write_folder


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "checkpoint"

    def write(folder: Path) -> None:
        (folder / "weights").write_text("new")
        assert not final.exists()

    def fail(folder: Path) -> None:
        (folder / "weights").write_text("newer")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_folder(final, fail)
    assert not final.exists()
    write_folder(final, write)
    with pytest.raises(OSError, match="no space"):
        write_folder(final, fail)
    recover_folder(final)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert (final / "weights").read_text() == "new"


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        ({"partial": "new"}, None),
        ({"": "old", "partial": "new"}, "old"),
        ({"old": "old", "partial": "new"}, "old"),
        ({"": "new", "old": "old"}, "new"),
    ],
)
def test_what_a_kill_leaves_is_the_old_folder_or_the_new(tmp_path: Path, left: dict[str, str], kept: str | None) -> None:
    final = tmp_path / "checkpoint"
    for suffix, text in left.items():
        folder = tmp_path / ".".join(filter(None, ["checkpoint", suffix]))
        folder.mkdir()
        (folder / "weights").write_text(text)
    recover_folder(final)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"] * (kept is not None)
    if kept is not None:
        assert (final / "weights").read_text() == kept
        remove_folder(final)
        assert list(tmp_path.iterdir()) == []
