"""The hub: one process with the broker, the last-value cache and the supervisor, the parent of all parts."""
