"""Values: as JSONB stores them, and as the types of annotations read them."""
