"""From rows to data sets: intake, selection, files."""
