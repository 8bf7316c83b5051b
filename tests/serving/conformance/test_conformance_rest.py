"""REST, asked from outside."""

import base64

import pytest

HALF = "/v1/models/half_plus"
TOOLS = "/v1/models/toolbox"


# === Answers ===


def test_rows_give_predictions(fetch):
    assert fetch(f"{HALF}:predict", {"instances": [2.0, 0.4]}) == (
        200,
        {"predictions": [4.0, 3.2]},
    )


def test_columns_give_outputs(fetch):
    assert fetch(f"{HALF}:predict", {"inputs": [[2.0], [4.0]]}) == (
        200,
        {"outputs": [[4.0], [5.0]]},
    )


@pytest.mark.parametrize(
    ("part", "y"),
    [("/versions/7", 3.0), ("/labels/stable", 3.0), ("/labels/canary", 4.0)],
)
def test_path_names_version_or_label(fetch, part, y):
    answer = fetch(
        f"/v1/models/half_plus_all{part}:predict", {"instances": [2.0]}
    )
    assert answer == (200, {"predictions": [y]})


def test_numbers_are_rounded_or_become_infinite(fetch):
    code, answer = fetch(f"{HALF}:predict", {"inputs": [33554434.5, 1e39]})
    assert code == 200
    assert answer["outputs"] == [16777220.0, float("inf")]


def test_what_follows_the_document_is_ignored(fetch):
    body = b' {"instances": [2.0]} }'
    answer = fetch(f"{HALF}:predict", body=body)
    assert answer == (200, {"predictions": [4.0]})


def test_number_that_no_double_holds_is_a_parse_error(fetch):
    code, answer = fetch(f"{HALF}:predict", body=b'{"instances": [1e400]}')
    assert code == 400
    assert answer["error"].startswith("JSON Parse error: Number too big")


def test_several_inputs_and_outputs_are_named(fetch):
    path, name = f"{TOOLS}:predict", "two_inputs"
    rows = [{"a": 5, "b": 3}, {"a": 1, "b": 1}]
    assert fetch(path, {"signature_name": name, "instances": rows}) == (
        200,
        {
            "predictions": [
                {"sum": 8, "difference": 2},
                {"sum": 2, "difference": 0},
            ]
        },
    )
    columns = {"a": [5], "b": [3]}
    assert fetch(path, {"signature_name": name, "inputs": columns}) == (
        200,
        {"outputs": {"sum": [8], "difference": [2]}},
    )


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


def test_status_is_that_of_grpc(fetch):
    code, answer = fetch("/v1/models/half_plus_all")
    assert code == 200
    assert answer == {
        "model_version_status": [
            {
                "version": version,
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
            for version in ("123", "7")
        ]
    }


def test_metadata_names_inputs(fetch):
    code, answer = fetch(f"{HALF}/metadata")
    assert code == 200
    assert answer["model_spec"]["name"] == "half_plus"
    assert answer["model_spec"]["version"] == "123"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert (x["name"], x["dtype"]) == ("x:0", "DT_FLOAT")


# === Errors ===

FAILURES = {
    "unknown model": (
        ("/v1/models/m:predict", {"instances": [1.0]}),
        404,
        "Servable not found for request: Latest(m)",
    ),
    "unknown version": (
        (f"{HALF}/versions/9:predict", {"instances": [1.0]}),
        404,
        "Servable not found for request: Specific(half_plus, 9)",
    ),
    "unknown label": (
        (f"{HALF}/labels/beta:predict", {"instances": [1.0]}),
        400,
        "Unrecognized servable version label: beta",
    ),
    "unknown signature": (
        (f"{HALF}:predict", {"signature_name": "x", "instances": [1.0]}),
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    "neither rows nor columns": (
        (f"{HALF}:predict", {"x": [1.0]}),
        400,
        "Missing 'inputs' or 'instances' key",
    ),
    "plain row for two inputs": (
        (
            f"{TOOLS}:predict",
            {"signature_name": "two_inputs", "instances": [1]},
        ),
        400,
        "instances is a plain list, but expecting list of objects as multiple "
        "input tensors required as per tensorinfo_map",
    ),
    "missing column": (
        (
            f"{TOOLS}:predict",
            {"signature_name": "two_inputs", "inputs": {"a": [1]}},
        ),
        400,
        "Missing named input: b in 'inputs' object.",
    ),
    "uneven outputs in rows": (
        (
            f"{TOOLS}:predict",
            {"signature_name": "uneven", "instances": [1.0, 2.0]},
        ),
        400,
        "Tensor name: first has inconsistent batch size: 1 expecting: 2",
    ),
    "uneven lists": (
        (f"{HALF}:predict", {"inputs": [[1.0], [1.0, 2.0]]}),
        400,
        "Encountered list at unexpected size: 2 at level: 1 expected size: 1",
    ),
    "status of an unknown model": (
        ("/v1/models/m", None),
        404,
        "Could not find any versions of model m",
    ),
    "no model": (("/v1/models", None), 400, "Missing model name in request."),
    "another path": (("/v1/foo", None), 400, "Malformed request: GET /v1/foo"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_request_gets_its_code_and_message(fetch, case):
    (path, document), code, message = FAILURES[case]
    assert fetch(path, document) == (code, {"error": message})


@pytest.mark.parametrize(
    ("document", "part"),
    [
        ({"instances": ["x"]}, "is not of expected type: float"),
        ({"instances": [True]}, "is not of expected type: float"),
        ({"instances": [[1.0], [1.0, 2.0]]}, "Expecting tensor size: 1 but"),
        ({"instances": [[[1.0, 2.0]], [[1.0], [2.0]]]}, "Expecting shape"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": [1.0], "inputs": [1.0]}, "expecting only one of"),
        ({"signature_name": 1}, "'signature_name' key must be a string value."),
        ({"instances": [{"z": 1.0}]}, "does not have named input: z"),
    ],
)
def test_document_that_does_not_fit_is_told(fetch, document, part):
    code, answer = fetch(f"{HALF}:predict", document)
    assert code == 400
    assert part in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1]", "JSON Parse error: Invalid value. at offset: 0"),
    ],
)
def test_broken_json_is_told_before_anything_else(fetch, body, message):
    answer = fetch("/v1/models/m:predict", body=body)
    assert answer == (400, {"error": message})
