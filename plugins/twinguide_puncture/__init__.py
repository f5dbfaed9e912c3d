"""Guidance of a needle along a planned path."""
