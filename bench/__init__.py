"""Measurements of meshcore, alone and beside its peers. Nothing under meshcore/ imports from here."""
