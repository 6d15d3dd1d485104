"""The corpus: described programs, compiled small, each run against its oracle."""
