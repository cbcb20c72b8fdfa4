"""How pictures are shown to people now, and how their answers are checked.

People take pictures of all campaigns as they come; the page looks as the campaign says whose group
is first in line.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from reward_server.domain.standing import Checks
from reward_server.settings import Settings
from reward_server.store import campaigns
from shared.schema.labels import Layout


@dataclass(frozen=True)
class Labeling:
    """What the page of an annotator goes by."""

    layout: Layout
    checks: Checks


def labeling_now(connection: Connection, settings: Settings) -> Labeling:
    """By the settings of the campaign that is first in line, or the server's defaults."""
    campaign = campaigns.first_in_line(connection)
    chosen = campaigns.settings_of(connection, campaign, settings.campaign)
    checks = Checks(
        share=chosen.gold_share, onboarding=settings.onboarding, limit=settings.gold_limit
    )
    return Labeling(chosen.layout, checks)
