"""Simulated annotators with a hidden taste, who click over the same HTTP interface."""
