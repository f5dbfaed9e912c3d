"""Calibrate from recordings: read, fit, tell, and keep the result in a file that scenarios load."""
