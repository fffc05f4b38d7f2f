"""What preflight looks at besides the recipe itself: the machine, the data, the services and their speed."""
