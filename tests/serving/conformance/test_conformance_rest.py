"""REST, asked from outside."""

import base64

import pytest

HALF = "/v1/models/half_plus"
ALL = "/v1/models/half_plus_all"
TOOLS = "/v1/models/toolbox"
ROW = {"instances": [2.0]}
WORDS = "/v1/models/words"
TWO = {"signature_name": "two_inputs"}


# === Answers ===


@pytest.mark.parametrize(
    ("path", "document", "expected"),
    [
        (HALF, {"instances": [2.0, 0.4]}, {"predictions": [4.0, 3.2]}),
        (HALF, {"inputs": [[2.0], [4.0]]}, {"outputs": [[4.0], [5.0]]}),
        (HALF, {"inputs": 2.0}, {"outputs": 4.0}),
        (HALF, {"inputs": {"x": [2.0]}}, {"outputs": [4.0]}),
        (HALF, {"inputs": []}, {"outputs": []}),
        (HALF, {"instances": [{"x": 2.0}]}, {"predictions": [4.0]}),
        (HALF, {"instances": [2]}, {"predictions": [4.0]}),
        (
            HALF,
            {"instances": [[2.0, 4.0], [6.0, 8.0]]},
            {"predictions": [[4.0, 5.0], [6.0, 7.0]]},
        ),
        (
            HALF,
            {"signature_name": "serving_default", "instances": [2.0]},
            {"predictions": [4.0]},
        ),
        (
            HALF,
            {"signature_name": "", "inputs": [2.0], "more": {"a": [None, {}]}},
            {"outputs": [4.0]},
        ),
        (WORDS, {"instances": ["one", "ten"]}, {"predictions": [1, -1]}),
        (WORDS, {"inputs": [{"b64": "dHdv"}]}, {"outputs": [2]}),
        # Numbers are rounded, or become infinite.
        (HALF, {"inputs": [33554434.5]}, {"outputs": [16777220.0]}),
        (HALF, {"inputs": [1e39]}, {"outputs": [float("inf")]}),
        (f"{ALL}/versions/7", ROW, {"predictions": [3.0]}),
        (f"{ALL}/labels/stable", ROW, {"predictions": [3.0]}),
        (f"{ALL}/labels/canary", ROW, {"predictions": [4.0]}),
        # Several inputs and outputs are named.
        (
            TOOLS,
            TWO | {"instances": [{"a": 5, "b": 3}, {"a": 1, "b": 1}]},
            {
                "predictions": [
                    {"sum": 8, "difference": 2},
                    {"sum": 2, "difference": 0},
                ]
            },
        ),
        (
            TOOLS,
            TWO | {"inputs": {"a": [5], "b": [3]}},
            {"outputs": {"sum": [8], "difference": [2]}},
        ),
    ],
)
def test_rows_give_predictions_and_columns_outputs(
    fetch, path, document, expected
):
    assert fetch(f"{path}:predict", document) == (200, expected)


def test_what_follows_the_document_is_ignored(fetch):
    body = b' {"instances": [2.0]} }'
    answer = fetch(f"{HALF}:predict", body=body)
    assert answer == (200, {"predictions": [4.0]})


def test_bytes_are_base64_both_ways(fetch):
    def write(value):
        return {"b64": base64.b64encode(value).decode()}

    code, answer = fetch(
        f"{TOOLS}:predict",
        {"signature_name": "shout", "instances": ["ä", write("ö".encode())]},
    )
    assert code == 200
    assert [row["loud"] for row in answer["predictions"]] == ["ä!", "ö!"]
    assert [row["loud_bytes"] for row in answer["predictions"]] == [
        write("ä!".encode()),
        write("ö!".encode()),
    ]


@pytest.mark.parametrize(
    ("path", "versions"),
    [
        (ALL, ("123", "7")),
        (f"{ALL}/versions/7", ("7",)),
        # A status knows no labels.
        (f"{ALL}/labels/stable", ("123", "7")),
    ],
)
def test_status_is_that_of_grpc(fetch, path, versions):
    fine = {"error_code": "OK", "error_message": ""}
    answer = {
        "model_version_status": [
            {"version": version, "state": "AVAILABLE", "status": fine}
            for version in versions
        ]
    }
    # Nothing is kept between two questions.
    assert [fetch(path) for _ in range(2)] == [(200, answer)] * 2


def test_metadata_names_inputs(fetch):
    code, answer = fetch(f"{HALF}/metadata")
    assert code == 200
    assert answer["model_spec"]["name"] == "half_plus"
    assert answer["model_spec"]["version"] == "123"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert (x["name"], x["dtype"]) == ("x:0", "DT_FLOAT")


# === Errors ===

UNEVEN = {"signature_name": "uneven"}
# message -> path, document
FAILURES = {
    "Servable not found for request: Latest(m)": ("/v1/models/m", {}),
    "Servable not found for request: Specific(half_plus, 9)": (
        f"{HALF}/versions/9",
        {},
    ),
    "Unrecognized servable version label: beta": (f"{HALF}/labels/beta", {}),
    'Serving signature name: "x" not found in signature def': (
        HALF,
        {"signature_name": "x"},
    ),
    "Missing 'inputs' or 'instances' key": (HALF, {"x": [1.0]}),
    "Missing named input: b in 'inputs' object.": (
        TOOLS,
        TWO | {"inputs": {"a": [1]}},
    ),
    "Tensor name: first has inconsistent batch size: 1 expecting: 2": (
        TOOLS,
        UNEVEN | {"instances": [1.0, 2.0]},
    ),
}


@pytest.mark.parametrize("message", FAILURES)
def test_bad_request_gets_its_code_and_message(fetch, message):
    path, document = FAILURES[message]
    code = 404 if "not found for request" in message else 400
    answer = fetch(f"{path}:predict", document)
    assert answer == (code, {"error": message})


VERSION_9, LABEL_BETA = f"{ALL}/versions/9", f"{ALL}/labels/beta"
NOT_FOUND = "Servable not found for request: "
MALFORMED = "Malformed request: "


@pytest.mark.parametrize(
    ("path", "document", "code", "message"),
    [
        ("/v1/models/m", None, 404, "Could not find any versions of model m"),
        ("/v1/models", None, 400, "Missing model name in request."),
        ("/v1/foo", None, 400, f"{MALFORMED}GET /v1/foo"),
        ("/", None, 400, f"{MALFORMED}GET /"),
        (HALF, {}, 400, f"{MALFORMED}POST {HALF}"),
        (f"{HALF}/metadata", {}, 400, f"{MALFORMED}POST {HALF}/metadata"),
        (f"{HALF}:predict", None, 400, f"{MALFORMED}GET {HALF}:predict"),
        (f"{HALF}:run", {}, 400, f"{MALFORMED}POST {HALF}:run"),
        (
            *(VERSION_9, None, 404),
            "Could not find version 9 of model half_plus_all",
        ),
        (
            *(f"{VERSION_9}/metadata", None, 404),
            f"{NOT_FOUND}Specific(half_plus_all, 9)",
        ),
        (
            *(f"{LABEL_BETA}/metadata", None, 400),
            "Unrecognized servable version label: beta",
        ),
        ("/v1/models/m/metadata", None, 404, f"{NOT_FOUND}Latest(m)"),
    ],
)
def test_bad_question_gets_its_code_and_message(
    fetch, path, document, code, message
):
    answer = code, {"error": message}
    assert [fetch(path, document) for _ in range(2)] == [answer] * 2


@pytest.mark.parametrize(
    ("path", "document", "part"),
    [
        (HALF, {"instances": ["x"]}, "is not of expected type: float"),
        (HALF, {"instances": [True]}, "is not of expected type: float"),
        (HALF, {"instances": [[1.0], [1.0, 2.0]]}, ""),
        (HALF, {"inputs": [[1.0], [1.0, 2.0]]}, "Encountered list at unexpe"),
        (HALF, {"instances": []}, "'instances'"),
        (HALF, {"instances": [1.0], "inputs": [1.0]}, "expecting only one of"),
        (HALF, {"signature_name": 1}, "'signature_name' key must be a string"),
        (HALF, {"instances": [{"z": 1.0}]}, "Failed to process element: 0"),
        (TOOLS, TWO | {"instances": [{"a": 1}]}, "keys must be equal to: a,b"),
        (TOOLS, TWO | {"instances": [1]}, "multiple input tensors required"),
    ],
)
def test_document_that_does_not_fit_is_reported(fetch, path, document, part):
    code, answer = fetch(f"{path}:predict", document)
    assert code == 400
    assert part in answer["error"]


@pytest.mark.parametrize(
    "body", [b"", b"instances = [1]", b'{"instances": [1e400]}']
)
def test_broken_json_is_reported_before_anything_else(fetch, body):
    code, answer = fetch("/v1/models/m:predict", body=body)
    assert code == 400
    assert answer["error"].startswith("JSON Parse error: ")
