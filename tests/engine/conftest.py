"""Hypothesis for the rooms: no verdict by elapsed time (the machine may be busy), and a failure says how to repeat it."""

from hypothesis import settings

settings.register_profile("rooms", deadline=None, print_blob=True)
settings.load_profile("rooms")
