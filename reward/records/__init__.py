"""Values that travel: samples, calls, outcomes; and how files of them are read and written."""
