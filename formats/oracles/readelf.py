"""GNU readelf as a judge: `readelf -aW` must have nothing to complain of."""

from __future__ import annotations

import os
import re
import subprocess

# binutils/readelf.c: error() and warn() write to standard error, but many complaints are printed in place
# of a value on standard output. "<unknown" stands for a value that no range of the gABI assigns: those kept
# for systems and processors print as LOOS+, LOPROC+, LOUSER+, "<OS specific>", "<processor specific>": no
# complaint. "<no-strings>" only says that there is no section name table, which the gABI allows.
_COMPLAINT = re.compile(
    r"<corrupt|<unknown|<unrecognized|<internal error|<section name invalid|<invalid|bad section index"
    r"|bad symbol index|possibly corrupt|out of range|\b(?:Warning|Error): "
)
# In notes "<unknown" marks what this readelf is too old for (bits of a GNU property), not what is broken.
_NOTES = re.compile(r"^Displaying notes found")
# Of build attributes readelf guesses that they leave out code. GNU ld's own output has it say so, for the attributes
# of start files (annobin's, in manylinux's wheels) stand between those of the program.
_GAP = re.compile(r"Warning: Gap in build notes detected from")
_SECTION_END = re.compile(r"^\S")


def readelf_judge(path: str | os.PathLike[str], timeout: float = 60.0) -> list[str]:
    """The complaints of `readelf -aW` about the file at `path`: empty when it has none.

    Anything on standard error is one, and so are the complaints that readelf prints among its output.
    Raises FileNotFoundError where there is no readelf.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["readelf", "-aW", os.fspath(path)], capture_output=True, timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return [f"no answer within {timeout:g} s"]
    spoken = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    complaints = [line for line in spoken if not _GAP.search(line)]
    in_notes = False
    for line in done.stdout.decode(errors="replace").splitlines():
        in_notes = bool(_NOTES.match(line)) or (in_notes and not _SECTION_END.match(line))
        found = _COMPLAINT.search(line)
        if found and not (in_notes and found.group() == "<unknown"):
            complaints.append(line.strip())
    if done.returncode != 0 and not complaints:
        complaints.append(f"readelf exits with {done.returncode}")
    return complaints
