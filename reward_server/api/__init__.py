"""HTTP routes: they translate between the wire and the store, and decide nothing."""
