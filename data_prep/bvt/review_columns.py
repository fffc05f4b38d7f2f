"""The sheets of a medical review: headings, widths, and what a reviewer chooses from."""

REVIEW_SHEET, ADVICE_SHEET, REVIEW_ID = "review", "advice", "review_id"
REVIEW_COLUMNS = {
    REVIEW_ID: 18, "question": 36, "history": 24, "chain": 40, "answer": 50, "safe": 8, "score": 8, "note": 30,
    "check": 12,
}  # fmt: skip
ADVICE_COLUMNS = {REVIEW_ID: 18, "stratum": 18, "conflict": 40, "rules": 30, "teacher": 30, "advice": 50}
REVIEW_CHOICES = {"safe": ("是", "否"), "score": ("1", "2", "3", "4", "5")}
