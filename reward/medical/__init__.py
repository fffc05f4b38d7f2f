"""Medical answers as a task: parser, rules, formulas. Lexicons are data files in `wordlists/`."""
