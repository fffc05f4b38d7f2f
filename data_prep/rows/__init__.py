"""A row of the customer's data: columns, headings, cells."""
