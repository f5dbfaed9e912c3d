"""A simulated patient and room: breathing, tissue, tools and wearer; the only source of truth."""
