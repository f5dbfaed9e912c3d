"""OpenIGTLink: real trackers, 3D Slicer and PLUS. The codec and the connections stand alone, without an engine."""
