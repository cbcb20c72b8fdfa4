"""TDM-R1: prompts -> rollout -> groups -> rewards over HTTP -> update -> next policy."""
