"""What one browser tab shows, and what happens when something in it is touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nicegui import events, run, ui

from serving import display
from serving.explore.catalogue import Catalogue, Known
from serving.explore.comparison import Place
from serving.explore.link import Answer, Link
from serving.explore.trail import Form, Question, Subject, Trail
from twintower.errors import TwintowerError, UnavailableError
from twintower.types import FeedbackItem, FeedbackKind, Origin

STYLE = Path(__file__).with_name("page.css")
SUGGESTIONS = 8
PLACES = (10, 20, 50)
DEEPEST = 20
LOOK_S = 0.5
SHOWN_HISTORY = 12
WAITING = "What you asked for comes as soon as the server answers again."
KEYS = (
    ("/", "search"),
    ("n", "one by chance"),
    ("↓ ↑ or j k", "next and previous item"),
    ("l", "like, or take it back"),
    ("d", "dislike, or take it back"),
    ("u", "undo the last step"),
    ("r", "take all marks back"),
    ("?", "these keys"),
)
ORIGINS = {
    Origin.KNOWN_ENTITY: "from stored features and history",
    Origin.FEATURES: "from features",
    Origin.ITEMS: "from the item's vector",
    Origin.VECTOR: "from a vector",
    Origin.POPULARITY: "nothing was known: the most popular items, which no mark moves",
}


class Page:
    """One tab: a trail of questions, the last answer, and the elements that show them.

    Args:
        link: answers.
        known: the ids to choose from.
    """

    def __init__(self, link: Link, known: Known) -> None:
        self._link, self._known = link, known
        self._trail = Trail(Question(reformulator=link.facts.default_reformulator))
        self._answer: Answer | None = None
        self._refusal = ""
        self._told_problem = ""
        self._waits_for_server = False
        self._random = np.random.default_rng()
        self._suggested: list[str] = []
        self._chosen = 0
        self._cursor = 0
        self._rows: list[ui.element] = []
        ui.add_css(STYLE)
        ui.colors(primary="#3454d1", positive="#15803d", negative="#b42318")
        self._header()
        with ui.element("main").classes("page"):
            self._messages()
            with ui.element("section").classes("panel picker"):
                self._picker()
            self._about()
            self._panel = self._controls()
            self._result()
        self._footer()
        self._help = self._key_help()
        ui.keyboard(self._key, ignore=["input", "select", "textarea"])
        ui.timer(LOOK_S, self._look)
        self._refresh()

    # What is shown.

    def _header(self) -> None:
        facts = self._link.facts
        with ui.element("header").classes("top"):
            ui.label("recsys explore").classes("brand")
            with ui.element("div").classes("release"):
                ui.label(facts.name).classes("release-name")
                ui.label(facts.fingerprint).classes("fingerprint").tooltip(f"fingerprint {facts.fingerprint}")
            ui.label(f"{facts.item_count:,} items · {facts.dim} dimensions · {facts.index}").classes("facts")
            ui.element("span").classes("space")
            keys = ui.button(icon="keyboard", on_click=lambda: self._help.open())
            keys.props('flat round dense aria-label="keys"')

    def _footer(self) -> None:
        facts = self._link.facts
        with ui.element("footer").classes("bottom"):
            if facts.notice:
                ui.label(facts.notice).classes("notice")
            ui.label(f"{facts.name} · fingerprint {facts.fingerprint}").classes("whole-fingerprint")

    def _key_help(self) -> ui.dialog:
        with ui.dialog() as dialog, ui.card():
            ui.label("Keys").classes("heading")
            with ui.element("dl").classes("keys"):
                for key, what in KEYS:
                    with ui.element("dt"):
                        ui.label(key)
                    with ui.element("dd"):
                        ui.label(what)
            ui.button("Close", on_click=dialog.close).props("flat no-caps")
        return dialog

    @ui.refreshable_method
    def _messages(self) -> None:
        with ui.element("div").props('role="status" aria-live="polite"').classes("messages"):
            for kind, icon, said in (("gone", "cloud_off", self._told_problem), ("refused", "info", self._refusal)):
                if said:
                    with ui.element("div").classes(f"message {kind}"):
                        ui.icon(icon)
                        ui.label(said)

    def _picker(self) -> None:
        forms = {Form.ITEM: "Item"}
        if self._known.entities is not None:
            forms = {Form.ENTITY: "User", **forms}
        self._form = ui.toggle(forms, value=next(iter(forms)), on_change=self._suggest_anew)
        self._form.props('unelevated no-caps toggle-color=primary aria-label="what to look for"').classes("forms")
        self._form.set_visibility(len(forms) > 1)
        with ui.element("div").classes("search"):
            self._search = ui.input(placeholder="Id, or words of its columns", on_change=self._suggest)
            self._search.props(
                'outlined dense clearable debounce=150 autocomplete=off role=combobox aria-label="search" '
                "aria-controls=suggestions"
            )
            with self._search.add_slot("prepend"):
                ui.icon("search")
            self._search.on("focus", self._suggest)
            self._search.on("blur", self._hide_suggestions)
            self._search.on("keydown.down.prevent", lambda: self._choose(1))
            self._search.on("keydown.up.prevent", lambda: self._choose(-1))
            self._search.on("keydown.esc", self._leave_search)
            # What stands in the field now: the last letters may not have been sent yet.
            self._search.on("keydown.enter", self._enter, js_handler="(event) => emit(event.target.value)")
            self._suggestions()
        chance = ui.button("Random", icon="casino", on_click=self._pick_any)
        chance.props('outline no-caps aria-label="one by chance"').classes("chance")

    @ui.refreshable_method
    def _suggestions(self) -> None:
        if not self._suggested:
            return
        side = self._side
        with ui.element("div").classes("suggestions").props("id=suggestions role=listbox"):
            for place, found_id in enumerate(self._suggested):
                columns = side.row(found_id)
                row = ui.element("div").classes("suggestion").props("role=option")
                if place == self._chosen:
                    row.classes("chosen").props("aria-selected=true")
                # The press comes before the field loses its focus and hides the list.
                row.on("mousedown.prevent", lambda found_id=found_id: self._pick(found_id))
                with row:
                    ui.label(display.title(found_id, columns)).classes("name")
                    told = _described(found_id, columns) if side is self._known.items else _named(columns)
                    ui.label(told).classes("columns")

    @ui.refreshable_method
    def _about(self) -> None:
        if self._trail.now.subject is not None:
            self._subject(self._trail.now.subject)
            return
        with ui.element("section").classes("panel empty"):
            ui.icon("travel_explore")
            ui.label("Pick somebody or something, or let chance pick.").classes("heading")
            ui.label("Then like and dislike what is found, and watch the list change.")

    @ui.refreshable_method
    def _result(self) -> None:
        self._rows = []
        if self._answer is None:
            return
        self._verdict(self._answer)
        with ui.element("div").classes("lists"):
            self._list("before", "Original", self._answer.comparison.before)
            self._list("after", "After feedback", self._answer.comparison.after)
            self._aside(self._answer)
        self._move_cursor(0)

    def _subject(self, subject: Subject) -> None:
        side = self._known.items if subject.form is Form.ITEM else self._known.entities
        columns = side.row(subject.id) if side is not None else {}
        with ui.element("section").classes("panel subject"):
            ui.icon("inventory_2" if subject.form is Form.ITEM else "person").classes("portrait")
            with ui.element("div").classes("about"):
                title = display.title(subject.id, columns)
                ui.label(title if subject.form is Form.ITEM else f"User {title}").classes("heading")
                with ui.element("div").classes("chips"):
                    if title != subject.id:
                        ui.label(subject.id).classes("chip id")
                    for name, value in display.details(columns):
                        _pair(name, value)
                if subject.form is Form.ENTITY and (history := self._known.history(subject.id)):
                    met = [self._known.items.title(item_id) for item_id in history[:SHOWN_HISTORY]]
                    more = f", and {len(history) - len(met)} more" if len(history) > len(met) else ""
                    ui.label(f"met last: {'; '.join(met)}{more}").classes("history")

    def _controls(self) -> ui.element:
        now = self._trail.now
        with ui.element("section").classes("panel controls") as controls:
            names = sorted({*self._link.facts.reformulators, now.reformulator})
            self._reformulator = ui.select(
                names, label="Reformulator", value=now.reformulator, on_change=self._changes("reformulator")
            )
            self._reformulator.props("outlined dense options-dense").classes("reformulator")
            with ui.element("div").classes("depth"):
                self._depth = ui.slider(min=0, max=DEEPEST, value=now.depth).props("aria-label=depth dense")
                ui.label().bind_text_from(self._depth, "value", lambda depth: f"Depth: the last {depth} marks count")
                # Once it is let go, and not at each place that it is drawn over.
                self._depth.on("change", lambda event: self._change("depth", event.args))
            self._places = ui.select(list(PLACES), label="Places", value=now.k, on_change=self._changes("k"))
            self._places.props("outlined dense options-dense").classes("places")
            self._guard = ui.switch("Guard", value=now.guarded, on_change=self._changes("guarded"))
            self._guard.tooltip("May keep the original query where it doubts the move")
            changes = self._changes("include_marked")
            self._marked = ui.switch("Marked items", value=now.include_marked, on_change=changes)
            self._marked.tooltip("Show items after they were marked, too; disliked ones come last")
            ui.element("span").classes("space")
            self._undoes = ui.button("Undo", icon="undo", on_click=self._undo).props("flat no-caps")
            self._resets = ui.button("Reset", icon="restart_alt", on_click=self._reset).props("flat no-caps")
        return controls

    def _refresh(self) -> None:
        """Show everything as it is now, but for the settings: a person may just be moving one."""
        self._panel.set_visibility(self._trail.now.subject is not None)
        self._undoes.set_enabled(bool(self._trail.past))
        self._resets.set_enabled(bool(self._trail.now.marks))
        self._messages.refresh()
        self._about.refresh()
        self._result.refresh()

    def _verdict(self, answer: Answer) -> None:
        moved, changes = answer.moved, answer.comparison
        with ui.element("section").classes("verdict").props('role="status" aria-live="polite"'):
            _figure("entered", str(len(changes.entered)), "good" if changes.entered else "")
            _figure("left", str(len(changes.left)), "bad" if changes.left else "")
            _figure("changed place", str(len(changes.moved)))
            _figure("drift", f"{moved.drift:.3f}", hint="1 - cosine of the original and the moved query, 0 to 2")
            hint = f"its confidence that the move does not hurt: {moved.confidence:.2f}"
            if not answer.question.guarded:
                _figure("guard", "off")
            elif moved.fell_back:
                _figure("guard", "kept the original query", "bad", hint)
            elif answer.question.marks:
                _figure("guard", "let it pass", hint=hint)
            if moved.ignored_kinds:
                names = ", ".join(kind.name.lower() for kind in moved.ignored_kinds)
                _figure("ignored marks", names, "bad", f"{moved.reformulator} does not read marks of this kind")
            if (origin := moved.ranking.origin) is not None:
                _figure("query", ORIGINS[origin], "wide")

    def _list(self, which: str, title: str, places: tuple[Place, ...]) -> None:
        with ui.element("section").classes(f"panel list {which}"):
            ui.label(title).classes("heading")
            if not places:
                ui.label("Nothing was found.").classes("columns")
            with ui.element("ol"):
                for place in places:
                    self._place(which, place)

    def _place(self, which: str, place: Place) -> None:
        gone = place.other_rank is None
        kind = self._trail.now.kind_of(place.item_id)
        row = ui.element("li").classes("place")
        row.props["data-item"] = place.item_id
        if gone:
            row.classes("entered" if which == "after" else "left")
        if kind is not None:
            row.classes("liked" if kind.positive else "disliked")
        with row:
            ui.label(str(place.rank)).classes("rank")
            with ui.element("div").classes("what"):
                ui.label(display.title(place.item_id, place.columns)).classes("name")
                ui.label(_described(place.item_id, place.columns)).classes("columns")
            if which == "after":
                _change_of(place)
            ui.label(f"{place.score:.4f}").classes("score")
            self._thumbs(place.item_id, place.rank - 1, kind)
        if which == "after":
            self._rows.append(row)

    def _thumbs(self, item_id: str, position: int, kind: FeedbackKind | None) -> None:
        with ui.element("div").classes("thumbs"):
            for meant, icon, verb, colour in (
                (FeedbackKind.LIKED, "thumb_up", "like", "positive"),
                (FeedbackKind.DISLIKED, "thumb_down", "dislike", "negative"),
            ):
                said = kind is meant
                button = ui.button(icon=icon, on_click=lambda meant=meant: self._mark(item_id, meant, position))
                button.props(f"flat round dense size=sm color={colour if said else 'grey-6'}").classes(verb)
                button.props(f"aria-label={verb} aria-pressed={str(said).lower()}")

    def _aside(self, answer: Answer) -> None:
        with ui.element("section").classes("panel aside"):
            ui.label("Your marks").classes("heading")
            if not answer.question.marks:
                ui.label("None yet: press the thumbs beside an item, or the keys l and d.").classes("columns")
            told = answer.moved.explanation
            weights = dict(zip(told.item_ids, told.item_weights.tolist(), strict=True)) if told is not None else {}
            largest = max((abs(weight) for weight in weights.values()), default=0.0) or 1.0
            with ui.element("ul").classes("marks"):
                for mark in answer.question.marks:
                    self._mark_row(mark, weights.get(mark.item_id), largest, mark.item_id in answer.moved.missing_ids)
            ui.label("Left the list").classes("heading")
            if not answer.comparison.left:
                ui.label("Nothing.").classes("columns")
            with ui.element("ul").classes("gone"):
                for place in answer.comparison.left:
                    with ui.element("li").classes("left"):
                        ui.label(str(place.rank)).classes("rank")
                        ui.label(display.title(place.item_id, place.columns)).classes("name")

    def _mark_row(self, mark: FeedbackItem, weight: float | None, largest: float, missing: bool) -> None:
        with ui.element("li").classes("mark liked" if mark.kind.positive else "mark disliked"):
            ui.icon("thumb_up" if mark.kind.positive else "thumb_down")
            with ui.element("div").classes("what"):
                ui.label(self._known.items.title(mark.item_id)).classes("name")
                if weight is None:
                    ui.label("the release does not know it" if missing else "beyond the depth: does not count").classes(
                        "columns"
                    )
                else:
                    with ui.element("div").classes("bar"):
                        side = "left" if weight >= 0 else "right"
                        ui.element("span").style(f"width:{50 * abs(weight) / largest:.1f}%;{side}:50%")
            ui.label("" if weight is None else f"{weight:+.3f}").classes("score")
            again = ui.button(icon="close", on_click=lambda: self._mark(mark.item_id, mark.kind, None))
            again.props('flat round dense size=sm color=grey-6 aria-label="take it back"')

    # What happens.

    @property
    def _side(self) -> Catalogue:
        entities = self._known.entities
        return entities if self._form.value is Form.ENTITY and entities is not None else self._known.items

    async def _suggest(self) -> None:
        await self._suggest_for(self._search.value or "")

    async def _suggest_anew(self) -> None:
        self._search.set_value("")
        self._hide_suggestions()

    async def _suggest_for(self, typed: str) -> None:
        self._suggested = await run.io_bound(self._side.find, typed, SUGGESTIONS)
        self._chosen = 0
        self._suggestions.refresh()

    def _hide_suggestions(self) -> None:
        self._suggested = []
        self._suggestions.refresh()

    def _choose(self, step: int) -> None:
        if self._suggested:
            self._chosen = (self._chosen + step) % len(self._suggested)
            self._suggestions.refresh()

    async def _enter(self, event: events.GenericEventArguments) -> None:
        typed = event.args or ""
        if not self._suggested or typed != (self._search.value or ""):
            await self._suggest_for(typed)
        if self._suggested:
            await self._pick(self._suggested[self._chosen])
        else:
            self._refuse(f"nothing here has {typed!r} in its id or its columns.")

    def _leave_search(self) -> None:
        self._hide_suggestions()
        self._search.run_method("blur")

    async def _pick(self, found_id: str) -> None:
        form = self._form.value
        self._search.run_method("blur")
        self._search.set_value("")
        self._hide_suggestions()
        self._cursor = 0
        await self._go(self._trail.to(self._trail.now.about(Subject(form, found_id))))

    async def _pick_any(self) -> None:
        await self._pick(self._side.any(self._random))

    async def _mark(self, item_id: str, kind: FeedbackKind, position: int | None) -> None:
        await self._go(self._trail.to(self._trail.now.marking(item_id, kind, position)))

    def _changes(self, setting: str) -> Callable[[events.ValueChangeEventArguments], Awaitable[None]]:
        async def change(event: events.ValueChangeEventArguments) -> None:
            await self._change(setting, event.value)

        return change

    async def _change(self, setting: str, value: Any) -> None:
        await self._go(self._trail.to(replace(self._trail.now, **{setting: value})))

    async def _undo(self) -> None:
        if not self._trail.past:
            return
        self._trail = self._trail.back()
        now = self._trail.now
        for element, value in (
            (self._reformulator, now.reformulator),
            (self._depth, now.depth),
            (self._places, now.k),
            (self._guard, now.guarded),
            (self._marked, now.include_marked),
        ):
            element.set_value(value)  # which is no step, because it is asked already
        await self._ask()

    async def _reset(self) -> None:
        await self._go(self._trail.to(self._trail.now.without_marks()))

    async def _go(self, trail: Trail) -> None:
        if trail is not self._trail:
            self._trail = trail
            await self._ask()

    async def _ask(self) -> None:
        question = self._trail.now
        refusal, waits = "", False
        if question.subject is not None:
            try:
                answer = await run.io_bound(self._link.ask, question)
            except TwintowerError as error:
                waits = isinstance(error, UnavailableError)
                answer, refusal = None, WAITING if waits else str(error)
            if question is not self._trail.now:
                return  # a later question is on its way
            if answer is not None:
                self._answer = answer
        self._refusal, self._waits_for_server = refusal, waits
        if self._answer is not None and self._answer.question.subject != question.subject:
            self._answer = None
        self._refresh()

    def _refuse(self, why: str) -> None:
        self._refusal = why
        self._messages.refresh()

    async def _look(self) -> None:
        """Tell what the link says of its server, and ask again what could not be asked while it was gone."""
        if self._told_problem != self._link.problem:
            self._told_problem = self._link.problem
            self._messages.refresh()
        if self._waits_for_server and not self._link.problem:
            self._waits_for_server = False
            await self._ask()

    async def _key(self, event: events.KeyEventArguments) -> None:
        pressed, held = event.key.name, event.modifiers
        if not event.action.keydown or held.ctrl or held.alt or held.meta or self._help.value:
            return
        if pressed in ("ArrowDown", "j"):
            self._move_cursor(1)
        elif pressed in ("ArrowUp", "k"):
            self._move_cursor(-1)
        elif not event.action.repeat:
            await self._act(pressed)

    async def _act(self, pressed: str) -> None:
        if pressed == "/":
            self._search.run_method("focus")
        elif pressed == "?":
            self._help.open()
        elif pressed == "n":
            await self._pick_any()
        elif pressed == "u":
            await self._undo()
        elif pressed == "r":
            await self._reset()
        elif pressed in ("l", "d") and self._answer is not None and self._rows:
            place = self._answer.comparison.after[self._cursor]
            kind = FeedbackKind.LIKED if pressed == "l" else FeedbackKind.DISLIKED
            await self._mark(place.item_id, kind, place.rank - 1)

    def _move_cursor(self, step: int) -> None:
        if not self._rows:
            return
        if self._cursor < len(self._rows):
            self._rows[self._cursor].classes(remove="cursor")
        self._cursor = min(max(self._cursor + step, 0), len(self._rows) - 1)
        row = self._rows[self._cursor].classes("cursor")
        if step:
            ui.run_javascript(f"getHtmlElement({row.id}).scrollIntoView({{block: 'nearest'}})")


def _described(item_id: str, columns: Mapping[str, Any]) -> str:
    """Return the id, where the title is another, and the other columns in one line."""
    first = [item_id] if display.title(item_id, columns) != item_id else []
    return " · ".join([*first, *(value for _, value in display.details(columns))])


def _named(columns: Mapping[str, Any]) -> str:
    """Return the columns in one line with their names: those of users are mostly short codes."""
    return " · ".join(f"{name} {value}" for name, value in display.details(columns))


def _pair(name: str, value: str) -> None:
    with ui.element("span").classes("chip"):
        ui.label(name).classes("chip-name")
        ui.label(value)


def _figure(name: str, value: str, classes: str = "", hint: str = "") -> None:
    with ui.element("div").classes(f"figure {classes}"):
        ui.label(value).classes("value")
        ui.label(name).classes("figure-name")
        if hint:
            ui.tooltip(hint)


def _change_of(place: Place) -> None:
    if place.other_rank is None:
        ui.label("new").classes("change new")
        return
    rise = place.other_rank - place.rank
    said, classes = (f"▲{rise}", "up") if rise > 0 else (f"▼{-rise}", "down") if rise else ("=", "same")
    ui.label(said).classes(f"change {classes}").tooltip(f"was {place.other_rank}")
