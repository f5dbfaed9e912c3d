"""Hosting: what runs parts, in the loop's process or in their own, free-running or in lockstep."""
