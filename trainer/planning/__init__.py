"""What a run would need, from its configuration and the model's shapes alone."""
