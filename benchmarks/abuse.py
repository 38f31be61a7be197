"""The largest requests that a server's limits allow, and callers that send them and soon wait no more.

`python -m benchmarks.abuse ADDRESS FILE...` is such callers in a process of their own, one thread for each file; a file
is named `<anything>.<rpc>` and holds a request of RecommendationService.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import grpc
import numpy as np
import typer
from google.protobuf.message import Message

from recsys.types import Float32
from twintower import codecs as client_codecs
from twintower.types import Condition, FeedbackItem, FeedbackKind, Filter, Query
from twintower.v1 import recommendation_service_pb2 as pb

SERVICE = "/twintower.v1.RecommendationService/"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
PAUSE_S = 0.005
"""After each call: a caller that is refused at once must not spend its own processor on asking again."""


def largest(
    item_ids: Sequence[str],
    vectors: Float32,
    *,
    text_field: str,
    number_field: str,
    batch: int = 1024,
    answer_items: int = 100_000,
    max_k: int = 1000,
    max_ids: int = 10_000,
) -> dict[str, tuple[str, Message]]:
    """Return one of the largest requests of each kind, with its rpc.

    Args:
        item_ids: of the catalog.
        vectors: `[queries, dim]`, float32, of unit length; they are used in turns.
        text_field: a column of texts that can be filtered by.
        number_field: a column of numbers that can be filtered by.
        batch: most queries of a batch.
        answer_items: most items of an answer.
        max_k: most items of a list.
        max_ids: most ids of a list.
    """
    ids = [item_ids[place % len(item_ids)] for place in range(max_ids)]
    many_k = min(max_k, answer_items // batch)

    def queries(count: int, **more: object) -> list[pb.Query]:
        vector = (Query(vector=vectors[place % len(vectors)], **more) for place in range(count))
        return [client_codecs.query_to_proto(query) for query in vector]

    def longest(**more: object) -> tuple[str, Message]:
        return "BatchNearestItems", pb.BatchNearestItemsRequest(
            queries=queries(min(batch, answer_items // max_k)), k=max_k, **more
        )

    def single(query: Query, **more: object) -> tuple[str, Message]:
        return "NearestItems", pb.NearestItemsRequest(query=client_codecs.query_to_proto(query), k=max_k, **more)

    wide = Filter((Condition(text_field, none_of=tuple(f"no such text {place}" for place in range(1000))),) * 16)
    bounds = [Filter((Condition(number_field, minimum=float(place)),) * 16) for place in range(batch)]
    liked = [FeedbackItem(item_id, FeedbackKind.LIKED) for item_id in ids]
    return {
        "metadata of many lists": (
            "BatchNearestItems",
            pb.BatchNearestItemsRequest(queries=queries(batch), k=many_k, include_metadata=True),
        ),
        "metadata of long lists": longest(include_metadata=True),
        "MMR": longest(diversity=pb.Diversity(mmr_weight=0.3)),
        "crowding": longest(diversity=pb.Diversity(crowding_field=text_field, max_per_value=1, mmr_weight=0.3)),
        "filters": (
            "BatchNearestItems",
            pb.BatchNearestItemsRequest(
                queries=[client_codecs.query_to_proto(Query(vector=vectors[0], filter=each)) for each in bounds],
                k=many_k,
            ),
        ),
        "popularity": (
            "BatchNearestItems",
            pb.BatchNearestItemsRequest(
                queries=[client_codecs.query_to_proto(Query(entity_id="nobody knows", filter=each)) for each in bounds],
                k=many_k,
                include_metadata=True,
            ),
        ),
        "vectors": (
            "SearchVectors",
            pb.SearchVectorsRequest(
                vectors=client_codecs.vectors_to_proto(np.resize(vectors, (batch, vectors.shape[1])), "vectors"),
                k=many_k,
            ),
        ),
        "exclusions": single(Query(vector=vectors[0], excluded_ids=ids), include_metadata=True),
        "exclusions of a batch": (
            "BatchNearestItems",
            pb.BatchNearestItemsRequest(queries=queries(16, excluded_ids=ids), k=max_k),
        ),
        "items": single(Query(item_ids=ids)),
        "a wide filter": single(Query(vector=vectors[0], filter=wide)),
        "history": (
            "EncodeQuery",
            pb.EncodeQueryRequest(query=client_codecs.query_to_proto(Query(history=ids))),
        ),
        "feedback": (
            "Reformulate",
            pb.ReformulateRequest(
                query=client_codecs.query_to_proto(Query(vector=vectors[0])),
                k=max_k,
                feedback=client_codecs.feedback_to_proto(liked, False),
                include_explanation=True,
                include_metadata=True,
            ),
        ),
    }


def written(requests: Iterable[tuple[str, Message]], folder: Path) -> list[Path]:
    """Write requests into a folder as `main` reads them."""
    files = []
    for place, (rpc, message) in enumerate(requests):
        files.append(folder / f"{place}.{rpc}")
        files[-1].write_bytes(message.SerializeToString())
    return files


def abuse(address: str, rpc: str, request: bytes, deadline_s: float, over: threading.Event, ends: Counter[str]) -> None:
    """Send a request again and again over a connection of its own, each time with a short deadline.

    Args:
        address: of the server.
        rpc: of RecommendationService.
        request: serialized.
        deadline_s: of each call.
        over: ends it.
        ends: counts how the calls ended.
    """
    with grpc.insecure_channel(address, OWN_CONNECTION) as channel:
        call = channel.unary_unary(f"{SERVICE}{rpc}")
        while not over.is_set():
            try:
                call(request, timeout=deadline_s)
                ends["OK"] += 1
            except grpc.RpcError as error:
                ends[error.code().name] += 1
            time.sleep(PAUSE_S)


def main(
    address: str,
    files: list[Path],
    seconds: Annotated[float, typer.Option(help="For which to send.")] = 5.0,
    deadline_s: Annotated[float, typer.Option(help="Of each call.")] = 0.5,
) -> None:
    """Send requests until the time is over; print as JSON how many calls ended with which status."""
    over, ends = threading.Event(), Counter[str]()
    threads = [
        threading.Thread(
            target=abuse, args=(address, file.suffix[1:], file.read_bytes(), deadline_s, over, ends), daemon=True
        )
        for file in files
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps(ends) + "\n")


if __name__ == "__main__":
    typer.run(main)
