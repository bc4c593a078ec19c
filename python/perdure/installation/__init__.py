"""Installation: the SQL script, built and run."""
