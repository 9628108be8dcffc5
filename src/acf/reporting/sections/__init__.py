"""The parts of a report on analyses, a file each."""
