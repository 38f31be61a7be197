"""What `recsys tune` tries for a setting; it stands beside the setting, as `Annotated[float, Between(0.0, 0.5)]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class _Values:
    """When a setting is tried.

    Attributes:
        in_steps: only training in steps reads the setting, so that a closed form does not try it.
        needs_times: the setting means nothing where interactions have no times.
    """

    in_steps: bool = False
    needs_times: bool = False


@dataclass(frozen=True)
class Between(_Values):
    """Numbers between two bounds; integers where both bounds are integers.

    A setting that holds several values to try, as those of closed forms do, gets one number.

    Attributes:
        low: the smallest value.
        high: the largest value.
        log: try equal ratios equally often, instead of equal differences; `low` is positive.
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        """Return the bounds in words."""
        return f"{self.low} to {self.high}{', logarithmic' if self.log else ''}"

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that must all suit a run: the bounds."""
        return (self.low, self.high)

    def __contains__(self, value: object) -> bool:
        """Return whether a value is a number within the bounds."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf(_Values):
    """Some values.

    Attributes:
        values: at least one.
    """

    values: tuple[Any, ...]

    def __str__(self) -> str:
        """Return the values with commas between them."""
        return ", ".join(map(repr, self.values))

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values that must all suit a run: all of them."""
        return self.values

    def __contains__(self, value: object) -> bool:
        """Return whether it is one of the values."""
        return value in self.values


def search_space_of(cls: type) -> dict[str, Between | OneOf]:
    """Return what is tried by default for each setting of a class made with `registry.settings`."""
    return {
        name: metadata
        for name, field in cls.__pydantic_fields__.items()  # type: ignore[attr-defined]
        for metadata in field.metadata
        if isinstance(metadata, (Between, OneOf))
    }
