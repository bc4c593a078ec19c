"""The command line `perdure`."""
