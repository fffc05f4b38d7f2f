"""Files of every kind into rows."""
