"""Device meshes, partition rules, sharding constraints and the hardware table."""
