"""Wire types of campaigns: what people are asked, how often, and how it goes.

A campaign is all that one run asks of people; its id is the ``run_id``. Requests without one belong
to the campaign ``default``.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from shared.schema import Wire
from shared.schema.labels import Layout

DEFAULT_CAMPAIGN: Final = "default"
"""Campaign of requests that name no run."""

Instruction = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
Votes = Annotated[int, Field(ge=1, le=100)]
GoldShare = Annotated[float, Field(ge=0, le=0.5)]
Weights = Literal["equal", "reliability"]


class CampaignSettings(Wire):
    """How people are asked, unless a score request says ``votes`` and so on itself."""

    instruction: Instruction | None = Field(
        default=None, description="shown above every picture; else the page's own words"
    )
    votes: Votes = Field(default=1, description="likes and dislikes per picture")
    quorum: Votes | None = Field(default=None, description="equal votes that are enough")
    gold_share: GoldShare = Field(
        default=0.1, description="share of pictures whose answer is known already"
    )
    layout: Layout = Field(
        default="single",
        description="one picture at a time, or all pictures of a prompt; people may switch",
    )
    weights: Weights = Field(
        default="equal",
        description="reliability: votes count by how often their annotator is right",
    )

    @model_validator(mode="after")
    def _quorum_fits(self) -> Self:
        if self.quorum is not None and self.quorum > self.votes:
            raise ValueError(f"quorum={self.quorum} can never be reached with votes={self.votes}")
        return self


class CampaignPatch(Wire):
    """Settings to change, only the fields that are sent; null goes back to the server's default."""

    instruction: Instruction | None = None
    votes: Votes | None = None
    quorum: Votes | None = None
    gold_share: GoldShare | None = None
    layout: Layout | None = None
    weights: Weights | None = None


class Campaign(Wire):
    """A campaign's settings; ``changed`` names those that differ from the server's defaults."""

    id: str
    settings: CampaignSettings
    changed: list[str]


class CampaignList(Wire):
    """Answer of ``GET /campaigns``, the busiest first."""

    campaigns: list[Campaign]


class Share(Wire):
    """``part`` of ``whole`` with the 95 % interval of the share (Wilson 1927)."""

    part: int
    whole: int
    low: float
    high: float


class AnnotatorStats(Wire):
    """One person in the last hour, oldest part first in ``pace``.

    ``agreement``: pairs of votes with others on the same picture that agree, of the latest votes;
    ``gold``: known answers given rightly; ``accuracy``: what votes were weighed by last, None for
    whoever's votes never were.
    """

    name: str
    labels: int
    likes: int
    skips: int
    pace: list[int]
    median_s: float | None
    last_s: float
    agreement: Share | None
    gold: Share | None
    accuracy: float | None


class Agreement(Wire):
    """Of the latest pictures with two votes or more; None with the reason in ``why``."""

    pictures: int
    raw: float | None
    alpha: float | None
    why: str | None


class OpenGroup(Wire):
    """A job people are at, in the order in which it will be finished.

    ``cells``: one letter per picture: ``l`` liked, ``d`` disliked, ``x`` without a reward, ``h`` in
    somebody's hands, ``.`` waiting. ``eta_s`` at the present pace, None without one.
    """

    job: str
    group_id: str | None
    step: int | None
    prompt: str
    cells: str
    votes_missing: int
    age_s: float
    eta_s: float | None


class CampaignStats(Wire):
    """How a campaign goes; times in seconds, ``labels_per_hour`` over the last ten minutes.

    ``waiting``: pictures without an answer, ``groups_waiting`` the jobs they belong to, of which
    ``groups`` holds the first; ``part_s``: length of one entry of an annotator's ``pace``.
    """

    id: str
    waiting: int
    oldest_s: float | None
    groups_waiting: int
    groups: list[OpenGroup]
    eta_s: float | None
    labels_last_hour: int
    labels_per_hour: float | None
    part_s: float
    annotators: list[AnnotatorStats]
    agreement: Agreement
    gold: Share | None
