"""MovieLens: the official archives with ratings and times, downloaded once and checked, or read from a local copy."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from recsys.errors import DataError, InstallationError, install_line
from recsys.progress import Task, task
from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, RawData, Rejects, _files, _rows
from twintower.errors import describe, verbatim

OFFICIAL_URL = "https://files.grouplens.org/datasets/movielens"
# SHA-256 as recorded in tensorflow/datasets (url_checksums/movielens.txt); MD5 as GroupLens publishes it beside the
# archive, where no SHA-256 was found.
CHECKSUMS = {
    "ml-100k": "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-1m": "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "ml-10m": "md5:ce571fd55effeba0271552578f2648bd",
    "ml-20m": "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "ml-25m": "sha256:8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    "ml-32m": "md5:d472be332d4daa821edc399621853b57",
    "ml-latest-small": "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
}
GENRES_100K = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


@dataclass(frozen=True)
class _File:
    """One text file of an archive; without a `header`, its first line names the columns."""

    name: str
    separator: str
    header: tuple[str, ...] | None


@dataclass(frozen=True)
class _Layout:
    """How an archive is written; `users` is None where it says nothing about them."""

    ratings: _File
    movies: _File
    users: _File | None
    encoding: str


RATINGS = ("userId", "movieId", "rating", "timestamp")
MOVIES = ("movieId", "title", "genres")
_CSV = _Layout(_File("ratings.csv", ",", None), _File("movies.csv", ",", None), None, "utf-8-sig")
_DAT_10M = _Layout(_File("ratings.dat", "::", RATINGS), _File("movies.dat", "::", MOVIES), None, "utf-8")
_DAT_1M = _Layout(
    _DAT_10M.ratings,
    _DAT_10M.movies,
    _File("users.dat", "::", ("userId", "gender", "age", "occupation", "zip")),
    "latin-1",
)
_100K = _Layout(
    _File("u.data", "\t", RATINGS),
    _File("u.item", "|", ("movieId", "title", "release_date", "video_date", "url", "unknown", *GENRES_100K)),
    _File("u.user", "|", ("userId", "age", "gender", "occupation", "zip")),
    "latin-1",
)
LAYOUTS = {"ml-100k": _100K, "ml-1m": _DAT_1M, "ml-10m": _DAT_10M}

Opened = Callable[[], AbstractContextManager[TextIO]]


@settings()
class Movielens:
    """Ratings of films as interactions with times; films have title, year and genres.

    Users have age, gender, occupation and zip code in ml-100k and ml-1m. MovieLens may be used for research under the
    terms in each archive's README, and is not to be redistributed.

    Attributes:
        variant: the archive.
        min_rating: ratings below it, in stars (0.5 to 5), are not taken as interactions; 0 takes all.
        path: a local archive (.zip) or the folder extracted from it; nothing is downloaded or checked then.
        base_url: where the archives are downloaded from; a mirror may be named.
        cache_dir: where a downloaded archive is kept; empty means the user's cache folder.
        checksum: what the downloaded archive must add up to, as `sha256:...` or `md5:...`; empty means the official
            archive's.
    """

    variant: Literal["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small"] = "ml-1m"
    min_rating: float = Field(default=0.0, ge=0, le=5)
    path: str = ""
    base_url: str = OFFICIAL_URL
    cache_dir: str = ""
    checksum: str = Field(default="", pattern=r"^((sha256:[0-9a-f]{64})|(md5:[0-9a-f]{32}))?$")

    def paths(self) -> tuple[Path, ...]:
        """Return the local archive; a download is one of a known checksum."""
        return (Path(self.path),) if self.path else ()

    def read(self) -> RawData:
        """Return the data.

        Raises:
            DataError: the download failed or has another checksum, or the archive lacks a file.
            InstallationError: a download is needed and pooch is not installed.
        """
        layout = LAYOUTS.get(self.variant, _CSV)
        root = Path(self.path) if self.path else self._download()
        rejects = Rejects()

        def pieces(file: _File, names: tuple[str, ...]) -> Iterator[_files.Piece]:
            opened, shown = _opener(root, file.name, layout.encoding)
            return _files.separated(opened, shown, rejects, names=names, header=file.header, separator=file.separator)

        movies = pieces(layout.movies, layout.movies.header or MOVIES)
        items = _with_year(_with_genres(_rows.entities(movies, "movieId", ITEM_ID, rejects)))
        queries = None
        if layout.users:
            people = pieces(layout.users, layout.users.header)
            ages = _rows.Shapes(numeric_columns=("age",))
            queries = _rows.entities(people, "userId", QUERY_ID, rejects, ages)
        of_entities = rejects.copy()
        roles = {QUERY_ID: "userId", ITEM_ID: "movieId", TIMESTAMP: "timestamp"}

        def interactions() -> Iterator[pa.RecordBatch]:
            rejects.restart(of_entities)
            stars = _rows.Shapes(numeric_columns=("rating",))
            for batch in _rows.interactions(pieces(layout.ratings, RATINGS), roles, rejects, stars):
                yield batch.filter(pc.greater_equal(batch["rating"], self.min_rating)).select(list(roles))

        notice = (
            f"MovieLens {self.variant} (GroupLens): for research under its README's terms, not to be redistributed."
        )
        return RawData(items, queries, interactions, rejects, notice)

    def _download(self) -> Path:
        try:
            import pooch
        except ModuleNotFoundError:
            raise InstallationError(f"source movielens: pooch is not installed. Run: {install_line('train')}") from None
        pooch.get_logger().setLevel(logging.WARNING)
        url = f"{self.base_url.rstrip('/')}/{self.variant}.zip"
        advice = f"Download {self.variant}.zip elsewhere and set source.path, or set source.base_url to a mirror."

        def downloader(url: str, output_file: object, pooch_object: object) -> None:
            with task(f"download {self.variant}", unit="bytes") as running:
                http = pooch.HTTPDownloader(progressbar=_Bar(running), chunk_size=1 << 16)
                http(url, output_file, pooch_object)

        try:
            found = pooch.retrieve(
                url,
                known_hash=self.checksum or CHECKSUMS[self.variant],
                fname=f"{self.variant}.zip",
                path=self.cache_dir or pooch.os_cache("twintower-recsys"),
                downloader=downloader,
            )
        except ValueError as error:
            raise DataError(
                describe(url, verbatim(str(error)), "the archive with the known checksum", advice)
            ) from None
        except OSError as error:
            raise DataError(describe(url, verbatim(str(error)), "a download", advice)) from None
        return Path(found)


class _Bar:
    """A task in the form in which pooch reports its progress."""

    total = 0

    def __init__(self, running: Task) -> None:
        self._running = running
        self._whole = False

    def update(self, count: int) -> None:
        """Count bytes."""
        if not self._whole:
            self._running.advance(count)

    def reset(self) -> None:
        """Begin pooch's closing report of the whole size, which is counted already."""
        self._whole = True

    def close(self) -> None:
        """Do nothing: the task ends with its block."""


def _opener(root: Path, name: str, encoding: str) -> tuple[Opened, str]:
    """Return what opens a file of the archive or folder, and the name to show for it."""
    if root.is_dir():
        found = next(iter([*root.glob(name), *root.glob(f"*/{name}")]), None)
        if found is None:
            raise DataError(describe(str(root), verbatim("no such file in it"), f"a folder with {name}"))
        return lambda: found.open(encoding=encoding, errors="surrogateescape", newline=""), str(found)
    if not zipfile.is_zipfile(root):
        raise DataError(describe("source.path", str(root), "a .zip archive or the folder extracted from it"))
    with zipfile.ZipFile(root) as archive:
        member = next((each for each in archive.namelist() if Path(each).name == name), None)
    if member is None:
        raise DataError(describe(str(root), verbatim("no such file in it"), f"an archive with {name}"))

    @contextmanager
    def opened() -> Iterator[TextIO]:
        with zipfile.ZipFile(root) as archive, archive.open(member) as stream:
            yield _files.text(stream, encoding)

    return opened, f"{root}/{member}"


def _with_genres(movies: pa.Table) -> pa.Table:
    """Return the films with a list column `genres`, empty where none is given."""
    if "genres" in movies.column_names:
        given = pc.if_else(pc.equal(movies["genres"], "(no genres listed)"), "", movies["genres"])
        lists = [value.split("|") if value else [] for value in given.to_pylist()]
        movies = movies.drop_columns("genres")
    else:
        flags = zip(*(movies[genre].to_pylist() for genre in GENRES_100K), strict=True)
        lists = [[genre for genre, flag in zip(GENRES_100K, row, strict=True) if flag == "1"] for row in flags]
        movies = movies.select([ITEM_ID, "title"])
    return movies.append_column("genres", pa.array(lists, pa.list_(pa.string())))


def _with_year(movies: pa.Table) -> pa.Table:
    """Return the films with an integer column `year`, taken from the end of the title; null where it has none."""
    years = pc.extract_regex(movies["title"], r"\((?P<year>\d{4})\)\s*$")
    return movies.append_column("year", pc.struct_field(years, "year").cast(pa.int64()))
