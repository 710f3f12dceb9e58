"""The report of a run: one HTML page that shows what dropout did, and how sure that is."""
