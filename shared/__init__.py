"""The contract between the reward server and everything that talks to it.

A leaf: imports neither torch, nor fastapi, nor a database, nor any other package of this project.
"""
