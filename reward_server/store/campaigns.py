"""Campaign settings: what a requester chose over the server's defaults."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, or_, select

from reward_server.store.locks import lock_name
from reward_server.store.tables import campaign, job, traffic
from shared.schema.campaigns import DEFAULT_CAMPAIGN, Campaign, CampaignPatch, CampaignSettings

PROBE: Final = ".heldout"
"""Ending of the run id of a run's probes, the same prompts again and again: its campaign too."""


def campaign_of(run_id: str | None) -> str:
    """Id of the campaign that a run's requests belong to."""
    return (run_id or "").removesuffix(PROBE) or DEFAULT_CAMPAIGN


def first_in_line(connection: Connection) -> str:
    """Id of the campaign whose group is given to people next."""
    waiting = job.c.finished_at.is_(None) & (job.c.kind == "human")
    query = select(job.c.run_id).where(waiting).order_by(job.c.created_at).limit(1)
    return campaign_of(connection.execute(query).scalar())


def belongs_to(campaign_id: str) -> ColumnElement[bool]:
    """Condition on ``job``: part of this campaign."""
    mine = job.c.run_id.in_([campaign_id, f"{campaign_id}{PROBE}"])
    return or_(mine, job.c.run_id.is_(None)) if campaign_id == DEFAULT_CAMPAIGN else mine


def settings_of(
    connection: Connection, campaign_id: str, defaults: CampaignSettings
) -> CampaignSettings:
    """The settings that hold for a campaign."""
    return load(connection, campaign_id, defaults).settings


def load(connection: Connection, campaign_id: str, defaults: CampaignSettings) -> Campaign:
    """A campaign; one that nobody has touched has the server's defaults."""
    chosen = _chosen(connection, campaign_id)
    settings = CampaignSettings(**(defaults.model_dump() | chosen))
    return Campaign(id=campaign_id, settings=settings, changed=sorted(chosen))


def change(
    connection: Connection,
    campaign_id: str,
    patch: CampaignPatch,
    defaults: CampaignSettings,
    now: float,
) -> Campaign:
    """Keep what the patch says; it holds for groups that are asked about from now on.

    Raises:
        ValidationError: the settings would contradict each other; nothing was changed.
    """
    lock_name(connection, f"campaign:{campaign_id}")
    said = patch.model_dump(exclude_unset=True)
    chosen = {k: v for k, v in (_chosen(connection, campaign_id) | said).items() if v is not None}
    CampaignSettings(**(defaults.model_dump() | chosen))
    connection.execute(campaign.delete().where(campaign.c.id == campaign_id))
    row = {"id": campaign_id, "settings": chosen, "updated_at": now}
    connection.execute(campaign.insert(), [row])
    return load(connection, campaign_id, defaults)


def listing(connection: Connection, defaults: CampaignSettings, limit: int) -> list[Campaign]:
    """Campaigns that people were asked in or that have settings; most pictures first."""
    asked = (
        select(traffic.c.run_id)
        .where(traffic.c.reward == "human")
        .order_by(traffic.c["items"].desc())
        .limit(limit)
    )
    ids = [campaign_of(run_id) for run_id in connection.execute(asked).scalars()]
    ids += connection.execute(select(campaign.c.id).order_by(campaign.c.id).limit(limit)).scalars()
    return [load(connection, one, defaults) for one in list(dict.fromkeys(ids))[:limit]]


def _chosen(connection: Connection, campaign_id: str) -> dict[str, Any]:
    query = select(campaign.c.settings).where(campaign.c.id == campaign_id)
    return dict(connection.execute(query).scalar() or {})
