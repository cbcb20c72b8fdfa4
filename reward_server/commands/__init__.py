"""What `python -m reward_server` offers beside serving."""
