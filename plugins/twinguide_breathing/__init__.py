"""Learn how the target moves with a marker on the chest, and tell where it will be when a frame is seen."""
