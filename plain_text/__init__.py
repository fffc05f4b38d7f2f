"""Text as its author meant it: of a file in any encoding, and of a reasoning model without its thinking."""
