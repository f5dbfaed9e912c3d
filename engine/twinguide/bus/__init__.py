"""The bus: topics and who may see them, packets, clients, and shared memory for bulk."""
