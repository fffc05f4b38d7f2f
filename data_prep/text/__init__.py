"""Free text: one spelling, personal data masked."""
