"""Cross-encoders: opening, adapters, scoring, calibration, export."""
