"""Rewriters that compete beside the fixed ones: model folders, prompted models, systems of an earlier comparison."""
