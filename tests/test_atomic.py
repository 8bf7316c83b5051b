import stat
from pathlib import Path

import pytest

from bmt_keras.atomic import write_atomically, write_folder_atomically


def test_file_takes_its_place_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "made" / "note.txt"
    with write_atomically(path) as file:
        file.write("größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "note.bin"
    path.write_bytes(b"old and longer")
    with write_atomically(path, "wb") as file:
        file.write(b"\x00new")
    assert path.read_bytes() == b"\x00new"


def test_old_content_is_whole_until_the_block_ends(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with write_atomically(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_keeps_the_old_file_and_removes_the_new_one(tmp_path, error):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(error), write_atomically(path) as file:
        file.write("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_that_cannot_be_renamed_is_removed(tmp_path):
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError), write_atomically(path) as file:
        file.write("text")
    assert list(tmp_path.iterdir()) == [path]


def test_file_has_the_permissions_of_a_plain_one(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    path = tmp_path / "note.txt"
    with write_atomically(path) as file:
        file.write("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(
        plain.stat().st_mode
    )


def test_folder_takes_its_place_with_all_it_holds(tmp_path):
    path = tmp_path / "made" / "model"
    with write_folder_atomically(path) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text("w")
        assert folder.parent == path.parent
        assert not path.exists()
    assert (path / "part" / "weights").read_text() == "w"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_removes_the_folder(tmp_path, error):
    with (
        pytest.raises(error),
        write_folder_atomically(tmp_path / "model") as folder,
    ):
        (folder / "weights").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_kept(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with (
        pytest.raises(FileExistsError, match="Nothing may be at `path`"),
        write_folder_atomically(path),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_appears_meanwhile_is_refused_and_kept(tmp_path):
    path = tmp_path / "model"
    with (
        pytest.raises(FileExistsError, match="model"),
        write_folder_atomically(path) as folder,
    ):
        (folder / "mine").write_text("")
        path.mkdir()
    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == []


def test_replaced_folder_gives_way_whole(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("")
    with write_folder_atomically(path, replace=True) as folder:
        (folder / "new").write_text("")
        assert (path / "old").exists()
    assert list(tmp_path.iterdir()) == [path]
    assert list(path.iterdir()) == [path / "new"]


def test_replace_makes_a_folder_where_none_was(tmp_path):
    path = tmp_path / "model"
    with write_folder_atomically(path, replace=True) as folder:
        (folder / "new").write_text("")
    assert list(tmp_path.rglob("*")) == [path, path / "new"]


def test_failure_keeps_the_folder_to_replace(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("")
    with (
        pytest.raises(RuntimeError),
        write_folder_atomically(path, replace=True),
    ):
        raise RuntimeError
    assert list(tmp_path.rglob("*")) == [path, path / "old"]


def test_failed_rename_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("")
    rename = Path.rename

    def fail_for_the_new_one(source, target):
        if (source / "new").exists():
            raise PermissionError
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with (
        pytest.raises(PermissionError),
        write_folder_atomically(path, replace=True) as folder,
    ):
        (folder / "new").write_text("")
    assert list(tmp_path.rglob("*")) == [path, path / "old"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_files_and_links_are_never_replaced_by_a_folder(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "file":
        path.write_text("")
    else:
        path.symlink_to(tmp_path)
    with (
        pytest.raises(FileExistsError, match="Only a folder may be at"),
        write_folder_atomically(path, replace=True),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == [path]
