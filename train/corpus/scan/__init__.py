"""Real files as a measure of completeness: collected from folders and packages, replayed, judged."""
