"""MovieLens: each form of archive, the download and what can go wrong with it."""

import hashlib
import threading
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from recsys.errors import DataError
from recsys.sources.movielens import Movielens
from tests.unit.sources.archives import write_movielens_1m, write_movielens_100k, write_movielens_latest_small


class QuietHandler(SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *_):
        self.requests.append(self.path)


@pytest.fixture
def server(tmp_path):
    """A folder served over HTTP: the folder, its address and the list of requests."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests = []
    handler = type("Handler", (QuietHandler,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}", requests
        http.shutdown()
        thread.join()


def rows(raw):
    return pa.Table.from_batches(raw.interactions()).to_pylist()


def test_an_archive_is_downloaded_once_and_checked(server, tmp_path):
    folder, address, requests = server
    checksum = hashlib.sha256(write_movielens_1m(folder).read_bytes()).hexdigest()
    source = Movielens(base_url=address, cache_dir=str(tmp_path / "cache"), checksum=f"sha256:{checksum}")

    first, again = rows(source.read()), rows(source.read())

    assert len(first) == 4
    assert first == again
    assert [path for path in requests if path == "/ml-1m.zip"] == ["/ml-1m.zip"]


def test_an_archive_with_another_checksum_is_refused_and_not_kept(server, tmp_path):
    folder, address, _ = server
    write_movielens_1m(folder)
    cache = tmp_path / "cache"

    # The official checksum stands; this small archive is not the official one.
    with pytest.raises(DataError, match=r"(?s)ml-1m\.zip.*expected the archive with the known checksum.*source\.path"):
        Movielens(base_url=address, cache_dir=str(cache)).read()

    assert list(cache.iterdir()) == []


def test_a_server_without_the_archive_is_a_data_error_with_the_way_out(server, tmp_path):
    _, address, _ = server

    with pytest.raises(DataError, match=r"404.*set source\.path, or set source\.base_url to a mirror"):
        Movielens(base_url=address, cache_dir=str(tmp_path / "cache")).read()


def test_a_server_that_is_down_is_a_data_error_with_the_way_out(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as closed:
        address = f"http://127.0.0.1:{closed.server_port}"

    with pytest.raises(DataError, match=r"expected a download\. Download ml-1m\.zip elsewhere and set source\.path"):
        Movielens(base_url=address, cache_dir=str(tmp_path / "cache")).read()


def test_the_archive_of_1m_has_users_films_and_times(tmp_path):
    raw = Movielens(path=str(write_movielens_1m(tmp_path))).read()

    assert raw.items.to_pylist() == [
        {"item_id": "1", "title": "Amélie (2001)", "genres": ["Comedy", "Romance"], "year": 2001},
        {"item_id": "2", "title": "No Year", "genres": ["Drama"], "year": None},
    ]
    assert raw.queries.to_pylist()[0] == {
        **{"query_id": "7", "gender": "F", "age": 25.0, "occupation": "12", "zip": "55117"}
    }
    # 978,300,760 s = 11,322 days and 79,960 s: 2000-12-31 22:12:40.
    at = datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)
    assert rows(raw)[0] == {"query_id": "7", "item_id": "1", "timestamp": at}
    assert raw.rejects.total == 0


def test_the_folder_of_100k_has_genres_from_flags(tmp_path):
    raw = Movielens(variant="ml-100k", path=str(write_movielens_100k(tmp_path))).read()

    assert raw.items.to_pylist() == [
        {"item_id": "50", "title": "Ärger (1996)", "genres": ["Comedy", "War"], "year": 1996}
    ]
    assert raw.queries.to_pylist() == [
        {"query_id": "196", "age": 49.0, "gender": "M", "occupation": "writer", "zip": "55105"}
    ]
    assert [row["item_id"] for row in rows(raw)] == ["50"]


def test_the_folder_of_a_csv_archive_knows_no_users(tmp_path):
    raw = Movielens(variant="ml-latest-small", path=str(write_movielens_latest_small(tmp_path))).read()

    assert raw.queries is None
    assert raw.items["title"].to_pylist() == ["American President, The (1995)", "Untold"]
    assert raw.items["genres"].to_pylist() == [["Comedy", "Drama"], []]
    assert len(rows(raw)) == 2


def test_ratings_below_the_minimum_are_no_interactions(tmp_path):
    raw = Movielens(path=str(write_movielens_1m(tmp_path)), min_rating=4).read()

    # The ratings are 5, 3, 4, 1.
    assert [(row["query_id"], row["item_id"]) for row in rows(raw)] == [("7", "1"), ("8", "1")]


def test_a_folder_without_the_archive_s_files_is_named(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder with movies\.dat"):
        Movielens(path=str(tmp_path)).read()


def test_a_path_that_is_no_archive_is_named(tmp_path):
    path = tmp_path / "ml-1m.zip"
    path.write_text("not a zip")

    with pytest.raises(DataError, match=r"source\.path: got .*expected a \.zip archive"):
        Movielens(path=str(path)).read()
