"""The rules of jobs, votes, standing and agreement: pure, without clock, database or HTTP."""
