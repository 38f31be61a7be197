"""The synthetic world: what is drawn follows the probabilities that it tells."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.sources.synthetic import Synthetic

SMALL = Synthetic(users=300, items=50, interactions=200_000, groups=4)


def rows(raw):
    met = pa.Table.from_batches(raw.interactions())
    users = pc.index_in(met["query_id"], raw.queries["query_id"].combine_chunks()).to_numpy()
    items = pc.index_in(met["item_id"], raw.items["item_id"].combine_chunks()).to_numpy()
    return users, items, met["timestamp"]


@pytest.fixture(scope="module")
def drawn():
    return rows(SMALL.read())


def test_true_scores_are_log_probabilities_of_each_user_s_next_item():
    scores = SMALL.true_scores([0, 7, 299])

    assert scores.shape == (3, 50)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(np.exp(scores.astype(np.float64)).sum(axis=1), 1, rtol=1e-5)


def test_true_scores_are_the_softmax_of_inner_products_and_popularity():
    world = SMALL.world()
    user = 5
    vector = world.group_vectors[world.group_of_user[user]]
    weights = np.exp(SMALL.sharpness * world.item_vectors @ vector + world.popularity)

    np.testing.assert_allclose(np.exp(SMALL.true_scores([user])[0]), weights / weights.sum(), rtol=1e-4)


def test_items_are_drawn_with_exactly_the_true_probabilities(drawn):
    users, items, _ = drawn
    groups = SMALL.world().group_of_user[users]

    for group in range(SMALL.groups):
        member = int(np.flatnonzero(SMALL.world().group_of_user == group)[0])
        expected = np.exp(SMALL.true_scores([member])[0])
        met = items[groups == group]
        # A share of n draws has a standard deviation of at most sqrt(p / n); six of them leave no room for chance.
        shares = np.bincount(met, minlength=SMALL.items) / len(met)
        assert (np.abs(shares - expected) < 6 * np.sqrt(expected / len(met)) + 1e-6).all()


def test_users_are_drawn_by_their_activity(drawn):
    users, _, _ = drawn
    expected = SMALL.world().user_probabilities

    shares = np.bincount(users, minlength=SMALL.users) / len(users)

    assert (np.abs(shares - expected) < 6 * np.sqrt(expected / len(users))).all()


def test_time_runs_forward_over_the_period(drawn):
    times = drawn[2].cast(pa.int64()).to_numpy()

    assert (np.diff(times) > 0).all()
    assert (times[-1] - times[0]) / 86_400_000_000 == pytest.approx(SMALL.days, rel=0.001)


def test_one_seed_gives_one_world():
    def world(seed):
        return Synthetic(users=30, items=20, interactions=500, seed=seed).read()

    first, again, other = world(3), world(3), world(4)

    assert first.items.equals(again.items)
    assert first.queries.equals(again.queries)
    assert np.array_equal(rows(first)[1], rows(again)[1])
    assert not np.array_equal(rows(first)[1], rows(other)[1])


def test_item_features_tell_of_the_latent_vectors_and_noise_hides_them():
    def mean_similarity_within_categories(noise):
        source = Synthetic(items=500, feature_noise=noise)
        category = np.array(source.read().items["category"].to_pylist())
        vectors = source.world().item_vectors
        same = category[:, None] == category[None, :]
        np.fill_diagonal(same, False)
        return (vectors @ vectors.T)[same].mean()

    # Vectors drawn on a sphere have a mean inner product near 0; those of one category lie together.
    assert mean_similarity_within_categories(0.0) > 0.3
    assert abs(mean_similarity_within_categories(1.0)) < 0.05


def test_a_user_s_segment_is_the_group_where_there_is_no_noise():
    source = Synthetic(users=100, feature_noise=0.0)

    segments = source.read().queries["segment"].to_pylist()

    assert segments == [f"segment-{group}" for group in source.world().group_of_user]


def test_one_user_and_one_item_make_a_world():
    raw = Synthetic(users=1, items=1, interactions=3, groups=1).read()

    assert pa.Table.from_batches(raw.interactions())["item_id"].to_pylist() == ["i0", "i0", "i0"]


def test_batches_stay_small_however_many_interactions_are_drawn():
    raw = Synthetic(users=10, items=10, interactions=50_000_000).read()

    first = next(raw.interactions())

    assert first.num_rows < 100_000


ORDERED = Synthetic(users=40, items=30, interactions=60_000, groups=4, order_rate=0.7, followers=3)


def test_without_an_order_rate_the_world_is_the_one_without_order():
    plain, ordered = rows(SMALL.read()), rows(Synthetic(**{**vars_of(SMALL), "followers": 9}).read())
    for one, other in zip(plain, ordered, strict=True):
        assert list(one) == list(other)


def vars_of(world):
    return {"users": world.users, "items": world.items, "interactions": world.interactions, "groups": world.groups}


def test_the_next_item_is_drawn_with_exactly_the_true_probabilities_given_the_last():
    users, items, _ = rows(ORDERED.read())
    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    is_next = users[1:] == users[:-1]
    last, following, owners = items[:-1][is_next], items[1:][is_next], users[1:][is_next]
    # Mean over all steps of the probability that the formula gives to each item: what the counts must be.
    expected = np.exp(ORDERED.true_scores(owners, last).astype(np.float64)).mean(axis=0)
    shares = np.bincount(following, minlength=ORDERED.items) / len(following)
    assert (np.abs(shares - expected) < 6 * np.sqrt(expected / len(following)) + 1e-6).all()


def test_followers_stand_among_the_next_items_as_often_as_the_rate_says():
    users, items, _ = rows(ORDERED.read())
    world = ORDERED.world()
    followed = total = expected = 0
    for user in range(ORDERED.users):
        mine = items[users == user]
        of_last = world.followers[mine[:-1]]
        chances = np.exp(world.log_probabilities[world.group_of_user[user]])
        own = np.zeros((len(of_last), ORDERED.items), bool)
        np.put_along_axis(own, of_last, True, axis=1)
        followed += own[np.arange(len(own)), mine[1:]].sum()
        expected += (0.7 + 0.3 * (own * chances).sum(axis=1)).sum()
        total += len(own)
    assert abs(followed - expected) < 6 * total**0.5


REMEMBERING = Synthetic(
    users=40, items=30, interactions=60_000, groups=4, order_rate=0.5, order_lag=3, followers=3, session_days=0.15
)


def test_items_follow_the_one_that_stands_the_lag_back_and_stay_within_a_session_s_topic():
    world = REMEMBERING.world()
    users, items, times = rows(REMEMBERING.read())
    pause_us = REMEMBERING.session_days * 86_400_000_000
    times = times.cast(pa.int64()).to_numpy()
    owners, followed, topics, following = [], [], [], []
    for user in range(REMEMBERING.users):
        mine, at = items[users == user], times[users == user]
        start = np.maximum.accumulate(np.where(np.diff(at, prepend=-np.inf) > pause_us, np.arange(len(at)), 0))
        owners.append(np.full(len(mine) - 3, user))
        followed.append(mine[:-3])
        topics.append(world.topics[mine[start[2:-1]]])
        following.append(mine[3:])

    expected = np.exp(REMEMBERING.true_scores(*map(np.concatenate, (owners, followed, topics))).astype(np.float64))
    following = np.concatenate(following)

    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    # Mean probability of the item that came: what the formula says of all draws, and of those that came.
    said, came = (expected**2).sum(axis=1).mean(), expected[np.arange(len(following)), following].mean()
    assert came == pytest.approx(said, abs=6 * np.sqrt(0.25 / len(following)))
    # An item of the wrong lag, or of another topic, would be expected half as often.
    shuffled = np.exp(REMEMBERING.true_scores(np.concatenate(owners), np.roll(np.concatenate(followed), 1)))
    assert shuffled[np.arange(len(following)), following].mean() < 0.7 * came


def test_users_without_an_item_at_the_lag_and_without_a_session_choose_as_in_a_world_without_order():
    without = REMEMBERING.true_scores([3, 5], [-1, -1], [-1, -1])

    np.testing.assert_allclose(without, REMEMBERING.true_scores([3, 5]), rtol=1e-5)
