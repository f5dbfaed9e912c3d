"""The headsets behind `twinguide.headset`: one through OpenXR, one simulated."""
