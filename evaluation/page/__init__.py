"""The report's page: what of a run is there, what each section shows of it, and how it is drawn."""
