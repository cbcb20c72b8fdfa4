"""Campaigns: what people are asked, changed while they click, and how it goes."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import ValidationError
from starlette.convertors import Convertor, register_url_convertor

from reward_server.api.problems import invalid
from reward_server.api.security import Overseer, Services
from reward_server.store import campaign_stats, campaigns
from shared.schema.campaigns import Campaign, CampaignList, CampaignPatch, CampaignStats

router: Final = APIRouter(tags=["campaigns"])


class CampaignConvertor(Convertor[str]):
    """A campaign's id, which may hold slashes, but is not the path of its statistics."""

    regex = r"(?!.*/stats$).+"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("campaign", CampaignConvertor())

CampaignId = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


@router.get("/campaigns", response_model=CampaignList)
async def list_campaigns(
    service: Services,
    caller: Overseer,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> CampaignList:
    """Campaigns that people were asked in or that have settings, most pictures first."""
    defaults = service.settings.campaign
    return CampaignList(campaigns=await service.read(campaigns.listing, defaults, limit))


@router.get("/campaigns/{campaign_id:path}/stats", response_model=CampaignStats)
async def stats(campaign_id: CampaignId, service: Services, caller: Overseer) -> CampaignStats:
    """What waits since when, ETA by group, pace and agreement of annotators."""
    return await service.read(campaign_stats.stats, campaign_id, service.clock())


@router.get("/campaigns/{campaign_id:campaign}", response_model=Campaign)
async def get_campaign(campaign_id: CampaignId, service: Services, caller: Overseer) -> Campaign:
    """Settings; a campaign that nobody has touched has the server's defaults."""
    return await service.read(campaigns.load, campaign_id, service.settings.campaign)


@router.patch("/campaigns/{campaign_id:campaign}", response_model=Campaign)
async def change_campaign(
    campaign_id: CampaignId, ask: CampaignPatch, service: Services, caller: Overseer
) -> Campaign:
    """Change settings for groups that are asked about from now on; null takes one back."""
    defaults, now = service.settings.campaign, service.clock()
    try:
        return await service.write(campaigns.change, campaign_id, ask, defaults, now)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None
