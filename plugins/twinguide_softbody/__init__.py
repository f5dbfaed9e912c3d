"""Deform an organ by linear elasticity, driven by how far the target has moved; usable on arrays alone.

`elastic` assembles and checks, `solver` solves; `part` is what the engine hosts.
"""
