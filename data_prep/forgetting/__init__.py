"""Find a person in what these programs wrote, and remove what is found."""
