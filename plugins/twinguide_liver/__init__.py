"""The liver: its structures, what they mean for a needle, and a seeded patient."""
