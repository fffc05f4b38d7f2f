"""Every call recorded: cache, audit and budget in one file."""
