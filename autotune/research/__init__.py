"""Research: replay of recorded spaces, ladders of published recipes, and scores of saved pictures."""
