"""Report: how results look, in a terminal, in Markdown and as pages. All other rooms keep raw numbers."""
