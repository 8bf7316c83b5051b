import keras
import numpy as np
import pytest

from bmt_keras.layers import ApplicationPreprocessing

PIXEL = np.array([[[[255, 0, 51]]]], "float32")

# [-1, 1]; [0, 1] less the mean, by the deviation; BGR less the mean; as it is.
EXPECTED = {
    "InceptionV3": (1, -1, -0.6),
    "DenseNet121": (0.515 / 0.229, -0.456 / 0.224, -0.206 / 0.225),
    "VGG16": (51 - 103.939, 0 - 116.779, 255 - 123.68),
    "MobileNetV3Small": (255, 0, 51),
}


def test_every_application_has_its_preprocessing():
    names = [name for name in dir(keras.applications) if name[0].isupper()]
    assert len(names) > 30
    for name in names:
        assert ApplicationPreprocessing(name)(PIXEL).shape == PIXEL.shape


def test_resnet_is_preprocessed_otherwise_than_its_second_version():
    first = ApplicationPreprocessing("ResNet50")(PIXEL)
    second = ApplicationPreprocessing("ResNet50V2")(PIXEL)
    np.testing.assert_allclose(first[0, 0, 0], EXPECTED["VGG16"], rtol=1e-5)
    np.testing.assert_allclose(second[0, 0, 0], EXPECTED["InceptionV3"])


@pytest.mark.parametrize("application", EXPECTED)
def test_input_is_not_written_over(application):
    pixels = PIXEL.copy()
    layer = ApplicationPreprocessing(application)
    layer(pixels)
    layer.call(pixels)
    np.testing.assert_array_equal(pixels, PIXEL)


def test_integer_pixels_give_floats():
    outputs = ApplicationPreprocessing("VGG16")(PIXEL.astype("uint8"))
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs[0, 0, 0], EXPECTED["VGG16"], rtol=1e-5)


def test_pixels_are_rounded_to_half_precision_only_afterwards():
    pixels = np.full((1, 1, 1, 3), 127.3, "float32")
    layer = ApplicationPreprocessing("InceptionV3", dtype="mixed_bfloat16")
    outputs = layer(pixels)
    # 127.3 is 127.5 in bfloat16, which would give 0.
    assert outputs.dtype == "bfloat16"
    outputs = keras.ops.cast(outputs, "float32")
    np.testing.assert_allclose(outputs, pixels / 127.5 - 1, rtol=0.01)


def test_double_precision_is_kept():
    layer = ApplicationPreprocessing("InceptionV3", dtype="float64")
    outputs = layer(np.full((1, 1, 1, 3), 100.1))
    np.testing.assert_allclose(outputs, 100.1 / 127.5 - 1, rtol=1e-14)


@pytest.mark.parametrize(("application", "expected"), EXPECTED.items())
def test_photos_of_any_size_pass_through_a_model(application, expected):
    images = keras.Input((None, None, 3))
    outputs = ApplicationPreprocessing(application)(images)
    assert outputs.shape == (None, None, None, 3)
    photos = np.broadcast_to(PIXEL, (2, 3, 4, 3))
    outputs = keras.Model(images, outputs).predict_on_batch(photos)
    np.testing.assert_allclose(
        outputs, np.broadcast_to(expected, (2, 3, 4, 3)), rtol=1e-5
    )


def test_unknown_application_is_answered_with_near_names():
    with pytest.raises(ValueError, match=r"VGG16.*application=VGG61"):
        ApplicationPreprocessing("VGG61")
    with pytest.raises(ValueError, match=r"application=preprocess_input"):
        ApplicationPreprocessing("preprocess_input")
