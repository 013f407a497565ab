"""Animation data: curves and their files, emotions over time, neutral meshes."""
