"""What the gRPC port offers beside the calls themselves."""

import grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc


def test_reflection_lists_every_service(captioner_server):
    address = f"127.0.0.1:{captioner_server.port}"
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (response,) = stub.ServerReflectionInfo(iter([request]))
    names = {each.name for each in response.list_services_response.service}
    assert names == {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
