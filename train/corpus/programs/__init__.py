"""The programs, one module a kind; each exposes PROGRAMS."""
