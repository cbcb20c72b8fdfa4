"""GenEval's metadata as the target of the counting reward: what a picture should show.

A line of a metadata file of GenEval (Ghosh et al. 2023, arXiv:2310.11513) is a target as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

Relation = Literal["left of", "right of", "above", "below"]
Count = Annotated[StrictInt, Field(ge=1, le=1000)]
ClassName = Annotated[str, Field(min_length=1, max_length=100)]


class Metadata(BaseModel):
    """Part of a metadata line. Keys of other tools are not read; what looks misspelt is refused."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _no_misspelt_key(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        known = {name: field.alias or name for name, field in cls.model_fields.items()}
        names = {*known, *known.values()}
        for key in data:
            near = difflib.get_close_matches(str(key), known.values(), n=1, cutoff=0.75)
            if key not in names and near and near[0] not in data:
                raise ValueError(f"unknown key {key!r}; did you mean {near[0]!r}?")
        return data


class Clause(Metadata):
    """``count`` objects of a class, of a colour if given, placed relative to an earlier clause."""

    name: ClassName = Field(alias="class")
    count: Count = 1
    color: Annotated[str, Field(min_length=1, max_length=50)] | None = None
    position: tuple[Relation, StrictInt] | None = None


class Exclusion(Metadata):
    """Fails when ``count`` or more objects of a class are found."""

    name: ClassName = Field(alias="class")
    count: Count = 1


class GenEvalTarget(Metadata):
    """What a picture should show. ``tag`` chooses the detector's threshold, ``prompt`` nothing.

    Clauses of one class are independent in GenEval: a clause said twice asks for no more than one.
    """

    include: Annotated[tuple[Clause, ...], Field(min_length=1, max_length=32)]
    exclude: Annotated[tuple[Exclusion, ...], Field(max_length=32)] = ()
    tag: str | None = None
    prompt: str | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        for index, clause in enumerate(self.include):
            if clause.position and not 0 <= clause.position[1] < index:
                raise ValueError(
                    f"include[{index}].position refers to include[{clause.position[1]}]; "
                    "it must name an earlier clause, counted from 0"
                )
        if problem := self.contradiction(max):
            raise ValueError(problem)
        return self

    def contradiction(self, total: Callable[[Iterable[int]], int]) -> str | None:
        """Why no picture can meet it, where ``total`` of its clauses' counts is asked of a class.

        ``max``: clauses of one class may share objects (GenEval); ``sum``: they may not.
        """
        for index, ban in enumerate(self.exclude):
            asked = total([0, *(c.count for c in self.include if c.name == ban.name)])
            if ban.count <= asked:
                return (
                    f"exclude[{index}] forbids {ban.count} or more {ban.name!r}, but include asks "
                    f"for {asked}; raise its count above {asked} or remove it"
                )
        return None
