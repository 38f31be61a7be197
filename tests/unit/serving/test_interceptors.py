"""The blocks around calls, where no network is needed."""

from __future__ import annotations

import io

import grpc
import pytest

from serving.interceptors.error_mapping import error_mapping
from serving.logs import make_logger
from serving.runtime.deadlines import Deadlines
from serving.telemetry.sampled import Sampled


def test_a_session_whose_caller_has_gone_is_no_failure_of_the_server():
    log, gone = io.BytesIO(), grpc.RpcError("the stream is gone")
    sampled = Sampled(make_logger(log), Deadlines())
    with pytest.raises(grpc.RpcError) as caught, error_mapping(make_logger(log), sampled)("/s/Session", None):
        raise gone
    assert caught.value is gone
    assert log.getvalue() == b""
