"""The format-independent part of the constraint engine: integer sets, promises, and the byte-level driver."""
