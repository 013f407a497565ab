"""Moving vertices and the shapes they are solved on."""
