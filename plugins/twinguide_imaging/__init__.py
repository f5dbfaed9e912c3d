"""Simulated tracked ultrasound of the target."""
