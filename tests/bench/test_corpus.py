from bmt_keras.bench.corpus import find_tokenizer
from bmt_keras.bench.options import BenchOptions
from bmt_keras.data.coco import Photo


def test_a_vocabulary_is_as_large_as_that_of_albert(tmp_path):
    options = BenchOptions(tmp_path / "captions.json", tmp_path)
    photos = [Photo(1, tmp_path / "1.jpg", ("A man rides a horse.",))]
    tokenizer = find_tokenizer(options.settings("notebook"), photos)
    assert tokenizer.vocabulary_size == 30_000
