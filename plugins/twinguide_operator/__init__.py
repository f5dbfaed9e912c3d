"""A simulated operator, who sees only what is shown."""
