"""Independent judges of executable files: LIEF, GNU readelf, capstone and the Linux kernel itself.

None of them shares code with the constraint engine, so that agreement between the two means something.
Nothing here imports LIEF or capstone until a judge that needs it is imported.
"""
