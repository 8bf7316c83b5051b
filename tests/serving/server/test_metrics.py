"""Prometheus' metrics, under TensorFlow Serving's names."""

import urllib.request


def test_metrics_count_calls_by_model_and_code(
    serve_toolbox, quick, make_request, expect_error, send_rest
):
    with serve_toolbox(rest_port=0) as (server, stub, _):
        for _ in range(2):
            stub.Predict(quick)
        expect_error(stub.Predict, make_request("", model='m"'))
        rest = f"127.0.0.1:{server.rest_port}"
        document = {"signature_name": "shout", "instances": ["a"]}
        send_rest(rest, "/v1/models/toolbox:predict", document)
        url = f"http://{rest}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
    counter, latency = (
        f":tensorflow:serving:request_{name}" for name in ("count", "latency")
    )
    assert f"# TYPE {counter} counter" in lines
    assert f'{counter}{{model_name="toolbox",status="OK"}} 3' in lines
    assert f'{counter}{{model_name="m\\"",status="NOT_FOUND"}} 1' in lines
    labels = 'model_name="toolbox",API="Predict",entrypoint="GRPC"'
    assert f"{latency}_count{{{labels}}} 2" in lines
    assert f'{latency}_bucket{{{labels},le="+Inf"}} 2' in lines
    assert f'{latency}_bucket{{{labels},le="10"}} 0' in lines
    # The twentieth of the limits 10 * 1.8**n.
    assert any(f'{labels},le="708235"' in line for line in lines)
