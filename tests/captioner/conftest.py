import pytest


@pytest.fixture
def paths(sample_photos):
    return [photo.path for photo in sample_photos[1]]
