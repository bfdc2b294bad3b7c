"""One file, one experiment; `parts` has what several share."""
