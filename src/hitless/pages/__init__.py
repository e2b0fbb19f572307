"""HTML pages that stand alone: their frame, their style sheet, and how they are written to a file."""
