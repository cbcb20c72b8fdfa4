"""One module per command of `python -m trainer`, each with `add_arguments(parser)` and `main`."""
