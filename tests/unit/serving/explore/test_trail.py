"""What is asked and marked, one step after the other and back."""

from __future__ import annotations

from dataclasses import replace

from serving.explore.trail import Form, Question, Subject, Trail
from twintower.types import FeedbackItem, FeedbackKind, Query

LIKED, DISLIKED = FeedbackKind.LIKED, FeedbackKind.DISLIKED
USER, ITEM = Subject(Form.ENTITY, "user 1"), Subject(Form.ITEM, "item 1")


def test_a_user_is_asked_for_by_id_and_an_item_as_an_item():
    assert USER.query == Query(entity_id="user 1")
    assert ITEM.query == Query(item_ids=("item 1",))


def test_the_latest_mark_comes_first():
    asked = Question(USER).marking("a", LIKED, 3).marking("b", DISLIKED)
    assert asked.marks == (FeedbackItem("b", DISLIKED), FeedbackItem("a", LIKED, 3))
    assert (asked.kind_of("a"), asked.kind_of("b"), asked.kind_of("c")) == (LIKED, DISLIKED, None)


def test_another_mark_on_an_item_replaces_the_one_before():
    asked = Question(USER).marking("a", LIKED, 3).marking("b", LIKED).marking("a", DISLIKED, 0)
    assert asked.marks == (FeedbackItem("a", DISLIKED, 0), FeedbackItem("b", LIKED))


def test_the_same_mark_again_takes_it_back_wherever_the_item_stands_now():
    asked = Question(USER).marking("a", LIKED, 3).marking("b", LIKED).marking("a", LIKED, 0)
    assert asked.marks == (FeedbackItem("b", LIKED),)


def test_another_subject_begins_without_marks_and_keeps_the_settings():
    asked = Question(USER, reformulator="average", depth=3, guarded=False, k=50).marking("a", LIKED)
    assert asked.about(ITEM) == Question(ITEM, reformulator="average", depth=3, guarded=False, k=50)


def test_each_step_can_be_undone_down_to_the_first():
    asked = Question(USER)
    liked, deeper = asked.marking("a", LIKED), replace(asked.marking("a", LIKED), depth=1)
    trail = Trail(asked).to(liked).to(deeper).to(deeper.without_marks())
    assert trail.now.marks == ()
    seen = []
    while trail.past:
        trail = trail.back()
        seen.append(trail.now)
    assert seen == [deeper, liked, asked]
    assert trail.back() is trail


def test_asking_the_same_again_is_no_step():
    trail = Trail(Question(USER))
    assert trail.to(Question(USER)) is trail
