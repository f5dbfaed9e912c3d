"""TwinGuide: the registered, breathing twin in a headset, true to the moment it is seen."""
