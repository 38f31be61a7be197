"""What a person has asked and marked so far, and every step back: values without a page."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from twintower.types import FeedbackItem, FeedbackKind, Query


class Form(enum.Enum):
    """What a list is asked for."""

    ENTITY = "entity"
    """A user whom the release knows by id."""
    ITEM = "item"
    """An item of the catalogue."""


@dataclass(frozen=True)
class Subject:
    """Whom or what a list is for.

    Attributes:
        form: which of the two sides it is on.
        id: as the release calls it.
    """

    form: Form
    id: str

    @property
    def query(self) -> Query:
        """The query that the server is asked."""
        return Query(entity_id=self.id) if self.form is Form.ENTITY else Query(item_ids=(self.id,))


@dataclass(frozen=True)
class Question:
    """All that decides what the page shows.

    Attributes:
        subject: whom or what the list is for; None before anything was picked.
        marks: likes and dislikes, the latest first, one for each item.
        reformulator: its name; empty for the release's default.
        depth: how many marks count at most, the latest ones.
        guarded: whether the guard may keep the original query.
        include_marked: whether the list after feedback may hold the marked items.
        k: places.
    """

    subject: Subject | None = None
    marks: tuple[FeedbackItem, ...] = ()
    reformulator: str = ""
    depth: int = 10
    guarded: bool = True
    include_marked: bool = False
    k: int = 10

    def about(self, subject: Subject) -> Question:
        """Return the question for another subject, which nothing has been said about yet."""
        return replace(self, subject=subject, marks=())

    def marking(self, item_id: str, kind: FeedbackKind, position: int | None = None) -> Question:
        """Return the question after an item was liked or disliked; saying the same again takes it back.

        Args:
            item_id: the item.
            kind: what is said of it; replaces what was said of it before.
            position: place in the list that was shown, 0 = best; None where it stands in none.
        """
        others = tuple(mark for mark in self.marks if mark.item_id != item_id)
        if self.kind_of(item_id) is kind:
            return replace(self, marks=others)
        return replace(self, marks=(FeedbackItem(item_id, kind, position), *others))

    def without_marks(self) -> Question:
        """Return the question as it was before anything was liked or disliked."""
        return replace(self, marks=())

    def kind_of(self, item_id: str) -> FeedbackKind | None:
        """Return what is said of an item, None where nothing is."""
        return next((mark.kind for mark in self.marks if mark.item_id == item_id), None)


@dataclass(frozen=True)
class Trail:
    """The question now, and those before it.

    Attributes:
        now: what is asked.
        past: earlier questions, the latest last.
    """

    now: Question = Question()
    past: tuple[Question, ...] = ()

    def to(self, question: Question) -> Trail:
        """Return the trail one step on; a question that is the same is no step."""
        return self if question == self.now else Trail(question, (*self.past, self.now))

    def back(self) -> Trail:
        """Return the trail one step back; at its beginning it stays where it is."""
        return Trail(self.past[-1], self.past[:-1]) if self.past else self
