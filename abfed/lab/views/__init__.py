"""How plans, runs, releases and models show themselves: cards, tables, plots, sentences."""
