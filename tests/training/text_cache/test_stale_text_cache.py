import json

import pytest

from bmt_keras.errors import InputError
from bmt_keras.training import text_cache


def change_weights(cache, make):
    model = make()
    table = model.text_tower.token_embedding.embeddings
    table.assign(table + 1e-3)
    return cache(model)


STALE = {
    "text_weights": change_weights,
    "seed": lambda cache, _: cache(seed=5),
    "cached_maskings": lambda cache, _: cache(cached_maskings=1),
    "redraw_epochs": lambda cache, _: cache(redraw_epochs=4),
    "masking": lambda cache, make: cache(make(mask_rate=0.5)),
}


@pytest.mark.parametrize("field", STALE)
def test_stale_cache_is_refused(make_cache, make_model, field):
    make_cache()
    with pytest.raises(InputError, match=rf"`{field}` is .* delete the folder"):
        STALE[field](make_cache, make_model)


def test_cache_of_other_captions_is_refused(make_cache, make_batches):
    make_cache()
    fewer = make_batches(captions_per_image=1)
    with pytest.raises(InputError, match="`captions` is"):
        make_cache(source=fewer)


def test_broken_manifest_is_refused(make_cache, tmp_path):
    make_cache()
    path = tmp_path / "states" / "manifest.json"
    for content in ("{", "3"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"manifest\.json: expected"):
            make_cache()


def test_folder_that_a_kill_left_empty_is_taken(make_cache, tmp_path):
    (tmp_path / "states").mkdir()
    (tmp_path / "states" / ".123.manifest.json").write_text("{")
    make_cache()
    path = tmp_path / "states" / "manifest.json"
    assert json.loads(path.read_text())["cached_maskings"] == 2


def test_broken_shard_is_computed_again(make_cache, tmp_path, caplog):
    make_cache().dataset()
    (path,) = (tmp_path / "states").glob("round-0000/masking-00/*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    make_cache().dataset()
    assert "cannot be read" in caplog.text
    assert path.read_bytes() == content


def test_stopped_caching_keeps_its_finished_shards(
    make_cache, tmp_path, monkeypatch
):
    """As a kill leaves it: half a file, and states without their columns."""
    monkeypatch.setattr(text_cache, "_SHARD", 16)
    make_cache().dataset()
    folder = tmp_path / "states" / "round-0000" / "masking-00"
    expected = {path.name: path.read_bytes() for path in folder.iterdir()}
    first, second, *_ = sorted(folder.glob("*.npz"))
    second.unlink()
    (folder / ".123.shard-00002.npy").write_bytes(b"half")
    kept = first.stat().st_mtime_ns
    make_cache().dataset()
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert first.stat().st_mtime_ns == kept
    assert found.keys() == expected.keys()
    for name in expected:
        if name.endswith(".npy"):
            assert found[name] == expected[name]
