"""A small world whose right answers are known: users fall into groups, and each group's choice is an exact softmax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, RawData
from recsys.types import DAY_US, Float32, Int64

NOTICE = "Synthetic: drawn from a formula; no person or product stands behind it."
BATCH_ROWS = 65_536
FIRST_TIME_US = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
COUNTRIES = ("AR", "DE", "IN", "JP", "KE")
TOPICS = 12


@dataclass(frozen=True)
class World:
    """What the data is drawn from.

    Attributes:
        group_of_user: `[users]`, int64.
        group_vectors: `[groups, true_dim]`, float64, unit length; the latent vector of every user of a group.
        item_vectors: `[items, true_dim]`, float64, unit length.
        popularity: `[items]`, float64, what an item's logit gains for all groups alike, nats.
        log_probabilities: `[groups, items]`, float64, nats; each row's exponentials add up to 1.
        user_probabilities: `[users]`, float64, how active each user is; they add up to 1.
        followers: `[items, followers]`, int64, the items that may follow each item, random permutations.
        topics: `[items]`, int64, the topic of each item: the nearest of `TOPICS` anchors on the latent sphere.
    """

    group_of_user: Int64
    group_vectors: NDArray[np.float64]
    item_vectors: NDArray[np.float64]
    popularity: NDArray[np.float64]
    log_probabilities: NDArray[np.float64]
    user_probabilities: NDArray[np.float64]
    followers: Int64
    topics: Int64


@dataclass(frozen=True)
class _Past:
    """What the users' next items depend on.

    Attributes:
        items: `[users, order_lag]`, int64, the last items, newest first, -1 where there is none.
        row: `[users]`, int64, place of the last interaction among those of all users.
        topic: `[users]`, int64, the topic of the newest session, -1 without one.
    """

    items: Int64
    row: Int64
    topic: Int64


@settings()
class Synthetic:
    """First a user is drawn by activity, then an item by the softmax of the user's group, or one that follows the last.

    `p(item | user) = softmax( sharpness * <group vector, item vector> + popularity )`,
    `popularity = -popularity_exponent * log(rank)`

    By default the interactions are independent: their order says nothing. Two settings change that:

    - `order_rate`: with this probability an item is one of the `followers` of the item that stands `order_lag` places
      back in the user's history, each equally likely. Followers are drawn at random once, independently of taste, so
      that only that one item predicts them.
    - `session_days`: a user's items are divided into sessions. An item that comes more than `session_days` after the
      user's item before starts a new one, and gives it its topic. Within a session, the items that follow no other are
      drawn as above, but from the session's topic alone.

    People are not like that: such a world shows whether a model reads order and time, not what these are worth on real
    data.

    Items have `category` (nearest of 12 anchors on the latent sphere), `tags` (the three nearest of 40), `price` (grows
    with the first latent coordinate) and `title` (words of the category and the tags); users have `segment` (their
    group), `age` (grows with the first latent coordinate) and `country`, which says nothing. In each feature a share
    `feature_noise` of the values is replaced by random ones. Interactions are spread evenly over `days` days from
    2024-01-01 UTC, in the order of time.

    Attributes:
        users: query entities; query row i has the id `u<i>`.
        items: item row i has the id `i<i>`.
        interactions: rows drawn.
        groups: of users who choose alike.
        true_dim: dimensions of the latent sphere.
        sharpness: how much taste decides, in nats between an inner product of 0 and of 1.
        popularity_exponent: of the power law of popularity; 0 means that taste alone decides.
        activity_exponent: of the power law of the users' activity; 0 means that all are equally active.
        feature_noise: share (0..1) of feature values that are random.
        order_rate: share (0..1) of the items that follow one of the user's earlier items; 0 means that none does.
        order_lag: how many places back the item stands that is followed; 1 is the user's last item.
        followers: how many items may follow each item.
        session_days: the longest time between two items of a session, in days; 0 means that there are no sessions.
        days: length of the period, in days.
        seed: everything follows from it.
    """

    users: int = Field(default=2_000, ge=1)
    items: int = Field(default=1_000, ge=1)
    interactions: int = Field(default=100_000, ge=1)
    groups: int = Field(default=32, ge=1)
    true_dim: int = Field(default=8, ge=1)
    sharpness: float = Field(default=8.0, ge=0)
    popularity_exponent: float = Field(default=0.8, ge=0)
    activity_exponent: float = Field(default=0.5, ge=0)
    feature_noise: float = Field(default=0.1, ge=0, le=1)
    order_rate: float = Field(default=0.0, ge=0, le=1)
    order_lag: int = Field(default=1, ge=1)
    followers: int = Field(default=5, ge=1)
    session_days: float = Field(default=0.0, ge=0)
    days: int = Field(default=100, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    def paths(self) -> tuple[Path, ...]:
        """Return nothing: the settings decide everything."""
        return ()

    def read(self) -> RawData:
        """Return the data; the interactions are drawn batch by batch, the same ones in each pass."""
        world = self.world()
        return RawData(self._items(world), self._users(world), lambda: self._interactions(world), notice=NOTICE)

    def world(self) -> World:
        """Return what the data is drawn from, the same at each call."""
        random = np.random.default_rng([self.seed, 0])
        group_vectors = _on_sphere(random, self.groups, self.true_dim)
        item_vectors = _on_sphere(random, self.items, self.true_dim)
        popularity = -self.popularity_exponent * np.log(random.permutation(self.items) + 1.0)
        logits = self.sharpness * group_vectors @ item_vectors.T + popularity
        activity = (random.permutation(self.users) + 1.0) ** -self.activity_exponent
        return World(
            group_of_user=random.integers(self.groups, size=self.users),
            group_vectors=group_vectors,
            item_vectors=item_vectors,
            popularity=popularity,
            log_probabilities=logits - np.logaddexp.reduce(logits, axis=1, keepdims=True),
            user_probabilities=activity / activity.sum(),
            followers=self._followers(),
            topics=_nearest(item_vectors, _on_sphere(np.random.default_rng([self.seed, 6]), TOPICS, self.true_dim), 1)[
                :, 0
            ],
        )

    def true_scores(
        self, query_rows: ArrayLike, followed: ArrayLike | None = None, topic: ArrayLike | None = None
    ) -> Float32:
        """Return the log-probability that a user's next item is each item; no ranking can beat their order.

        Args:
            query_rows: `[queries]`, integers in 0..users-1: rows of the query table.
            followed: `[queries]`, integers in 0..items-1: the item `order_lag` places back, -1 for users without one;
                None if no user has one.
            topic: `[queries]`, integers: the topic of each user's newest session, which the next item may belong to or
                not; -1 for users without one. None if no user has one.

        Returns:
            `[queries, items]`, float32, nats.
        """
        world, query_rows = self.world(), np.asarray(query_rows)
        log_chances = world.log_probabilities[world.group_of_user[query_rows]]
        if followed is None and topic is None:
            return log_chances.astype(np.float32)
        chances = np.exp(log_chances)
        if topic is not None and self.session_days > 0:
            topic = np.asarray(topic)
            of_topic = np.where(world.topics == topic[:, None], chances, 0)
            of_topic /= np.maximum(of_topic.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
            goes_on = np.where(topic >= 0, 1 - (1 - world.user_probabilities[query_rows]) ** self._session_rows, 0)
            chances += goes_on[:, None] * (of_topic - chances)
        if followed is not None and self.order_rate > 0:
            followed = np.asarray(followed)
            follows, following = np.flatnonzero(followed >= 0), world.followers[followed[followed >= 0]]
            chances[follows] *= 1 - self.order_rate
            np.add.at(chances, (follows[:, None], following), self.order_rate / self.followers)
        with np.errstate(divide="ignore"):
            return np.log(chances).astype(np.float32)

    @property
    def _session_rows(self) -> int:
        """Rows of the interactions, all users together, that the longest pause within a session spans."""
        return int(self.session_days / self.days * self.interactions)

    def _followers(self) -> Int64:
        """Return the items that may follow each item; each one follows as many as the others."""
        random = np.random.default_rng([self.seed, 4])
        return np.stack([random.permutation(self.items) for _ in range(self.followers)], axis=1)

    def _items(self, world: World) -> pa.Table:
        random = np.random.default_rng([self.seed, 1])
        nearest_categories = _nearest(world.item_vectors, _on_sphere(random, 12, self.true_dim), 1)
        nearest_tags = _nearest(world.item_vectors, _on_sphere(random, 40, self.true_dim), 3)
        category = self._blurred(random, nearest_categories[:, 0], 12)
        tags = self._blurred(random, nearest_tags, 40)
        price = np.exp(2 + self._blurred_numbers(random, world.item_vectors[:, 0]))
        return pa.table(
            {
                ITEM_ID: _names("i", np.arange(self.items)),
                "category": _names("category-", category),
                "tags": pa.array([[f"tag-{tag}" for tag in row] for row in tags.tolist()], pa.list_(pa.string())),
                "price": np.round(price, 2),
                "title": pa.array(
                    f"kind{kind} {' '.join(f'word{tag}' for tag in row)}"
                    for kind, row in zip(category.tolist(), tags.tolist(), strict=True)
                ),
            }
        )

    def _users(self, world: World) -> pa.Table:
        random = np.random.default_rng([self.seed, 2])
        lean = self._blurred_numbers(random, world.group_vectors[world.group_of_user, 0])
        return pa.table(
            {
                QUERY_ID: _names("u", np.arange(self.users)),
                "segment": _names("segment-", self._blurred(random, world.group_of_user, self.groups)),
                "age": np.round(45 + 25 * lean),
                "country": pa.array(np.array(COUNTRIES)[random.integers(len(COUNTRIES), size=self.users)].tolist()),
            }
        )

    def _interactions(self, world: World) -> Iterator[pa.RecordBatch]:
        # Group g's distribution function lies on [g, g + 1], so one sorted array serves all groups.
        shares = np.cumsum(np.exp(world.log_probabilities), axis=1)
        steps = (shares / shares[:, -1:] + np.arange(self.groups)[:, None]).ravel()
        activity = np.cumsum(world.user_probabilities)
        user_ids, item_ids = _names("u", np.arange(self.users)), _names("i", np.arange(self.items))
        past = _Past(
            np.full((self.users, self.order_lag), -1), np.full(self.users, -self.interactions), np.full(self.users, -1)
        )
        for start in range(0, self.interactions, BATCH_ROWS):
            rows = np.arange(start, min(start + BATCH_ROWS, self.interactions))
            random = np.random.default_rng([self.seed, 3, start])
            user = np.searchsorted(activity / activity[-1], random.random(len(rows)), side="right")
            group = world.group_of_user[user]
            place = np.searchsorted(steps, group + random.random(len(rows)), side="right")
            item = np.minimum(place - group * self.items, self.items - 1)
            if self.order_rate > 0 or self.session_days > 0:
                self._order(world, np.random.default_rng([self.seed, 5, start]), rows, user, item, past)
            times = FIRST_TIME_US + (rows / self.interactions * self.days * DAY_US).astype(np.int64)
            yield pa.RecordBatch.from_arrays(
                [user_ids.take(pa.array(user)), item_ids.take(pa.array(item)), pa.array(times).cast(_TIME)],
                names=[QUERY_ID, ITEM_ID, TIMESTAMP],
            )

    def _order(
        self, world: World, random: np.random.Generator, rows: Int64, user: Int64, item: Int64, past: _Past
    ) -> None:
        """Replace the items of a batch that depend on the user's earlier ones, in place.

        Args:
            world: gives followers and topics.
            random: draws.
            rows: `[rows]`, place of each row among all interactions.
            user: `[rows]`, in the order of time.
            item: `[rows]`, drawn independently.
            past: of all users; brought up to date.
        """
        follows = random.random(len(user)) < self.order_rate
        chosen = random.integers(world.followers.shape[1], size=len(user))
        share = random.random(len(user))
        by_topic = np.argsort(world.topics, kind="stable")
        bounds = np.searchsorted(world.topics[by_topic], np.arange(TOPICS + 1))
        sums = np.cumsum(np.pad(np.exp(world.log_probabilities[:, by_topic]), ((0, 0), (1, 0))), axis=1)
        for row, each in enumerate(user.tolist()):
            followed, topic = past.items[each, -1], past.topic[each]
            if rows[row] - past.row[each] > self._session_rows:
                topic = -1
            if follows[row] and followed >= 0:
                item[row] = world.followers[followed, chosen[row]]
            elif topic >= 0:
                of_group, (first, end) = sums[world.group_of_user[each]], bounds[topic : topic + 2]
                wanted = of_group[first] + share[row] * (of_group[end] - of_group[first])
                place = np.searchsorted(of_group[first : end + 1], wanted, side="right") - 1
                item[row] = by_topic[first + min(place, end - first - 1)]
            past.topic[each] = world.topics[item[row]] if topic < 0 else topic
            past.items[each] = item[row], *past.items[each, :-1]
            past.row[each] = rows[row]

    def _blurred(self, random: np.random.Generator, values: Int64, count: int) -> Int64:
        replaced = random.random(values.shape) < self.feature_noise
        return np.where(replaced, random.integers(count, size=values.shape), values)

    def _blurred_numbers(self, random: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
        replaced = random.random(values.shape) < self.feature_noise
        return np.where(replaced, random.uniform(-1, 1, values.shape), values)


_TIME = pa.timestamp("us", "UTC")


def _on_sphere(random: np.random.Generator, count: int, dim: int) -> NDArray[np.float64]:
    vectors = random.standard_normal((count, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _nearest(vectors: NDArray[np.float64], anchors: NDArray[np.float64], count: int) -> Int64:
    return np.argsort(-vectors @ anchors.T, axis=1, kind="stable")[:, :count]


def _names(prefix: str, numbers: Int64) -> pa.Array:
    return pa.array([f"{prefix}{number}" for number in numbers.tolist()], pa.string())
