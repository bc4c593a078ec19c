"""What every layer needs: names, paths, durations, retries, threads."""
