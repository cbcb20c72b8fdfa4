"""The stack of containers, run for real: `make test-compose`."""
