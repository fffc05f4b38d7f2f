"""What keeps secrets and personal data where they belong. Every package may use it; it uses none of ours."""
