"""A gRPC server that does nothing: `python -m benchmarks.bare_server PORT_FILE THREADS`.

It answers every unary call with an empty message, through as many threads as the server that is measured beside it and
without interceptors: what the gRPC library itself costs.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from recsys.files import write_atomically


class Empty(grpc.GenericRpcHandler):
    """An empty answer to whatever is asked."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return the one handler that there is."""
        return _HANDLER


_HANDLER = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")


def main(port_file: Path, threads: int) -> None:
    """Serve on a free port, written to a file, until killed."""
    server = grpc.server(ThreadPoolExecutor(threads), handlers=[Empty()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    write_atomically(port_file, f"{port}\n")
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
